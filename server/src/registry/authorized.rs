//! What an agent may serve: proof that the registry said so.

use std::sync::{Arc, OnceLock};

use ironroot_api::SpiffeId;
use ironroot_api::pb::entry::EntryRevision;
use ironroot_api::view::{EntryState, ViewName};

use super::MAX_ENTRIES_PER_PARENT;
use super::stored_entry::StoredEntry;
use crate::facts::entry::RegistrationEntry;

/// An entry that the registry found among those an agent may serve. Only the registry makes one.
#[derive(Clone, Debug)]
pub struct AuthorizedEntry {
    stored: Arc<StoredEntry>,
}

impl AuthorizedEntry {
    /// Found by the registry.
    pub(super) fn of(stored: Arc<StoredEntry>) -> Self {
        Self { stored }
    }

    /// The entry: read out of its wire form.
    pub fn entry(&self) -> RegistrationEntry {
        self.stored.entry()
    }

    /// The registry's ID of the entry, which the agent asks for SVIDs by.
    pub fn id(&self) -> &str {
        self.stored.id()
    }

    /// The ID to sign, decoded anew at each call.
    pub fn spiffe_id(&self) -> SpiffeId {
        self.stored.spiffe_id()
    }

    /// Which state of the entry this is.
    pub fn revision(&self) -> EntryRevision {
        self.stored.revision()
    }

    /// The wire form, all fields.
    pub fn whole(&self) -> Vec<u8> {
        self.stored.whole()
    }

    /// The length of the wire form, bytes, all fields: no form of fewer fields is longer.
    pub fn whole_bytes(&self) -> usize {
        self.stored.whole_bytes()
    }

    /// The wire form, the fields of the mask that SPIRE's agents send.
    pub fn for_agents(&self) -> &[u8] {
        self.stored.for_agents()
    }

    /// Whether it is the same state of the same entry.
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.stored, &other.stored)
    }

    fn state(&self) -> EntryState<'_> {
        (self.id(), self.stored.revision_number, self.stored.created_at)
    }

    fn age(&self) -> (i64, &str) {
        (self.stored.created_at, self.id())
    }
}

/// Most entries of one agent, through all its parents together: what agents take. The rest is not the agent's until
/// others have gone.
pub const MAX_ENTRIES_PER_AGENT: usize = MAX_ENTRIES_PER_PARENT;

/// The entries an agent may serve, in the order of their IDs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AuthorizedView(Arc<Viewed>);

#[derive(Debug, Default)]
struct Viewed {
    entries: Box<[AuthorizedEntry]>,
    left_out: usize,
    /// Made when it is first asked for.
    name: OnceLock<ViewName>,
}

impl AuthorizedView {
    /// Of more than [`MAX_ENTRIES_PER_AGENT`] the oldest, as agents choose too: a new entry takes nothing from anybody.
    pub(super) fn new(entries: Vec<Arc<StoredEntry>>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().map(|stored| AuthorizedEntry { stored }).collect();
        let left_out = entries.len().saturating_sub(MAX_ENTRIES_PER_AGENT);
        if left_out > 0 {
            entries.sort_by(|a, b| a.age().cmp(&b.age()));
            entries.truncate(MAX_ENTRIES_PER_AGENT);
        }
        entries.sort_by(|a, b| a.id().cmp(b.id()));
        Self(Arc::new(Viewed { entries: entries.into(), left_out, name: OnceLock::new() }))
    }

    /// How many entries the agent would have besides, were an agent's entries not bounded.
    pub fn left_out(&self) -> usize {
        self.0.left_out
    }

    /// The number of entries, at most [`MAX_ENTRIES_PER_AGENT`].
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.entries.is_empty()
    }

    /// How many entries are in both, in the same state.
    pub fn count_same(&self, other: &Self) -> usize {
        if self.is_the_same(other) {
            return self.len();
        }
        self.iter().filter(|ours| other.find(ours.id()).is_some_and(|theirs| theirs.is_same(ours))).count()
    }

    /// What names it on the wire.
    pub fn name(&self) -> ViewName {
        *self.0.name.get_or_init(|| ViewName::of(self.iter().map(AuthorizedEntry::state)))
    }

    /// The entries that are not in `before`, or in another state there.
    pub fn changed_since<'v>(&'v self, before: &'v Self) -> impl Iterator<Item = &'v AuthorizedEntry> {
        let ours = if self.is_the_same(before) { &[][..] } else { &self.0.entries };
        ours.iter().filter(|ours| !before.find(ours.id()).is_some_and(|theirs| theirs.is_same(ours)))
    }

    /// The IDs of the entries of `before` that are not in it.
    pub fn gone_since<'v>(&'v self, before: &'v Self) -> impl Iterator<Item = &'v str> {
        let theirs = if self.is_the_same(before) { &[][..] } else { &before.0.entries };
        theirs.iter().map(AuthorizedEntry::id).filter(|id| self.find(id).is_none())
    }

    fn is_the_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The entries in the order of their IDs.
    pub fn iter(&self) -> std::slice::Iter<'_, AuthorizedEntry> {
        self.0.entries.iter()
    }

    /// The entry, if the agent may serve it; found by halving.
    pub fn find(&self, id: &str) -> Option<&AuthorizedEntry> {
        let place = self.0.entries.binary_search_by(|authorized| authorized.id().cmp(id)).ok()?;
        self.0.entries.get(place)
    }
}

