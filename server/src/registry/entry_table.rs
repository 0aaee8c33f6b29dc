//! Entries in memory, indexed by what is asked of them.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_attest::SelectorSet;

use super::EntryFilter;
use super::by_selectors::BySelectors;
use super::concerns::{ParentHash, Reach, parent_hash};
use super::group::{ById, ByParent, BySpiffeId, Groups};
use super::stored_entry::{StoredEntry, id_key, is_of_exchange, server_key};
use crate::facts::entry::RegistrationEntry;
use crate::facts::page::{ListPage, Page};

/// All entries of the trust domain.
#[derive(Debug)]
pub(super) struct EntryTable {
    server: Vec<u8>,
    all: BTreeMap<i64, Arc<StoredEntry>>,
    by_id: HashSet<ById>,
    by_spiffe_id: Groups<BySpiffeId>,
    by_parent: Groups<ByParent>,
    /// Entries below the server, whose selectors are a node's, not a process's.
    aliases: BySelectors,
    /// Entries whose selectors are those of a token of another issuer.
    exchanged: BySelectors,
    revision: u64,
}

impl EntryTable {
    /// No entries. Those below the server of `trust_domain` are node aliases.
    pub fn new(trust_domain: &TrustDomain) -> Self {
        Self {
            server: server_key(trust_domain),
            all: BTreeMap::new(),
            by_id: HashSet::new(),
            by_spiffe_id: Groups::default(),
            by_parent: Groups::default(),
            aliases: BySelectors::default(),
            exchanged: BySelectors::default(),
            revision: 0,
        }
    }

    /// The same with room for so many: what grows while a million come in is hashed anew time and again.
    pub fn with_room(trust_domain: &TrustDomain, entries: usize) -> Self {
        let mut table = Self::new(trust_domain);
        table.by_id.reserve(entries);
        table.by_spiffe_id.reserve(entries);
        table
    }

    /// Gives back the room that nothing came into.
    pub fn shrink(&mut self) {
        self.by_id.shrink_to_fit();
        self.by_spiffe_id.shrink_to_fit();
    }

    /// Counts changes; equal numbers mean equal tables.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Counts on from that number, which another table had reached.
    pub fn continue_after(&mut self, revision: u64) {
        self.revision += revision + 1;
    }

    /// Adds the entry, or replaces the one of the same ID.
    pub fn put(&mut self, seq: i64, entry: &RegistrationEntry) {
        self.remove(entry.id());
        let parent = id_key(entry.parent_id());
        let shared = self.by_parent.get(&parent).first().map(|sibling| sibling.shared_parent());
        let shared = shared.unwrap_or_else(|| parent.clone().into());
        let stored = Arc::new(StoredEntry::new(seq, entry, shared));
        self.by_id.insert(ById(stored.clone()));
        self.by_spiffe_id.put(stored.clone());
        self.by_parent.put(stored.clone());
        if let Some(index) = self.index_of(&parent) {
            index.put(stored.clone(), entry.selectors());
        }
        self.all.insert(seq, stored);
        self.revision += 1;
    }

    /// Takes the entry out of every index; nothing happens if there is none of that ID.
    pub fn remove(&mut self, id: &str) {
        let Some(ById(stored)) = self.by_id.take(id) else { return };
        self.all.remove(&stored.seq);
        self.by_spiffe_id.remove(&stored);
        self.by_parent.remove(&stored);
        if let Some(index) = self.index_of(stored.parent_key()) {
            index.remove(&stored, stored.entry().selectors());
        }
        self.revision += 1;
    }

    /// Where entries below that parent are found by their selectors, if they are.
    fn index_of(&mut self, parent: &[u8]) -> Option<&mut BySelectors> {
        match parent {
            server if *server == *self.server => Some(&mut self.aliases),
            other if is_of_exchange(other) => Some(&mut self.exchanged),
            _ => None,
        }
    }

    /// The encoded entry; what it says is decoded when it is asked for.
    pub fn get(&self, id: &str) -> Option<&StoredEntry> {
        self.by_id.get(id).map(|ById(stored)| &**stored)
    }

    /// Every entry that gives this SPIFFE ID, to whomever.
    pub fn with_spiffe_id(&self, id: &SpiffeId) -> impl Iterator<Item = &StoredEntry> {
        self.by_spiffe_id.get(&id_key(id)).iter().map(|stored| &**stored)
    }

