//! Entries that have something in common, found by it: the index holds no copy of what it finds them by.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::slice;
use std::sync::Arc;

use super::stored_entry::StoredEntry;

/// What entries of one group have in common.
pub(super) trait Key {
    fn of(entry: &StoredEntry) -> &[u8];
}

/// The SPIFFE ID that they give.
#[derive(Debug)]
pub(super) struct BySpiffeId;

/// The parent that they are below.
#[derive(Debug)]
pub(super) struct ByParent;

impl Key for BySpiffeId {
    fn of(entry: &StoredEntry) -> &[u8] {
        entry.spiffe_id_key()
    }
}

impl Key for ByParent {
    fn of(entry: &StoredEntry) -> &[u8] {
        entry.parent_key()
    }
}

/// Every entry, in groups.
#[derive(Debug)]
pub(super) struct Groups<K: Key>(HashSet<Group<K>>);

impl<K: Key> Default for Groups<K> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<K: Key> Groups<K> {
    /// Makes room for so many groups more.
    pub fn reserve(&mut self, groups: usize) {
        self.0.reserve(groups);
    }

    /// Gives back the room of groups that did not come.
    pub fn shrink_to_fit(&mut self) {
        self.0.shrink_to_fit();
    }

    pub fn put(&mut self, entry: Arc<StoredEntry>) {
        let members = match self.0.take(K::of(&entry)) {
            None => Members::One(entry),
            Some(group) => group.members.with(entry),
        };
        self.0.insert(Group { members, key: PhantomData });
    }

    pub fn remove(&mut self, entry: &StoredEntry) {
        let members = self.0.take(K::of(entry)).and_then(|group| group.members.without(entry.seq));
        self.0.extend(members.map(|members| Group { members, key: PhantomData }));
    }

    /// The group with that key, in the order of places in lists.
    pub fn get(&self, key: &[u8]) -> &[Arc<StoredEntry>] {
        self.0.get(key).map_or(&[], |group| group.members.all())
    }
}

/// A group that is not empty; its key is read from its first member.
#[derive(Debug)]
struct Group<K> {
    members: Members,
    key: PhantomData<K>,
}

/// Most often one.
#[derive(Debug)]
enum Members {
    One(Arc<StoredEntry>),
    /// In the order of their places in lists.
    #[expect(
        clippy::box_collection,
        reason = "a group of one, and there are a million, takes 16 bytes so and 24 without"
    )]
    Many(Box<Vec<Arc<StoredEntry>>>),
}

impl Members {
    fn all(&self) -> &[Arc<StoredEntry>] {
        match self {
            Self::One(only) => slice::from_ref(only),
            Self::Many(many) => many,
        }
    }

    fn with(self, entry: Arc<StoredEntry>) -> Self {
        let mut many = match self {
            Self::One(only) => Box::new(vec![only]),
            Self::Many(many) => many,
        };
        let place = many.partition_point(|member| member.seq < entry.seq);
        many.insert(place, entry);
        Self::Many(many)
    }

    /// None if nobody is left.
    fn without(self, seq: i64) -> Option<Self> {
        match self {
            Self::One(only) => Some(Self::One(only)).filter(|members| members.all()[0].seq != seq),
            Self::Many(mut many) => {
                if let Ok(place) = many.binary_search_by_key(&seq, |member| member.seq) {
                    many.remove(place);
                }
                Some(Self::Many(many)).filter(|members| !members.all().is_empty())
            }
        }
    }
}

impl<K: Key> Borrow<[u8]> for Group<K> {
    fn borrow(&self) -> &[u8] {
        K::of(&self.members.all()[0])
    }
}

impl<K: Key> Hash for Group<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let key: &[u8] = self.borrow();
        key.hash(state);
    }
}

impl<K: Key> PartialEq for Group<K> {
    fn eq(&self, other: &Self) -> bool {
        let (one, two): (&[u8], &[u8]) = (self.borrow(), other.borrow());
        one == two
    }
}

impl<K: Key> Eq for Group<K> {}

/// An entry, found by its ID.
#[derive(Debug)]
pub(super) struct ById(pub Arc<StoredEntry>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        self.0.id()
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for ById {}
