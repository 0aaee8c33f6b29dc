//! What an operator should know of an entry: what it matches, what it hangs on, what hangs on it. Nothing here refuses.

mod matching;

use std::collections::HashSet;

use super::Registry;
use super::selector_forms::{never_of_a_node, never_of_a_token, never_of_a_workload};
use crate::facts::entry::EXCHANGE_PARENTS;
use ironroot_api::SpiffeId;
use ironroot_api::pb::types;
use ironroot_attest::{Selector, SelectorSet};
use matching::Matching;

/// Most node entries of one question whose devices are counted: each is held against the whole fleet.
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

/// An entry that there may be: what is to be said of it hangs on these two.
struct Asked {
    parent: SpiffeId,
    selectors: SelectorSet,
    spiffe_id: Option<SpiffeId>,
    /// Whether it makes whoever has it an administrator, or a server below.
    has_rights: bool,
}

impl Registry {
    /// Advice on each of the entries, stored or not; none for what is no entry: creating it says why. `issuers`: the parents of entries
    /// for tokens of the issuers that this server knows. `has_rights`: whether an ID is an administrator's, or that of a server below.
    ///
    /// The tables are looked at for a moment only: what the fleet has is counted while others change them.
    pub fn advise(
        &self,
        entries: &[types::Entry],
        issuers: &[SpiffeId],
        has_rights: &dyn Fn(&SpiffeId) -> bool,
    ) -> Vec<EntryAdvice> {
        let asked: Vec<Option<Asked>> = entries.iter().map(Asked::from_pb).collect();
        let server = self.trust_domain().server_id();
        let groups = asked.iter().flatten().filter(|asked| asked.parent == server).take(MAX_COUNTED);
        let mut counted = self.count_matching(groups.map(|asked| &asked.selectors).collect()).into_iter();
        let mut advise = |asked: &Asked| match asked.parent == server {
            true => EntryAdvice::on_a_group(&asked.selectors, counted.next()),
            false if is_for_tokens(&asked.parent) => EntryAdvice::on_a_token(asked, issuers, has_rights),
            false => EntryAdvice::on_a_workload(&asked.selectors, self.missing_parent(&asked.parent)),
        };
        asked.iter().map(|asked| asked.as_ref().map(&mut advise).unwrap_or_default()).collect()
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

    /// How many devices each of these node selector sets is for.
    fn count_matching(&self, groups: Vec<&SelectorSet>) -> Vec<Matching> {
        if groups.is_empty() {
            return Vec::new();
        }
        let agents = self.shared.read().agents.behind(i64::MIN).map(|(_, agent)| agent.clone()).collect();
        matching::count(&groups, matching::nodes(self.devices.all_today(), agents))
    }

    fn missing_parent(&self, parent: &SpiffeId) -> Option<String> {
        let tables = self.shared.read();
        if tables.entries.with_spiffe_id(parent).next().is_some() || tables.agents.slot(parent).is_some() {
            return None;
        }
        Some(match parent.names_an_agent() {
            true => format!("no agent {parent} has attested yet: nobody serves this entry until one has"),
            false => format!("no entry gives the parent ID {parent} yet: nobody serves this entry until one does"),
        })
    }
}

impl Asked {
    fn from_pb(entry: &types::Entry) -> Option<Self> {
        let parent = SpiffeId::from_pb(entry.parent_id.as_ref()).ok()?;
        let selectors = entry.selectors.iter().map(|s| Selector::new(&s.r#type, &s.value).ok());
        let selectors = selectors.collect::<Option<Vec<_>>>()?.into_iter().collect();
        let spiffe_id = SpiffeId::from_pb(entry.spiffe_id.as_ref()).ok();
        Some(Self { parent, selectors, spiffe_id, has_rights: entry.admin || entry.downstream })
    }
}

fn is_for_tokens(parent: &SpiffeId) -> bool {
    parent.path().starts_with(EXCHANGE_PARENTS)
}

/// Of a parent that no token of a configured issuer has.
fn unknown_issuer(parent: &SpiffeId, issuers: &[SpiffeId]) -> Option<String> {
    if issuers.contains(parent) {
        return None;
    }
    let name = |id: &SpiffeId| id.path().strip_prefix(EXCHANGE_PARENTS).unwrap_or_default().to_owned();
    let known: Vec<String> = issuers.iter().map(name).collect();
    let what = match known.as_slice() {
        [] => "the server has no token_exchange".to_owned(),
        _ => format!("token_exchange has the issuers {}", known.join(", ")),
    };
    Some(format!("no issuer is called {:?}, so no token has this parent: {what}", name(parent)))
}

impl EntryAdvice {
    fn on_a_group(selectors: &SelectorSet, matching: Option<Matching>) -> Self {
        let mut advice = Self::default();
        advice.warnings.extend(selectors.iter().filter_map(never_of_a_node));
        matching.into_iter().for_each(|matching| advice.say_what_matches(matching));
        advice
    }

    fn on_a_workload(selectors: &SelectorSet, missing_parent: Option<String>) -> Self {
        let doubts = selectors.iter().filter_map(never_of_a_workload);
        Self { warnings: doubts.chain(missing_parent).collect(), notes: Vec::new() }
    }

    fn on_a_token(asked: &Asked, issuers: &[SpiffeId], has_rights: &dyn Fn(&SpiffeId) -> bool) -> Self {
        let rights = match &asked.spiffe_id {
            _ if asked.has_rights => {
                Some("no token is exchanged for an entry with -admin or -downstream: leave them out".to_owned())
            }
            Some(id) if has_rights(id) => Some(format!(
                "no token is exchanged for {id}: it has rights at this server by another entry (-admin, -downstream) or by admin_ids"
            )),
            _ => None,
        };
        let doubts = asked.selectors.iter().filter_map(never_of_a_token).chain(rights);
        Self { warnings: doubts.chain(unknown_issuer(&asked.parent, issuers)).collect(), notes: Vec::new() }
    }

    fn say_what_matches(&mut self, Matching { devices, matching, open }: Matching) {
        let word = if devices == 1 { "device" } else { "devices" };
        let later = match open {
            0 => String::new(),
            1 => "; 1 has not attested yet and may match".to_owned(),
            open => format!("; {open} have not attested yet and may match"),
        };
        let told = format!("matches {matching} of {devices} {word}{later}");
        if matching + open == 0 { self.warnings.push(told) } else { self.notes.push(told) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::{Duration, Instant};

    use ironroot_api::TrustDomain;

    use super::*;
    use crate::facts::agent::AgentRecord;
    use crate::store::Store;

    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    }

    #[tokio::test]
    async fn entries_and_agents_change_while_the_fleet_is_counted() {
        let (directory, td) = (tempfile::tempdir().expect("directory"), TrustDomain::new("td").expect("legal"));
        let store = Store::open(&directory.path().join("datastore.sqlite3"), &td).expect("opens");
        let agent = AgentRecord::example("a");
        let id = agent.spiffe_id.clone();
        store.change(move |tx| tx.put_agent(&agent)).await.map(drop).expect("stored");
        let registry = Arc::new(Registry::load(store).await.expect("loads"));
        let record = registry.shared.read().agents.slot(&id).expect("loaded").record.clone();
        let (fleet, before) = (registry.devices().hold(), Arc::strong_count(&record));
        let selectors = vec![types::Selector { r#type: "tpm2".into(), value: "label:site:rome".into() }];
        let parent_id = Some(td.server_id().to_pb());
        let group = types::Entry { parent_id, selectors, ..types::Entry::default() };
        let asked = registry.clone();
        let asking = thread::spawn(move || asked.advise(&[group], &[], &|_| false));
        wait_until("it has what it counts", || Arc::strong_count(&record) > before);
        wait_until("the tables can be changed", || registry.shared.tables.try_write().is_ok());
        drop(fleet);
        assert_eq!(asking.join().expect("no panic")[0].warnings, ["matches 0 of 1 device"]);
    }
}
