//! What a connection has been sent, so that its agent need not be told again what it has.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ironroot_api::pb::types::EntryMask;

use crate::registry::AuthorizedView;

/// The last list that went over a connection. It is a guess at what the agent has, and never more: an agent that is given
/// revisions asks for what it lacks. While nothing changes the view is the registry's own; no connection keeps more than one.
#[derive(Debug, Default)]
pub struct SentView(Mutex<Option<Sent>>);

#[derive(Debug)]
struct Sent {
    mask: Option<EntryMask>,
    view: AuthorizedView,
}

impl SentView {
    /// Whether revisions of `view`, and the entries that the agent then lacks, are fewer bytes than all entries: a revision takes
    /// a third of an entry, so more than half of them must be known.
    pub fn has_most_of(&self, view: &AuthorizedView, mask: Option<&EntryMask>) -> bool {
        let sent = self.lock();
        let sent = sent.as_ref().filter(|sent| sent.mask.as_ref() == mask);
        sent.is_some_and(|sent| sent.view.count_same(view) * 2 > view.len())
    }

    /// The agent was told of all of `view`.
    pub fn note(&self, view: &AuthorizedView, mask: Option<&EntryMask>) {
        *self.lock() = Some(Sent { mask: mask.copied(), view: view.clone() });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Sent>> {
        // One value, replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
