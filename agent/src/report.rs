//! What the loop that keeps identities current says of itself, for people who ask: the newest state, which nobody waits for.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::ServerName;
use crate::server_answers::{DerList, TrustBundle};
use crate::trusted_time::ClockStanding;

/// Where the agent stands with its server, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stands {
    /// It has no certificate yet.
    #[default]
    New,
    /// The server takes its certificate.
    Attested,
    /// The server takes it no more; it attests again.
    Refused,
    /// The server does not know it, and it cannot attest.
    Evicted,
    /// The server bans it.
    Banned,
}

impl Stands {
    /// Each.
    pub const ALL: [Self; 5] = [Self::New, Self::Attested, Self::Refused, Self::Evicted, Self::Banned];

    /// Why the agent serves nobody where it stands so, with what ends it; none where it does, or attests first.
    pub fn why_nothing_is_served(self) -> Option<&'static str> {
        match self {
            Self::New | Self::Attested | Self::Refused => None,
            Self::Evicted => Some(
                "the server does not know this agent any more (agent evict), and it cannot attest again: it serves nothing; with a join token, give it a new one",
            ),
            Self::Banned => Some(
                "the server bans this agent: it serves nothing until it is evicted there (agent evict) and attests again",
            ),
        }
    }

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Attested => "attested",
            Self::Refused => "refused",
            Self::Evicted => "evicted",
            Self::Banned => "banned",
        }
    }
}

impl fmt::Display for Stands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What the loops of all servers say, in the order of the servers.
#[derive(Clone, Debug)]
pub struct Reports(Arc<[watch::Receiver<Report>]>);

impl Reports {
    /// One for each server.
    pub fn new(each: Vec<watch::Receiver<Report>>) -> Self {
        Self(each.into())
    }

    /// Each as it is now.
    pub fn all(&self) -> Vec<Report> {
        self.0.iter().map(|report| report.borrow().clone()).collect()
    }

    /// The one that speaks for the agent where there is room for one: of the first server that takes its certificate, else of the
    /// first.
    pub fn first(&self) -> Report {
        let mut all = self.all();
        let best = all.iter().position(|report| report.stands == Stands::Attested && report.failures == 0);
        if all.is_empty() { Report::default() } else { all.swap_remove(best.unwrap_or_default()) }
    }
}

/// What proves the server is sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sought {
    /// Whether the server was known before.
    pub is_again: bool,
    /// Since when, UNIX seconds.
    pub since_unix: i64,
    /// How often the configured place was asked.
    pub attempts: u32,
}

/// See the module. The default: nothing has happened yet.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What the configuration calls the server; empty for the one that has no name there.
    pub name: String,
    /// Where it stands.
    pub stands: Stands,
    /// Its own chain, leaf first, without the root; none before it has attested.
    pub chain: Option<DerList>,
    /// When all was last confirmed by the server, UNIX seconds; 0: never.
    pub synced_unix: i64,
    /// The server's host and port.
    pub server: String,
    /// Whether the server tells of changes.
    pub is_told_of_changes: bool,
    /// Turns that failed since the last that did not, and why the last of them did.
    pub failures: u32,
    /// See `failures`.
    pub last_failure: Option<String>,
    /// When the server is asked next, UNIX seconds.
    pub next_contact_unix: i64,
    /// Whether there are identities on the disk that outlive a restart, and the last write did not fail.
    pub is_cache_sealed: bool,
    /// Whether there is a sealed file of which it is not known yet whether it opens: the chip is waited for.
    pub has_unopened_cache: bool,
    /// How far the server's issuance log has come, and what speaks against it; empty: it has not shown one.
    pub issuance_log: String,
    /// What the server is verified against: its own bundle, what an earlier run kept of it, or what the place that the operator has configured had
    /// when the server was last sought; `None`: not even that.
    pub bundle: Option<Arc<TrustBundle>>,
    /// How long what proves the server has been sought; `None`: it is known, and believed.
    pub sought: Option<Sought>,
    /// How it is with the agent's own CA; empty: it is to have none.
    pub local_authority: String,
    /// How this device's clock stands; `None`: nobody has looked.
    pub clock: Option<ClockStanding>,
}

impl Report {
    /// Nothing has happened yet between the agent and the server of that name at `server`, host and port.
    pub fn of(name: Option<&ServerName>, server: String) -> Self {
        Self { name: name.map(ServerName::to_string).unwrap_or_default(), server, ..Self::default() }
    }
}
