//! How much of the agent one local user may occupy.
//!
//! Fairness by construction, not by guesses about who is hostile: at the bound of all connections, the user that holds most
//! gives one up for a newcomer that holds less. A user's own flood ends the user's own idle connections first.

mod attention;
mod books;
mod descriptors;
mod local_user;
mod long_messages;
mod rounds;
mod slot;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ironroot_shell::logging::{LineRate, LogLimit, Pass};
use ironroot_shell::token_bucket::Rate;
use thiserror::Error;
use tokio::sync::Semaphore;

pub use descriptors::raise_descriptor_limit;
pub use local_user::SubordinateUids;
pub use long_messages::Most;
pub(super) use long_messages::{LongMessage, NoTurn, Turn};
pub(super) use rounds::Ticket;
pub(super) use slot::{ConnectionSlot, StreamSlot};

use crate::server_number::ServerNumber;
use books::Books;
use local_user::LocalUser;
use long_messages::Turns;

/// One user's lines about one thing.
const LINES_PER_USER: LineRate = LineRate { burst: 1, interval: Duration::from_secs(10) };
/// One user's lines about what was served: the workloads of a machine that boots each have theirs.
const SERVED_PER_USER: LineRate = LineRate { burst: 50, interval: Duration::from_secs(10) };
/// All users' lines about local callers.
const LINES_IN_ALL: LineRate = LineRate { burst: 100, interval: Duration::from_millis(200) };

/// Bounds per user, and in all. A user over one of them is told `Unavailable` or `ResourceExhausted`; others notice nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all; less where the process's descriptor limit is lower.
    pub max_connections: usize,
    /// Connections of one user; at most a quarter of all.
    pub max_connections_per_user: usize,
    /// Open streams in all; above it only users that have none get one.
    pub max_streams: usize,
    /// Open streams of one user.
    pub max_streams_per_user: usize,
    /// Attestations of one user at the same time; more wait for their turn.
    pub max_attestations_per_user: usize,
    /// JWT-SVIDs that one user has signed at the same time; more wait for their turn.
    pub max_signatures_per_user: usize,
    /// Messages of more than a few lines, of an Envoy's 128 KiB at most, that are read at the same time.
    pub long_discoveries: Most,
    /// The same of all other requests, of 20 KiB at most (a delegate's 32).
    pub long_requests: Most,
    /// Connections and requests of one user that go through at once.
    pub burst_per_user: u32,
    /// Connections and requests of one user per second in the long run.
    pub rate_per_user: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 2048,
            max_connections_per_user: 512,
            max_streams: 4096,
            max_streams_per_user: 512,
            max_attestations_per_user: 8,
            max_signatures_per_user: 4,
            long_discoveries: Most { per_user: 4, in_all: 64 },
            long_requests: Most { per_user: 16, in_all: 256 },
            burst_per_user: 4096,
            rate_per_user: 500,
        }
    }
}

impl Limits {
    /// Connections that only users who hold none may have.
    fn kept_for_newcomers(&self) -> usize {
        self.max_connections / 16
    }

    fn long_messages(&self, kind: LongMessage) -> Most {
        match kind {
            LongMessage::Discovery => self.long_discoveries,
            LongMessage::Request => self.long_requests,
        }
    }

    /// Of one user's connections and requests.
    fn rate(&self) -> Rate {
        Rate::per_second(self.burst_per_user, self.rate_per_user)
    }

    fn within(mut self, descriptors: usize) -> Self {
        self.max_connections = self.max_connections.min(descriptors).max(4);
        self.max_connections_per_user = self.max_connections_per_user.min(self.max_connections / 4);
        self
    }
}

/// Why a connection is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Crowded {
    /// The token bucket is empty.
    #[error("its user connects or asks too often")]
    Rate,
    /// The user's bound is reached and no connection of it is idle.
    #[error("its user has too many connections open, and uses all of them")]
    User,
    /// The bound of all is reached and nobody holds more than the newcomer.
    #[error("too many connections are open, and no user with more of them has an idle one")]
    All,
    /// Connections that had to give way still hold their descriptors.
    #[error("connections that give way have not ended yet")]
    Leaving,
}