    /// How many entries are below that parent.
    pub fn count_children(&self, parent: &SpiffeId) -> usize {
        self.by_parent.get(&id_key(parent)).len()
    }

    /// The entries below that parent.
    pub fn children_of(&self, parent: &SpiffeId) -> impl Iterator<Item = &StoredEntry> {
        self.by_parent.get(&id_key(parent)).iter().map(|stored| &**stored)
    }

    /// The matching entries of a page.
    pub fn page(&self, filter: &EntryFilter, page: Page) -> ListPage<Arc<RegistrationEntry>> {
        let ListPage { items, next_page_token } =
            page.cut(self.matching(filter, page.after).map(|stored| (stored.seq, stored)));
        ListPage { items: items.into_iter().map(|stored| Arc::new(stored.entry())).collect(), next_page_token }
    }

    /// How many entries there are.
    pub fn total(&self) -> usize {
        self.by_id.len()
    }

    /// How many entries match.
    pub fn count(&self, filter: &EntryFilter) -> usize {
        self.matching(filter, i64::MIN).count()
    }

    /// The entries of [`reached`](Self::reached).
    #[cfg(test)]
    pub fn below(&self, agent_id: &SpiffeId, node: &SelectorSet) -> Vec<Arc<StoredEntry>> {
        self.reached(agent_id, node).0
    }

    /// Every entry below `agent_id` and below the aliases that `node` matches, through any number of parents; and where an entry
    /// would be one more of them.
    pub fn reached(&self, agent_id: &SpiffeId, node: &SelectorSet) -> (Vec<Arc<StoredEntry>>, Reach) {
        let agent = id_key(agent_id);
        let mut found = Vec::new();
        let mut seen: HashSet<&[u8]> = self.aliases.of(node).map(|alias| alias.spiffe_id_key()).collect();
        seen.insert(&agent);
        let mut parents: Vec<&[u8]> = seen.iter().copied().collect();
        while let Some(parent) = parents.pop() {
            for child in self.by_parent.get(parent) {
                found.push(child.clone());
                if seen.insert(child.spiffe_id_key()) {
                    parents.push(child.spiffe_id_key());
                }
            }
        }
        // An alias may make any ID a parent.
        (found, Reach::of(seen.into_iter().chain([&*self.server])))
    }

    /// What stands for the parent of the entry with that ID.
    pub fn parent_of(&self, id: &str) -> Option<ParentHash> {
        self.get(id).map(|stored| parent_hash(stored.parent_key()))
    }

    /// The entries below `parent`, that of an issuer's tokens, which a token with those selectors may have.
    pub fn for_token(&self, parent: &SpiffeId, said: &SelectorSet) -> impl Iterator<Item = &Arc<StoredEntry>> {
        let parent = id_key(parent);
        self.exchanged.of(said).filter(move |entry| *entry.parent_key() == *parent)
    }

    /// From the smallest index that the filter allows, in order.
    fn matching(&self, filter: &EntryFilter, after: i64) -> impl Iterator<Item = &StoredEntry> {
        let group = match (&filter.spiffe_id, &filter.parent_id) {
            (Some(id), _) => Some(self.by_spiffe_id.get(&id_key(id))),
            (None, Some(parent)) => Some(self.by_parent.get(&id_key(parent))),
            (None, None) => None,
        };
        let all = group.is_none().then(|| self.all.range((Bound::Excluded(after), Bound::Unbounded)));
        let group = group.unwrap_or_default();
        let group = &group[group.partition_point(|stored| stored.seq <= after)..];
        let candidates = all.into_iter().flatten().map(|(_, stored)| stored).chain(group);
        candidates.map(|stored| &**stored).filter(|stored| filter.matches_stored(stored))
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::types;

    use super::*;
    use crate::facts::entry::NewEntry;

    fn td() -> TrustDomain {
        TrustDomain::new("td").expect("legal")
    }

    fn id(path: &str) -> SpiffeId {
        td().id_with_path(path).expect("legal")
    }

    fn entry(id: &str, [path, parent]: [&str; 2], selectors: &[&str]) -> RegistrationEntry {
        let selector = |value: &&str| types::Selector { r#type: "s".into(), value: (*value).to_owned() };
        let wire = types::Entry {
            id: id.to_owned(),
            spiffe_id: Some(self::id(path).to_pb()),
            parent_id: Some(self::id(parent).to_pb()),
            selectors: selectors.iter().map(selector).collect(),
            ..types::Entry::default()
        };
        NewEntry::from_pb(&wire, &td()).expect("legal").register(String::new(), 0)
    }

    fn ids<'a>(entries: impl IntoIterator<Item = &'a StoredEntry>) -> Vec<&'a str> {
        entries.into_iter().map(StoredEntry::id).collect()
    }

