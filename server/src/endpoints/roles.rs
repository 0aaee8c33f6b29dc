//! How much of the server each role may occupy. The handbook's table "What each role can take of the server" says the same for operators.

use std::time::Duration;

use ironroot_attest::node::tpm2::CHALLENGE_SECONDS;

use super::caller::Source;
use super::fair_share::FairShare;

/// Which limits hold for a caller. From least to most trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Over TCP, without a certificate.
    Stranger,
    /// With a certificate of the trust domain that is no agent's and no administrator's: a workload's.
    Holder,
    /// A server below this one, whose entry is `downstream`.
    Downstream,
    /// An attested agent.
    Agent,
    /// An administrator over TCP.
    RemoteAdministrator,
    /// An administrator on the admin socket.
    LocalAdministrator,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// What callers of one role may make the server hold. The handbook's table "What each role can take of the server" is this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleLimits {
    /// Open connections of all callers of the role together.
    pub connections: usize,
    /// Connections of one source: an address block, an ID, a uid.
    pub connections_per_source: usize,
    /// A connection is ended at this age, if there is one. Open calls may finish, for [`RoleLimits::GRACE`].
    pub connection_age: Option<Duration>,
    /// A connection without a call is ended after this time.
    pub idle: Duration,
    /// A caller that has been silent for this long while a call is under way is asked whether it is there.
    pub ping_after: Duration,
    /// Calls at once on one connection.
    pub streams: u32,
    /// Bytes of one call's headers, uncompressed, and 32 for each. Source: RFC 9113 §6.5.2.
    pub header_bytes: u32,
    /// Bytes of one call, and of one connection, that the network may be ahead of us.
    pub windows: (u32, u32),
    /// Of calls and memory that are free, one source may hold one in this many.
    pub portion: usize,
    /// Calls at once in all.
    pub calls: usize,
    /// Calls at once of one source.
    pub calls_per_source: usize,
    /// Calls with large answers at once of one source.
    pub large_answers_per_source: usize,
    /// Memory of bodies that are being read or worked on, bytes, in all.
    pub body_bytes: usize,
    /// How long a message may take to arrive.
    pub body_deadline: Duration,
}

impl RoleLimits {
    /// What open calls get to finish when a connection's age is over.
    pub const GRACE: Duration = Duration::from_secs(30);
}

impl Role {
    /// From least to most trusted.
    pub const ALL: [Self; 6] = [
        Self::Stranger,
        Self::Holder,
        Self::Downstream,
        Self::Agent,
        Self::RemoteAdministrator,
        Self::LocalAdministrator,
    ];
    /// Those whose connections come over TCP.
    pub const REMOTE: [Self; 5] =
        [Self::Stranger, Self::Holder, Self::Downstream, Self::Agent, Self::RemoteAdministrator];

    /// What metrics call it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Holder => "holder",
            Self::Downstream => "downstream",
            Self::Agent => "agent",
            Self::RemoteAdministrator => "remote_administrator",
            Self::LocalAdministrator => "local_administrator",
        }
    }

    /// What callers of this role may take; constant, so that a test can sum it up.
    pub const fn limits(self) -> RoleLimits {
        match self {
            Self::Stranger => STRANGER,
            Self::Holder => HOLDER,
            Self::Downstream => DOWNSTREAM,
            Self::Agent => AGENT,
            Self::RemoteAdministrator => REMOTE_ADMINISTRATOR,
            Self::LocalAdministrator => LOCAL_ADMINISTRATOR,
        }
    }
}

/// Attests once, with a slow chip in as long as that may take, and goes.
const STRANGER: RoleLimits = RoleLimits {
    connections: 512,
    connections_per_source: 128,
    connection_age: Some(Duration::from_secs(CHALLENGE_SECONDS.unsigned_abs())),
    idle: Duration::from_secs(20),
    ping_after: Duration::from_secs(60),
    streams: 8,
    header_bytes: 4096,
    windows: (64 * KIB as u32, 64 * KIB as u32),
    portion: 8,
    calls: 1024,
    calls_per_source: 256,
    large_answers_per_source: 0,
    body_bytes: 8 * MIB,
    body_deadline: Duration::from_secs(10),
};

/// May ask for the bundle, and attest as anybody may.
const HOLDER: RoleLimits =
    RoleLimits { connections: 512, connections_per_source: 16, calls: 256, calls_per_source: 32, ..STRANGER };

