//! What an operator should know of an entry: what it matches, what it hangs on, what hangs on it. Nothing here refuses.

use std::collections::HashSet;

use super::selector_forms::{never_of_a_node, never_of_a_workload};
use crate::facts::device::{DeviceState, is_operators_selector};
use ironroot_api::SpiffeId;
use ironroot_api::pb::types;
use ironroot_attest::{Selector, SelectorSet};

use super::{Registry, Tables};

/// Most node entries of one question whose devices are counted: each looks at the whole fleet.
const MAX_COUNTED: usize = 100;

/// What is to be said of one entry, a sentence each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryAdvice {
    /// What is probably a mistake.
    pub warnings: Vec<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// What would end with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependents {
    /// The entry's ID.
    pub id: String,
    /// The SPIFFE ID that it gives.
    pub spiffe_id: SpiffeId,
    /// Entries that name that ID as parent, without those asked about.
    pub entries: usize,
    /// Whether another entry that was not asked about gives the ID too.
    pub given_by_others: bool,
}

/// How many of the fleet's devices a node entry is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Matching {
    devices: usize,
    matching: usize,
    /// Devices that may turn out to match when they attest: what is asked of their TPMs is not known yet.
    open: usize,
}

impl Registry {
    /// Advice on each of the entries, stored or not.
    pub fn advise(&self, entries: &[types::Entry]) -> Vec<EntryAdvice> {
        let tables = self.shared.read();
        let mut counted = 0;
        entries.iter().map(|entry| self.advise_on(&tables, entry, &mut counted).unwrap_or_default()).collect()
    }

    /// What would end with the entries of these IDs; those that there are not are left out.
    pub fn dependents(&self, ids: &[String]) -> Vec<Dependents> {
        let tables = self.shared.read();
        let asked: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let dependents = |id: &String| {
            let entry = tables.entries.get(id)?;
            let spiffe_id = entry.spiffe_id();
            let entries = tables.entries.children_of(&spiffe_id).filter(|child| !asked.contains(child.id())).count();
            let given_by_others = tables.entries.with_spiffe_id(&spiffe_id).any(|other| !asked.contains(other.id()));
            Some(Dependents { id: id.clone(), spiffe_id, entries, given_by_others })
        };
        ids.iter().filter_map(dependents).collect()
    }

    /// None for what is no entry: creating it says why.
    fn advise_on(&self, tables: &Tables, entry: &types::Entry, counted: &mut usize) -> Option<EntryAdvice> {
        let parent = SpiffeId::from_pb(entry.parent_id.as_ref()).ok()?;
        let selectors = entry.selectors.iter().map(|s| Selector::new(&s.r#type, &s.value).ok());
        let selectors: SelectorSet = selectors.collect::<Option<Vec<_>>>()?.into_iter().collect();
        let mut advice = EntryAdvice::default();
        if parent == self.trust_domain().server_id() {
            advice.warnings.extend(selectors.iter().filter_map(never_of_a_node));
            *counted += 1;
            if *counted <= MAX_COUNTED {
                advice.say_what_matches(self.matching(tables, &selectors));
            }
        } else {
            advice.warnings.extend(selectors.iter().filter_map(never_of_a_workload));
            advice.warnings.extend(missing_parent(tables, &parent));
        }
        Some(advice)
    }

    fn matching(&self, tables: &Tables, selectors: &SelectorSet) -> Matching {
        let mut matching = Matching::default();
        let mut seen: HashSet<SpiffeId> = HashSet::new();
        for device in self.devices.all().into_iter().filter(|device| device.state == DeviceState::Enrolled) {
            matching.devices += 1;
            let agent = device.agent_id.as_ref().and_then(|id| tables.agents.slot(id));
            let node = match agent {
                Some(slot) => self.words(&slot.record).joined_to(&slot.record),
                None => device.selectors(),
            };
            if selectors.is_subset_of(&node) {
                matching.matching += 1;
            } else if agent.is_none() && selectors.iter().all(|s| node.contains(s) || !is_operators_selector(s)) {
                matching.open += 1;
            }
            seen.extend(agent.map(|slot| slot.record.spiffe_id.clone()));
        }
        for (_, agent) in tables.agents.behind(i64::MIN).filter(|(_, agent)| !agent.banned) {
            if agent.ek_sha256.is_none() && !seen.contains(&agent.spiffe_id) {
                matching.devices += 1;
                matching.matching += usize::from(selectors.is_subset_of(&agent.selectors));
            }
        }
        matching
    }
}

impl EntryAdvice {
    fn say_what_matches(&mut self, Matching { devices, matching, open }: Matching) {
        let word = if devices == 1 { "device" } else { "devices" };
        let later = match open {
            0 => String::new(),
            open => format!("; {open} have not attested yet and may match"),
        };
        let told = format!("matches {matching} of {devices} {word}{later}");
        if matching + open == 0 { self.warnings.push(told) } else { self.notes.push(told) }
    }
}

fn missing_parent(tables: &Tables, parent: &SpiffeId) -> Option<String> {
    if tables.entries.with_spiffe_id(parent).next().is_some() || tables.agents.slot(parent).is_some() {
        return None;
    }
    Some(match parent.path().starts_with("/spire/agent/") {
        true => format!("no agent {parent} has attested yet: nobody serves this entry until one has"),
        false => format!("no entry gives the parent ID {parent} yet: nobody serves this entry until one does"),
    })
}
