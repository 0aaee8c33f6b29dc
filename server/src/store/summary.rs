//! What a database holds, at a glance.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Counts of what they name, and how far the database has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "counts of what they name")]
pub struct Summary {
    /// Version of its tables.
    pub schema: i64,
    /// How many changes it has seen: see [`Facts::revision`](super::Facts::revision).
    pub revision: i64,
    pub entries: i64,
    pub agents: i64,
    /// Of the agents.
    pub banned_agents: i64,
    pub devices: i64,
    /// Of the devices.
    pub banned_devices: i64,
    pub join_tokens: i64,
}

/// One line.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schema: _, revision, entries, agents, banned_agents, devices, banned_devices, join_tokens } = self;
        write!(
            f,
            "revision {revision}: {entries} entries, {agents} agents ({banned_agents} banned), {devices} devices ({banned_devices} banned), \
             {join_tokens} join tokens"
        )
    }
}