    #[test]
    fn each_change_and_each_table_that_takes_anothers_place_has_a_number_of_its_own() {
        let mut table = EntryTable::new(&td());
        let mut numbers = vec![table.revision()];
        table.put(1, &entry("e", ["/w", "/p"], &["1"]));
        numbers.push(table.revision());
        table.put(1, &entry("e", ["/w", "/p"], &["2"]));
        numbers.push(table.revision());
        table.remove("e");
        numbers.push(table.revision());
        table.remove("e");
        assert_eq!(table.revision(), numbers[3], "nothing was there");
        let mut anew = EntryTable::new(&td());
        anew.continue_after(table.revision());
        numbers.push(anew.revision());
        assert!(numbers.is_sorted_by(|one, two| one < two), "{numbers:?}");
    }

    #[test]
    fn what_was_removed_is_found_in_no_way() {
        let mut table = EntryTable::new(&td());
        for (seq, name) in [(1, "e1"), (2, "e2"), (3, "e3")] {
            table.put(seq, &entry(name, ["/w", "/p"], &["1"]));
        }
        table.remove("e2");
        assert!(table.get("e2").is_none() && table.get("e1").is_some_and(|stored| stored.id() == "e1"));
        assert_eq!(ids(table.with_spiffe_id(&id("/w"))), ["e1", "e3"]);
        assert_eq!((ids(table.children_of(&id("/p"))), table.count_children(&id("/p"))), (vec!["e1", "e3"], 2));
        assert_eq!(table.count(&EntryFilter::default()), 2);
        table.remove("e1");
        table.remove("e3");
        assert_eq!((table.count_children(&id("/p")), table.with_spiffe_id(&id("/w")).count()), (0, 0));
    }

    #[test]
    fn of_many_groups_each_is_found_by_what_its_entries_have_in_common() {
        let mut table = EntryTable::new(&td());
        let names: Vec<[String; 3]> =
            (0..500).map(|n| [format!("e{n}"), format!("/w/{n}"), format!("/p/{n}")]).collect();
        for (seq, [name, path, parent]) in names.iter().enumerate() {
            table.put(seq as i64, &entry(name, [path, parent], &["1"]));
        }
        for [name, path, parent] in &names {
            assert_eq!(ids(table.get(name)), [name]);
            assert_eq!(ids(table.with_spiffe_id(&id(path))), [name]);
            assert_eq!(ids(table.children_of(&id(parent))), [name]);
        }
    }

    #[test]
    fn an_agent_has_what_is_below_it_and_below_the_aliases_that_its_node_matches() {
        let mut table = EntryTable::new(&td());
        let server = "/spire/server";
        table.put(1, &entry("alias", ["/group", server], &["1", "2"]));
        table.put(2, &entry("other-alias", ["/others", server], &["3"]));
        table.put(3, &entry("grouped", ["/w", "/group"], &["1"]));
        table.put(4, &entry("others", ["/w", "/others"], &["1"]));
        table.put(5, &entry("own", ["/own", "/agent"], &["1"]));
        table.put(6, &entry("below-own", ["/agent", "/own"], &["1"]));
        let below = |table: &EntryTable, node: &[&str]| {
            let node = node.iter().map(|value| format!("s:{value}").parse().expect("a selector")).collect();
            let below = table.below(&id("/agent"), &node);
            let mut ids: Vec<String> = below.iter().map(|stored| stored.id().to_owned()).collect();
            ids.sort();
            ids
        };
        assert_eq!(below(&table, &[]), ["below-own", "own"], "a loop of parents ends");
        assert_eq!(below(&table, &["1", "9"]), ["below-own", "own"], "half an alias");
        assert_eq!(below(&table, &["1", "2", "9"]), ["below-own", "grouped", "own"]);
        table.remove("alias");
        assert_eq!(below(&table, &["1", "2", "3"]), ["below-own", "others", "own"]);
        table.remove("others");
        assert_eq!(below(&table, &["1", "2", "3"]), ["below-own", "own"]);
    }
}
