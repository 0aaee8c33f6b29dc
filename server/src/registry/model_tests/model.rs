//! Entries and agents without any index.

use std::collections::BTreeSet;

use super::td;
use crate::facts::agent::AgentRecord;
use crate::facts::entry::RegistrationEntry;
use crate::registry::EntryFilter;

/// Lists only; every question is answered by looking at everything.
#[derive(Default)]
pub struct Model {
    pub entries: Vec<(i64, RegistrationEntry)>,
    pub agents: Vec<AgentRecord>,
}

impl Model {
    pub fn put_entry(&mut self, seq: i64, entry: RegistrationEntry) {
        self.entries.retain(|(_, e)| e.id() != entry.id());
        self.entries.push((seq, entry));
        self.entries.sort_by_key(|(seq, _)| *seq);
    }

    pub fn put_agent(&mut self, agent: AgentRecord) {
        self.agents.retain(|a| a.spiffe_id != agent.spiffe_id);
        self.agents.push(agent);
    }

    /// SPIRE's definition, iterated until nothing is added. Source: spire.md §7.
    pub fn authorized(&self, agent: &AgentRecord, now_unix: i64) -> BTreeSet<&str> {
        if agent.banned {
            return BTreeSet::new();
        }
        let all = || self.entries.iter().map(|(_, entry)| entry);
        let aliases =
            all().filter(|e| *e.parent_id() == td().server_id() && e.selectors().is_subset_of(&agent.selectors));
        let mut parents: BTreeSet<_> = aliases.map(|e| e.spiffe_id().clone()).collect();
        parents.insert(agent.spiffe_id.clone());
        loop {
            let below = all().filter(|e| parents.contains(e.parent_id())).map(|e| e.spiffe_id().clone());
            let grown: BTreeSet<_> = parents.iter().cloned().chain(below.collect::<Vec<_>>()).collect();
            if grown == parents {
                break;
            }
            parents = grown;
        }
        let goes_on = |e: &&RegistrationEntry| e.expires_at() == 0 || e.expires_at() > now_unix;
        all().filter(|e| parents.contains(e.parent_id())).filter(goes_on).map(RegistrationEntry::id).collect()
    }

    pub fn remove_entry(&mut self, id: &str) {
        self.entries.retain(|(_, entry)| entry.id() != id);
    }

    pub fn place_of(&self, id: &str) -> Option<i64> {
        self.entries.iter().find(|(_, entry)| entry.id() == id).map(|(seq, _)| *seq)
    }

    pub fn matching(&self, filter: &EntryFilter) -> Vec<&RegistrationEntry> {
        self.entries.iter().map(|(_, entry)| entry).filter(|entry| filter.matches(entry)).collect()
    }
}
