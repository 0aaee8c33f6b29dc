//! What an agent may serve: proof that the registry said so.

use std::sync::Arc;

use super::EncodedEntry;
use crate::facts::entry::RegistrationEntry;

use super::MAX_ENTRIES_PER_PARENT;

/// An entry, its place in lists, and its wire form, made once.
#[derive(Debug)]
pub(super) struct StoredEntry {
    pub seq: i64,
    pub entry: Arc<RegistrationEntry>,
    pub encoded: EncodedEntry,
}

/// An entry that the registry found among those an agent may serve. Only the registry makes one.
#[derive(Clone, Debug)]
pub struct AuthorizedEntry {
    stored: Arc<StoredEntry>,
}

impl AuthorizedEntry {
    /// The entry.
    pub fn entry(&self) -> &RegistrationEntry {
        &self.stored.entry
    }

    fn age(&self) -> (i64, &str) {
        (self.entry().created_at(), self.entry().id())
    }

    /// The entry's wire form.
    pub fn encoded(&self) -> &EncodedEntry {
        &self.stored.encoded
    }
}

/// Most entries of one agent, through all its parents together: what agents take. The rest is not the agent's until
/// others have gone.
pub const MAX_ENTRIES_PER_AGENT: usize = MAX_ENTRIES_PER_PARENT;

/// The entries an agent may serve, in the order of their IDs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AuthorizedView {
    entries: Arc<[AuthorizedEntry]>,
    left_out: usize,
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
        entries.sort_by(|a, b| a.entry().id().cmp(b.entry().id()));
        Self { entries: entries.into(), left_out }
    }

    /// How many entries the agent would have besides, were an agent's entries not bounded.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, AuthorizedEntry> {
        self.entries.iter()
    }

    /// The entry of that ID.
    pub fn find(&self, id: &str) -> Option<&AuthorizedEntry> {
        let place = self.entries.binary_search_by(|authorized| authorized.entry().id().cmp(id)).ok()?;
        self.entries.get(place)
    }
}

impl<'a> IntoIterator for &'a AuthorizedView {
    type Item = &'a AuthorizedEntry;
    type IntoIter = std::slice::Iter<'a, AuthorizedEntry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
