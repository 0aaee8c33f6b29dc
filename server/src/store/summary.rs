//! What a database holds, at a glance.

use std::fmt;

use ironroot_shell::command_line::counted;
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
        let (entries, agents) = (counted(*entries, "entry", "entries"), counted(*agents, "agent", "agents"));
        let (devices, tokens) =
            (counted(*devices, "device", "devices"), counted(*join_tokens, "join token", "join tokens"));
        write!(
            f,
            "revision {revision}: {entries}, {agents} ({banned_agents} banned), {devices} ({banned_devices} banned), {tokens}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_kind_is_told_as_one() {
        let (entries, agents, devices, join_tokens) = (1, 1, 2, 0);
        let summary = Summary {
            schema: 12,
            revision: 7,
            entries,
            agents,
            banned_agents: 1,
            devices,
            banned_devices: 0,
            join_tokens,
        };
        let told = "revision 7: 1 entry, 1 agent (1 banned), 2 devices (0 banned), 0 join tokens";
        assert_eq!(summary.to_string(), told);
    }
}