/// Looks at the bundle every few seconds, and asks for a CA now and then. Apart from workloads, so that none of those keeps it out.
const DOWNSTREAM: RoleLimits = RoleLimits {
    connections: 1024,
    connection_age: Some(Duration::from_secs(30 * 60)),
    idle: Duration::from_secs(60),
    ..HOLDER
};

/// Is told of changes on one connection for half a day, or polls every few seconds. A second one comes with each renewal. What it is
/// told shows whether it is there (`accept::UNACKNOWLEDGED_MS`), and a handshake takes as much on the wire as an hour of that.
const AGENT: RoleLimits = RoleLimits {
    connections: 65_536,
    connections_per_source: 8,
    connection_age: Some(Duration::from_secs(12 * 3600)),
    idle: Duration::from_secs(15 * 60),
    ping_after: Duration::from_secs(15 * 60),
    portion: 8,
    streams: 32,
    header_bytes: 8192,
    windows: (64 * KIB as u32, 256 * KIB as u32),
    calls: 16_384,
    calls_per_source: 32,
    large_answers_per_source: 4,
    body_bytes: 64 * MIB,
    body_deadline: Duration::from_secs(30),
};

/// Imports and batches come from here too: of the memory one source may hold half, as much as the largest import takes.
const REMOTE_ADMINISTRATOR: RoleLimits = RoleLimits {
    connections: 64,
    connections_per_source: 16,
    connection_age: Some(Duration::from_secs(30 * 60)),
    ping_after: STRANGER.ping_after,
    portion: 1,
    calls: 128,
    calls_per_source: 32,
    body_bytes: 192 * MIB,
    body_deadline: Duration::from_secs(60),
    windows: (256 * KIB as u32, 1024 * KIB as u32),
    ..AGENT
};

/// Whoever may open the admin socket.
const LOCAL_ADMINISTRATOR: RoleLimits = RoleLimits {
    connections: 256,
    connections_per_source: 128,
    connection_age: None,
    streams: 128,
    header_bytes: 16 * 1024,
    calls: 512,
    calls_per_source: 256,
    large_answers_per_source: 16,
    ..REMOTE_ADMINISTRATOR
};

/// The one budget: memory of all bodies that are being read or worked on, bytes. Each role has its own part of it.
pub const BODY_BUDGET_BYTES: usize = STRANGER.body_bytes
    + HOLDER.body_bytes
    + DOWNSTREAM.body_bytes
    + AGENT.body_bytes
    + REMOTE_ADMINISTRATOR.body_bytes
    + LOCAL_ADMINISTRATOR.body_bytes;

/// Calls of all roles at once.
pub const CALLS: usize = STRANGER.calls
    + HOLDER.calls
    + DOWNSTREAM.calls
    + AGENT.calls
    + REMOTE_ADMINISTRATOR.calls
    + LOCAL_ADMINISTRATOR.calls;

/// What the callers of each role hold at this moment.
#[derive(Debug)]
pub struct Occupancy {
    roles: [RoleShares; Role::ALL.len()],
}

#[derive(Debug)]
struct RoleShares {
    calls: FairShare<Source>,
    large_answers: FairShare<Source>,
    body_bytes: FairShare<Source>,
}

impl Occupancy {
    /// Nothing held.
    pub fn new() -> Self {
        Self {
            roles: Role::ALL.map(|role| {
                let limits = role.limits();
                RoleShares {
                    calls: FairShare::new(limits.calls, limits.calls_per_source, limits.portion),
                    large_answers: FairShare::new(limits.calls, limits.large_answers_per_source, limits.portion),
                    body_bytes: FairShare::new(limits.body_bytes, usize::MAX, limits.portion),
                }
            }),
        }
    }

    /// The open calls of that role, shared out among its sources.
    pub fn calls(&self, role: Role) -> &FairShare<Source> {
        &self.roles[role as usize].calls
    }

    /// The calls with large answers of that role.
    pub fn large_answers(&self, role: Role) -> &FairShare<Source> {
        &self.roles[role as usize].large_answers
    }

    /// The memory of bodies of that role.
    pub fn body_bytes(&self, role: Role) -> &FairShare<Source> {
        &self.roles[role as usize].body_bytes
    }
}

impl Default for Occupancy {
    fn default() -> Self {
        Self::new()
    }
}
