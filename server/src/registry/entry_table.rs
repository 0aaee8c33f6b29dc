//! Entries in memory, indexed by what is asked of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use ironroot_api::SpiffeId;
use ironroot_api::entry::{EncodedEntry, EntryFilter, RegistrationEntry};
use ironroot_api::page::{ListPage, Page};
use ironroot_attest::{Selector, SelectorSet};

use super::authorized::StoredEntry;

/// Entries in the order of their places in lists.
type Group = BTreeMap<i64, Arc<StoredEntry>>;

/// All entries of the trust domain.
#[derive(Debug)]
pub(super) struct EntryTable {
    server_id: SpiffeId,
    all: Group,
    by_id: HashMap<String, i64>,
    by_spiffe_id: HashMap<SpiffeId, Group>,
    by_parent: HashMap<SpiffeId, Group>,
    /// Node aliases, each under the one of its selectors that the fewest others were under when it came.
    aliases: HashMap<Selector, Group>,
    revision: u64,
}

impl EntryTable {
    /// No entries. Those below `server_id` are node aliases: their selectors are the node's, not a process's.
    pub fn new(server_id: SpiffeId) -> Self {
        Self {
            server_id,
            all: Group::new(),
            by_id: HashMap::new(),
            by_spiffe_id: HashMap::new(),
            by_parent: HashMap::new(),
            aliases: HashMap::new(),
            revision: 0,
        }
    }

    /// Counts changes; equal numbers mean equal tables.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Adds the entry, or replaces the one of the same ID.
    pub fn put(&mut self, seq: i64, entry: Arc<RegistrationEntry>) {
        self.remove(entry.id());
        let stored = Arc::new(StoredEntry { seq, encoded: EncodedEntry::of(&entry), entry });
        let entry = &stored.entry;
        self.by_id.insert(entry.id().to_owned(), seq);
        self.by_spiffe_id.entry(entry.spiffe_id().clone()).or_default().insert(seq, stored.clone());
        self.by_parent.entry(entry.parent_id().clone()).or_default().insert(seq, stored.clone());
        if *entry.parent_id() == self.server_id {
            let rarest = entry.selectors().iter().min_by_key(|s| self.aliases.get(s).map_or(0, Group::len));
            let rarest = rarest.expect("an entry has selectors").clone();
            self.aliases.entry(rarest).or_default().insert(seq, stored.clone());
        }
        self.all.insert(seq, stored);
        self.revision += 1;
    }

    /// Removes the entry of that ID, if there is one.
    pub fn remove(&mut self, id: &str) {
        let Some(seq) = self.by_id.remove(id) else { return };
        let Some(stored) = self.all.remove(&seq) else { return };
        remove_from(&mut self.by_spiffe_id, stored.entry.spiffe_id(), seq);
        remove_from(&mut self.by_parent, stored.entry.parent_id(), seq);
        if *stored.entry.parent_id() == self.server_id {
            stored.entry.selectors().iter().for_each(|selector| remove_from(&mut self.aliases, selector, seq));
        }
        self.revision += 1;
    }

    /// The entry of that ID.
    pub fn get(&self, id: &str) -> Option<Arc<RegistrationEntry>> {
        self.by_id.get(id).and_then(|seq| self.all.get(seq)).map(|stored| stored.entry.clone())
    }

    /// The entries for that SPIFFE ID.
    pub fn with_spiffe_id(&self, id: &SpiffeId) -> impl Iterator<Item = &RegistrationEntry> {
        self.by_spiffe_id.get(id).into_iter().flat_map(Group::values).map(|stored| &*stored.entry)
    }

    /// The matching entries of a page.
    pub fn page(&self, filter: &EntryFilter, page: Page) -> ListPage<Arc<RegistrationEntry>> {
        page.cut(self.matching(filter, page.after).map(|stored| (stored.seq, stored.entry.clone())))
    }

    /// How many entries match.
    pub fn count(&self, filter: &EntryFilter) -> usize {
        self.matching(filter, i64::MIN).count()
    }

    /// Every entry below `agent_id` and below the aliases that `node` matches, through any number of parents.
    pub fn below(&self, agent_id: &SpiffeId, node: &SelectorSet) -> Vec<Arc<StoredEntry>> {
        let mut found = Vec::new();
        let mut parents: Vec<&SpiffeId> = vec![agent_id];
        parents.extend(self.aliases_of(node).map(|alias| alias.entry.spiffe_id()));
        let mut seen: HashSet<&SpiffeId> = parents.iter().copied().collect();
        while let Some(parent) = parents.pop() {
            for child in self.by_parent.get(parent).into_iter().flat_map(Group::values) {
                found.push(child.clone());
                if seen.insert(child.entry.spiffe_id()) {
                    parents.push(child.entry.spiffe_id());
                }
            }
        }
        found
    }

    fn aliases_of(&self, node: &SelectorSet) -> impl Iterator<Item = &Arc<StoredEntry>> {
        let candidates = node.iter().filter_map(|selector| self.aliases.get(selector)).flat_map(Group::values);
        candidates.filter(|alias| alias.entry.selectors().is_subset_of(node))
    }

    /// From the smallest index that the filter allows.
    fn matching(&self, filter: &EntryFilter, after: i64) -> impl Iterator<Item = &Arc<StoredEntry>> {
        let group = match (&filter.spiffe_id, &filter.parent_id) {
            (Some(id), _) => self.by_spiffe_id.get(id),
            (None, Some(parent)) => self.by_parent.get(parent),
            (None, None) => Some(&self.all),
        };
        let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let stored = group.into_iter().flat_map(move |group| group.range(behind)).map(|(_, stored)| stored);
        stored.filter(|stored| filter.matches(&stored.entry))
    }
}

fn remove_from<K: Hash + Eq>(index: &mut HashMap<K, Group>, key: &K, seq: i64) {
    if let Some(group) = index.get_mut(key) {
        group.remove(&seq);
        if group.is_empty() {
            index.remove(key);
        }
    }
}
