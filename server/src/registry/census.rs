//! How many agents and entries there are, and how they are, for whoever counts: nothing is decoded for it.

use super::Registry;
use crate::facts::agent::AgentRecord;

/// Agents by how they are; each is in one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentCensus {
    /// Renewed in time.
    pub current: usize,
    /// Their certificate is good still, and they should have renewed it by now: they are away.
    pub late: usize,
    /// Their certificate has ended: they attest again when they come back.
    pub expired: usize,
    /// Shut out by an operator.
    pub banned: usize,
}

impl AgentCensus {
    fn count(&mut self, agent: &AgentRecord, now_unix: i64, late_below: i64) {
        let left = agent.not_after.max(agent.new_not_after) - now_unix;
        let place = match (agent.banned, left) {
            (true, _) => &mut self.banned,
            (false, ..=0) => &mut self.expired,
            (false, left) if left < late_below => &mut self.late,
            (false, _) => &mut self.current,
        };
        *place += 1;
    }
}

impl Registry {
    /// The agents at `now_unix`. One whose certificate has less than `late_below` seconds left is late.
    pub fn agent_census(&self, now_unix: i64, late_below: i64) -> AgentCensus {
        let mut census = AgentCensus::default();
        let tables = self.shared.read();
        tables.agents.behind(i64::MIN).for_each(|(_, agent)| census.count(agent, now_unix, late_below));
        census
    }

    /// How many entries there are.
    pub fn entry_census(&self) -> usize {
        self.shared.read().entries.total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_counted_once_by_how_it_is() {
        let mut census = AgentCensus::default();
        let agent = |banned, not_after, new_not_after| AgentRecord {
            banned,
            not_after,
            new_not_after,
            ..AgentRecord::example("a")
        };
        for agent in [
            agent(false, 200, 0),
            agent(false, 90, 200),
            agent(false, 110, 0),
            agent(false, 100, 0),
            agent(true, 999, 0),
        ] {
            census.count(&agent, 100, 25);
        }
        assert_eq!(census, AgentCensus { current: 2, late: 1, expired: 1, banned: 1 });
    }
}
