//! What is said of a look to an agent that was told of another one before. Pure.

use std::sync::Arc;

use ironroot_api::pb::change::{Delta, WatchChangesRequest};
use ironroot_api::pb::types::{self, EntryMask};
use ironroot_api::view::BundleName;
use prost::Message;
use prost::bytes::Bytes;
use tonic::Status;

use super::super::bundle_api;
use super::super::heads::{KnownHead, ShownHead};
use crate::ca::TrustBundle;
use crate::registry::{AuthorizedEntry, AuthorizedView};

/// Entries, new and gone, of one message: what is more is synced, in pages that are counted among the agent's calls.
pub const MAX_DELTA_ENTRIES: usize = 128;
/// Bytes of one message but for its fixed fields and a head of the issuance log, which has a bound of its own. So many may wait in each
/// held stream, unread.
pub const MAX_DELTA_BYTES: usize = 32 * 1024;

/// What a held stream saw.
pub(super) struct Look {
    pub view: AuthorizedView,
    pub bundle: Arc<TrustBundle>,
    /// Whether a bundle of another trust domain that the view asks for has changed since something was told.
    pub foreign: bool,
    /// Whether the agent's chip is under suspicion and the next call over this connection proves a copy: one that lives is made to
    /// ask.
    pub suspected: bool,
}

/// How an agent is told.
#[derive(Debug)]
pub(super) enum Telling {
    /// That something has changed.
    Words,
    /// What has changed.
    Deltas(Box<Deltas>),
}

#[derive(Debug)]
pub(super) struct Deltas {
    mask: EntryMask,
    /// Messages so far.
    told: u64,
    /// What the agent held when it came, and the bundle.
    held: (Bytes, Bytes),
    /// Which head of the issuance log it was shown last.
    head: KnownHead,
}

impl Telling {
    /// As the agent wants it.
    pub fn asked_by(request: WatchChangesRequest) -> Result<Self, Status> {
        let Some(mask) = request.output_mask else { return Ok(Self::Words) };
        if !mask.revision_number || !mask.created_at {
            return Err(Status::invalid_argument("revision_number and created_at cannot be masked"));
        }
        let held = (request.view, request.bundle);
        Ok(Self::Deltas(Box::new(Deltas { mask, told: 0, held, head: KnownHead::Unasked })))
    }

    /// The agent was shown this head.
    pub fn goes_on_from(&mut self, head: KnownHead) {
        if let Self::Deltas(deltas) = self {
            deltas.head = head;
        }
    }

    /// Puts the `newest` head beside what has changed, if the agent was shown another. A heartbeat has none: where somebody issues all the time
    /// each would have one, and that would be most of what an idle agent is sent. Who is to ask for everything is shown it then.
    pub fn show_head(&mut self, delta: &mut Delta, newest: Option<&ShownHead>) {
        let Self::Deltas(deltas) = self else { return };
        let says_something =
            !delta.entries.is_empty() || !delta.removed.is_empty() || delta.bundle.is_some() || delta.federated;
        if says_something && !delta.full_sync {
            delta.issuance_head = deltas.head.is_shown(newest).unwrap_or_default();
        }
    }

    /// Whether it is of deltas.
    pub fn is_of_deltas(&self) -> bool {
        matches!(self, Self::Deltas(_))
    }

    /// The fields of entries that are told.
    pub fn mask(&self) -> Option<&EntryMask> {
        match self {
            Self::Words => None,
            Self::Deltas(deltas) => Some(&deltas.mask),
        }
    }

    /// What is to be said of `now` to an agent that was `told` of another look, or of none; none if that is nothing. The delta of an
    /// agent that is told none is empty. `kept`: the view that the agent was told on an earlier stream, if it has that name. `is_time`:
    /// something is to be said though nothing has changed, by whoever says more than words.
    pub fn of(
        &mut self,
        told: Option<&Look>,
        now: &Look,
        kept: impl FnOnce(&[u8]) -> Option<AuthorizedView>,
        is_time: bool,
    ) -> Option<Option<Delta>> {
        let has_changed = told.is_none_or(|told| !now.is_same(told));
        match self {
            Self::Words => has_changed.then_some(None),
            Self::Deltas(_) if !has_changed && !is_time => None,
            Self::Deltas(deltas) => Some(Some(match told {
                None => deltas.first(now, kept),
                Some(told) => deltas.next(told, now),
            })),
        }
    }
}

impl Deltas {
    fn first(&mut self, now: &Look, kept: impl FnOnce(&[u8]) -> Option<AuthorizedView>) -> Delta {
        let (view, bundle) = std::mem::take(&mut self.held);
        let is_current = now.view.name().as_bytes() == view;
        let held = if is_current { Some(now.view.clone()) } else { kept(&view) };
        let told = bundle_api::to_pb(&now.bundle);
        let told = (BundleName::of(&told).as_bytes() != bundle).then_some(told);
        match held.filter(|_| !now.suspected) {
            // Of other trust domains' bundles nobody knows what it has.
            Some(held) => self.since(&held, told, true, now),
            None => self.full_sync(now),
        }
    }

    fn next(&mut self, told: &Look, now: &Look) -> Delta {
        if now.suspected && !told.suspected {
            return self.full_sync(now);
        }
        let bundle = (!Arc::ptr_eq(&now.bundle, &told.bundle)).then(|| bundle_api::to_pb(&now.bundle));
        self.since(&told.view, bundle, now.foreign, now)
    }

    fn since(&mut self, held: &AuthorizedView, bundle: Option<types::Bundle>, federated: bool, now: &Look) -> Delta {
        let changed: Vec<_> = now.view.changed_since(held).take(MAX_DELTA_ENTRIES + 1).collect();
        let removed: Vec<_> = now.view.gone_since(held).map(str::to_owned).take(MAX_DELTA_ENTRIES + 1).collect();
        let bytes = changed.iter().map(|entry| entry.whole_bytes()).sum::<usize>()
            + removed.iter().map(String::len).sum::<usize>()
            + bundle.as_ref().map_or(0, Message::encoded_len);
        if changed.len() + removed.len() > MAX_DELTA_ENTRIES || bytes > MAX_DELTA_BYTES {
            return self.full_sync(now);
        }
        let encoded = |entry: &AuthorizedEntry| entry.entry().to_pb_masked(Some(&self.mask));
        let entries = changed.into_iter().map(encoded).collect();
        Delta { entries, removed, bundle, federated, ..self.numbered(now) }
    }

    fn full_sync(&mut self, now: &Look) -> Delta {
        Delta { full_sync: true, ..self.numbered(now) }
    }

    fn numbered(&mut self, now: &Look) -> Delta {
        self.told += 1;
        let view = Bytes::copy_from_slice(now.view.name().as_bytes());
        Delta { number: self.told, view, ..Delta::default() }
    }
}

impl Look {
    /// Whether there is nothing to say to an agent that was told of `other`.
    fn is_same(&self, other: &Self) -> bool {
        let same = self.view.count_same(&other.view);
        let same_view = self.view.len() == same && other.view.len() == same;
        same_view && Arc::ptr_eq(&self.bundle, &other.bundle) && self.suspected == other.suspected && !self.foreign
    }
}

#[cfg(test)]
mod tests;
