//! What the loop that keeps identities current says of itself, for people who ask: the newest state, which nobody waits for.

use std::fmt;

use crate::server_answers::DerList;
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

/// See the module. The default: nothing has happened yet.
#[derive(Clone, Debug, Default)]
pub struct Report {
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
    /// Whether identities outlive a restart.
    pub is_cache_sealed: bool,
    /// How far the server's issuance log has come, and what speaks against it; empty: it has not shown one.
    pub issuance_log: String,
    /// How this device's clock stands; `None`: nobody has looked.
    pub clock: Option<ClockStanding>,
}