impl<'a> IntoIterator for &'a AuthorizedView {
    type Item = &'a AuthorizedEntry;
    type IntoIter = std::slice::Iter<'a, AuthorizedEntry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
impl AuthorizedView {
    /// Entries with these IDs, made in second 1.
    pub fn example(ids: &[&str]) -> Self {
        Self::new(ids.iter().map(|id| tests::stored(id, 1)).collect())
    }

    /// The same with the entry of that ID, or another state of it, made in second `created_at`.
    pub fn with(&self, id: &str, created_at: i64) -> Self {
        let others = self.without(id);
        Self::new(others.iter().map(|entry| entry.stored.clone()).chain([tests::stored(id, created_at)]).collect())
    }

    /// The same without it.
    pub fn without(&self, id: &str) -> Self {
        Self::new(self.iter().filter(|entry| entry.id() != id).map(|entry| entry.stored.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::TrustDomain;
    use ironroot_api::pb::types;
    use prost::Message;

    use super::*;
    use crate::facts::entry::NewEntry;

    pub(super) fn stored(id: &str, created_at: i64) -> Arc<StoredEntry> {
        let td = TrustDomain::new("td").expect("legal");
        let at = |path| Some(td.id_with_path(path).expect("legal").to_pb());
        let wire = types::Entry {
            id: id.to_owned(),
            spiffe_id: at("/w"),
            parent_id: at("/p"),
            selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }],
            x509_svid_ttl: 60,
            ..types::Entry::default()
        };
        let entry = NewEntry::from_pb(&wire, &td).expect("legal").register(String::new(), created_at);
        let parent = super::super::stored_entry::id_key(entry.parent_id()).into();
        Arc::new(StoredEntry::new(1, &entry, parent))
    }

    #[test]
    fn what_an_agent_may_serve_is_the_entry_that_is_stored() {
        let stored = stored("e", 7);
        let view = AuthorizedView::new(vec![stored.clone()]);
        let found = view.find("e").expect("it is there");
        assert_eq!((found.id(), found.spiffe_id(), found.entry()), ("e", stored.spiffe_id(), stored.entry()));
        assert_eq!(found.revision(), EntryRevision { id: "e".into(), revision_number: 0, created_at: 7 });
        assert_eq!(types::Entry::decode(&found.whole()[..]), Ok(stored.entry().to_pb()));
        assert_eq!(found.whole_bytes(), found.whole().len());
        let for_agents = types::Entry::decode(found.for_agents()).expect("protobuf");
        assert_eq!((for_agents.id.as_str(), for_agents.x509_svid_ttl), ("e", 0));
    }

    #[test]
    fn what_two_views_share_is_what_is_in_the_same_state() {
        let [a, b, c] = ["a", "b", "c"].map(|id| stored(id, 1));
        let view = AuthorizedView::new(vec![c.clone(), a.clone(), b.clone()]);
        assert_eq!(view.count_same(&view.clone()), 3);
        let later = AuthorizedView::new(vec![a, stored("b", 1), c]);
        assert_eq!((view.count_same(&later), later.count_same(&view)), (2, 2), "one was written anew");
        let none = AuthorizedView::default();
        assert_eq!((view.count_same(&none), none.is_empty(), view.is_empty()), (0, true, false));
        assert_eq!((&view).into_iter().map(AuthorizedEntry::id).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((view.left_out(), none.left_out()), (0, 0));
    }

    #[test]
    fn what_has_changed_between_two_views_is_what_differs() {
        let [a, b, c] = ["a", "b", "c"].map(|id| stored(id, 1));
        let before = AuthorizedView::new(vec![a.clone(), b.clone()]);
        let now = AuthorizedView::new(vec![a, stored("b", 2), c]);
        let changed = |now: &AuthorizedView, before: &AuthorizedView| {
            let changed: Vec<_> = now.changed_since(before).map(|entry| entry.id().to_owned()).collect();
            (changed, now.gone_since(before).map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(changed(&now, &before), (vec!["b".into(), "c".into()], vec![]));
        assert_eq!(changed(&before, &now), (vec!["b".into()], vec!["c".into()]));
        assert_eq!(changed(&now, &now.clone()), (vec![], vec![]));
        assert_ne!(before.name(), now.name());
        assert_eq!(now.name(), ViewName::of([("a", 0, 1), ("b", 0, 2), ("c", 0, 1)]));
    }

    #[test]
    fn of_more_entries_than_an_agent_takes_the_newest_are_left_out_whatever_their_ids() {
        let mut entries: Vec<_> = (1..MAX_ENTRIES_PER_AGENT).map(|n| stored(&format!("m{n}"), 5)).collect();
        entries.extend([stored("a-newest", 6), stored("z-oldest", 4), stored("n-as-old", 5)]);
        let view = AuthorizedView::new(entries);
        assert_eq!((view.len(), view.left_out()), (MAX_ENTRIES_PER_AGENT, 2));
        assert!(
            view.find("a-newest").is_none() && view.find("n-as-old").is_none(),
            "of two that are as old, the first ID"
        );
        assert!(view.find("z-oldest").is_some());
    }
}
