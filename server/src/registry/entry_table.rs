//! Entries in memory, indexed by what is asked of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::ops::Bound;
use std::sync::Arc;

use super::{EncodedEntry, EntryFilter};
use crate::facts::entry::RegistrationEntry;
use crate::facts::page::{ListPage, Page};
use ironroot_api::SpiffeId;
use ironroot_attest::{Selector, SelectorSet};

use super::authorized::StoredEntry;

/// All entries of the trust domain.
#[derive(Debug)]
pub(super) struct EntryTable {
    server_id: SpiffeId,
    all: BTreeMap<i64, Arc<StoredEntry>>,
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
            all: BTreeMap::new(),
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

    /// Counts on from that number, which another table had reached.
    pub fn continue_after(&mut self, revision: u64) {
        self.revision += revision + 1;
    }

    /// The parent of node aliases.
    pub fn server_id(&self) -> &SpiffeId {
        &self.server_id
    }

    /// Adds the entry, or replaces the one of the same ID.
    pub fn put(&mut self, seq: i64, entry: Arc<RegistrationEntry>) {
        self.remove(entry.id());
        let stored = Arc::new(StoredEntry { seq, encoded: EncodedEntry::of(&entry), entry });
        let entry = &stored.entry;
        self.by_id.insert(entry.id().to_owned(), seq);
        self.by_spiffe_id.entry(entry.spiffe_id().clone()).or_default().put(stored.clone());
        self.by_parent.entry(entry.parent_id().clone()).or_default().put(stored.clone());
        if *entry.parent_id() == self.server_id {
            let rarest = entry.selectors().iter().min_by_key(|s| self.aliases.get(s).map_or(0, Group::len));
            let rarest = rarest.expect("an entry has selectors").clone();
            self.aliases.entry(rarest).or_default().put(stored.clone());
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
        self.by_spiffe_id.get(id).into_iter().flat_map(Group::iter).map(|stored| &*stored.entry)
    }

    /// How many entries are below that parent.
    pub fn count_children(&self, parent: &SpiffeId) -> usize {
        self.by_parent.get(parent).map_or(0, Group::len)
    }

    /// The entries below that parent.
    pub fn children_of(&self, parent: &SpiffeId) -> impl Iterator<Item = &RegistrationEntry> {
        self.by_parent.get(parent).into_iter().flat_map(Group::iter).map(|stored| &*stored.entry)
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
        let mut seen: HashSet<&SpiffeId> = self.aliases_of(node).map(|alias| alias.entry.spiffe_id()).collect();
        seen.insert(agent_id);
        let mut parents: Vec<&SpiffeId> = seen.iter().copied().collect();
        while let Some(parent) = parents.pop() {
            for child in self.by_parent.get(parent).into_iter().flat_map(Group::iter) {
                found.push(child.clone());
                if seen.insert(child.entry.spiffe_id()) {
                    parents.push(child.entry.spiffe_id());
                }
            }
        }
        found
    }

    fn aliases_of(&self, node: &SelectorSet) -> impl Iterator<Item = &Arc<StoredEntry>> {
        let candidates = node.iter().filter_map(|selector| self.aliases.get(selector)).flat_map(Group::iter);
        candidates.filter(|alias| alias.entry.selectors().is_subset_of(node))
    }

    /// From the smallest index that the filter allows, in order.
    fn matching<'t>(&'t self, filter: &'t EntryFilter, after: i64) -> impl Iterator<Item = &'t Arc<StoredEntry>> {
        let group = match (&filter.spiffe_id, &filter.parent_id) {
            (Some(id), _) => Some(self.by_spiffe_id.get(id)),
            (None, Some(parent)) => Some(self.by_parent.get(parent)),
            (None, None) => None,
        };
        let all = group.is_none().then(|| self.all.range((Bound::Excluded(after), Bound::Unbounded)));
        let all = all.into_iter().flatten().map(|(_, stored)| stored);
        let group = group.flatten().into_iter().flat_map(move |group| group.behind(after));
        all.chain(group).filter(|stored| filter.matches(&stored.entry))
    }
}

/// A few entries (most often one) that an index leads to, in the order of their places in lists.
#[derive(Debug, Default)]
struct Group(Vec<Arc<StoredEntry>>);

impl Group {
    fn put(&mut self, stored: Arc<StoredEntry>) {
        let place = self.0.partition_point(|s| s.seq < stored.seq);
        self.0.insert(place, stored);
    }

    fn remove(&mut self, seq: i64) {
        if let Ok(place) = self.0.binary_search_by_key(&seq, |stored| stored.seq) {
            self.0.remove(place);
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn iter(&self) -> std::slice::Iter<'_, Arc<StoredEntry>> {
        self.0.iter()
    }

    fn behind(&self, place: i64) -> std::slice::Iter<'_, Arc<StoredEntry>> {
        self.0[self.0.partition_point(|stored| stored.seq <= place)..].iter()
    }
}

fn remove_from<K: Hash + Eq>(index: &mut HashMap<K, Group>, key: &K, seq: i64) {
    if let Some(group) = index.get_mut(key) {
        group.remove(seq);
        if group.0.is_empty() {
            index.remove(key);
        }
    }
}