/// What local users hold of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Occupancy {
    /// Users with a connection.
    pub users: usize,
    /// Connections in all.
    pub connections: usize,
    /// Open streams in all.
    pub streams: usize,
}

/// What a line in the log is about: each is said once in a while for each user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum About {
    /// A connection that was not taken in.
    Connection,
    /// A request that was turned away at the door.
    Request,
    /// A call of a workload whose kind calls too often.
    Rate,
    /// A caller that cannot be attested.
    Attestation,
    /// A caller without an identity.
    NoIdentity,
    /// An entry of a caller's that is not shown, since an older one has the same hint.
    Hidden,
    /// A caller whose identities are too old to be served.
    Expired,
    /// A JWT-SVID that could not be signed.
    Signature,
    /// A token that a caller had validated and that is not good.
    Token,
    /// What an Envoy says of secrets that it was sent, or asks for and may not have.
    Secrets,
    /// A caller that asks for others and may not.
    Delegate,
    /// A broker whose reference leads to nothing for it, or that is none.
    Broker,
    /// What an entry asks about a caller and could not be told.
    Withheld,
    /// A connection that was ended because of who writes into it.
    Writer,
}

/// The books: who occupies what.
#[derive(Clone, Debug)]
pub(super) struct Admission(Arc<AdmissionState>);

#[derive(Debug)]
struct AdmissionState {
    limits: Limits,
    uids: SubordinateUids,
    books: Mutex<Books>,
    lines: LogLimit<(LocalUser, About)>,
    served: LogLimit<LocalUser>,
}

impl Admission {
    pub fn new(limits: Limits, uids: SubordinateUids) -> Self {
        let limits = limits.within(descriptors::room_for_connections());
        let lines = LogLimit::new(LINES_PER_USER, LINES_IN_ALL);
        let served = LogLimit::new(SERVED_PER_USER, LINES_IN_ALL);
        Self(Arc::new(AdmissionState { limits, uids, books: Mutex::new(Books::new(&limits)), lines, served }))
    }

    /// Books one more connection for the user of `uid`, if need be at the cost of another connection.
    pub fn connect(&self, uid: u32, now: Instant) -> Result<ConnectionSlot, Crowded> {
        let user = self.0.uids.user_of(uid);
        let mut books = self.books();
        if !books.is_in_rate(user, &self.0.limits, now) {
            return Err(Crowded::Rate);
        }
        let (number, eviction) = books.connect(user, &self.0.limits, now)?;
        let rounds = books.rounds(user, &self.0.limits, now);
        drop(books);
        Ok(ConnectionSlot::new(self.clone(), uid, user, number, eviction, rounds))
    }

    /// Whether the user of `uid` may ask once more now. Source: token bucket.
    pub fn is_in_rate(&self, uid: u32, now: Instant) -> bool {
        self.books().is_in_rate(self.0.uids.user_of(uid), &self.0.limits, now)
    }

    /// A permit of these is an attestation of the user of `uid`. Waited for, first come first served: when an identity is
    /// renewed, all streams of its user are attested again at once.
    pub fn attestations(&self, uid: u32, now: Instant) -> Arc<Semaphore> {
        self.books().attestations(self.0.uids.user_of(uid), &self.0.limits, now)
    }

    /// A permit of these is a call to that server for the user of `uid`, waited for in the same way. Each server has its own: one
    /// that hangs takes nothing from another.
    pub fn signatures(&self, uid: u32, server: ServerNumber, now: Instant) -> Arc<Semaphore> {
        self.books().signatures(self.0.uids.user_of(uid), server, &self.0.limits, now)
    }

    /// The turns of the user of `uid` to have a long message read.
    pub fn long_messages(&self, uid: u32, kind: LongMessage, now: Instant) -> Turns {
        self.books().long_messages(self.0.uids.user_of(uid), kind, &self.0.limits, now)
    }

    /// Whether a line about `uid` may be logged now: once in a while is enough.
    pub fn should_log(&self, uid: u32, about: About, now: Instant) -> Option<Pass> {
        self.0.lines.admit((self.0.uids.user_of(uid), about), now)
    }

    /// Whether a line that says what `uid` was served may be logged now.
    pub fn should_log_served(&self, uid: u32, now: Instant) -> Option<Pass> {
        self.0.served.admit(self.0.uids.user_of(uid), now)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
