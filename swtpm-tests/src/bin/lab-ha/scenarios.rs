//! What befalls the cluster and the servers, each told with its figures.

mod failover;
mod kill_primary;
mod kill_server;
mod lagging;
mod partition;
mod quorum;
mod upgrade;

use crate::Outcome;
use crate::cluster::Cluster;

/// One thing that happens.
pub struct Scenario {
    pub name: &'static str,
    /// What must be true.
    pub claim: &'static str,
    pub run: fn(&mut Cluster) -> Outcome<()>,
}

/// Every one, in the order in which they are run.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "kill-primary",
        claim: "the primary dies under 1,000 join tokens: each is spent by exactly one agent",
        run: kill_primary::run,
    },
    Scenario {
        name: "kill-node",
        claim: "the primary's machine dies: SVIDs are signed from memory, changes are refused with the reason, and taken again alone",
        run: failover::kill,
    },
    Scenario {
        name: "freeze-node",
        claim: "the primary's machine freezes, answers nothing, and thaws: the same",
        run: failover::freeze,
    },
    Scenario {
        name: "cut-node",
        claim: "the primary's machine is cut off and comes back: the same",
        run: failover::cut,
    },
    Scenario { name: "crash", claim: "PostgreSQL crashes on the primary: the same", run: failover::crash },
    Scenario {
        name: "lagging-standby",
        claim: "a standby without the last commits takes over: noticed, and issuing waits for the operator's word",
        run: lagging::run,
    },
    Scenario {
        name: "kill-server",
        claim: "a server is killed: agents are at another within a second, and no fetch fails",
        run: kill_server::run,
    },
    Scenario {
        name: "partition",
        claim: "a server without the database signs from memory and says so; one without its agents costs them nothing",
        run: partition::run,
    },
    Scenario {
        name: "etcd-quorum",
        claim: "two of three etcd freeze: nobody notices (failsafe_mode)",
        run: quorum::run,
    },
    Scenario {
        name: "rolling-upgrade",
        claim: "a server of another version beside today's: both serve (needs IRONROOT_OLD_BIN)",
        run: upgrade::run,
    },
];
