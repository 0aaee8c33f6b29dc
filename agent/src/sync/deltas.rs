//! What the server says has changed, taken in without asking it: what is new is signed for at once.
//!
//! ```text
//!  delta ─► full_sync? ─► leads from what is held to the view that it names? ─► bundle ─► entries ─► others' bundles ─► SVIDs ─► publish
//!               └yes─► a sync, no more than one a second ◄─no┘
//! ```
//! Nothing is taken in of a delta that leads elsewhere, whether the server is wrong, or a sync has been ahead of it.

use std::time::{Duration, Instant};

use ironroot_api::pb::change::{Delta, WatchChangesRequest};
use ironroot_api::view::BundleName;
use ironroot_shell::describe;
use prost::bytes::Bytes;
use thiserror::Error;
use tracing::{debug, warn};

use super::entries::{mask, sorted_out};
use super::schedule::unit;
use super::{EntriesChange, SyncError, Synchronizer};
use crate::issuance_heads::Verdict;
use crate::server_answers::{AnswerRefusal, TrustBundle};

/// Heads that come with deltas are looked at this far apart at least: a server has one signed every five seconds, and each costs signatures, and
/// may be written to flash. One that is passed over comes with the next sync, if none comes before.
const HEAD_SPACING: Duration = Duration::from_secs(1);

/// How far the agent has followed what its server tells.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// The bundle that is held, if the server has told it in this run.
    bundle: Option<BundleName>,
    /// Whether what is held was whole at some time in this run: the server has said all of it.
    is_whole: bool,
    /// Whether a sync has come between the last delta and the next: what that one says may be in already.
    may_be_ahead: bool,
    /// Entries that a sync found changed, of which no delta has told yet.
    unexplained: bool,
    /// Whether it was said of this stream that its deltas lead elsewhere.
    has_told: bool,
    /// When a head that came with a delta was last looked at.
    head_at: Option<Instant>,
    /// Whether a bundle of another trust domain could not be had, and no delta needs to come of it.
    owes_bundles: bool,
}

/// Why a delta is not taken in.
#[derive(Debug, Error)]
pub(super) enum Stray {
    #[error("the server wants to be asked for everything")]
    FullSync,
    #[error("it does not lead from what is held to what the server says is this agent's")]
    Elsewhere,
    #[error("its bundle is refused")]
    Bundle(#[source] AnswerRefusal),
}

impl Followed {
    /// The server has answered what `bundle` is.
    pub fn take_bundle(&mut self, bundle: BundleName) {
        self.bundle = Some(bundle);
    }

    /// The bundle is another now, and not from there.
    pub fn forget_bundle(&mut self) {
        self.bundle = None;
    }

    /// A sync has brought everything, to an agent that `follows` deltas.
    pub fn note_sync(&mut self, change: EntriesChange, follows: bool) {
        self.unexplained = follows && self.is_whole && change != EntriesChange::None;
        (self.is_whole, self.may_be_ahead) = (true, true);
    }

    /// The server could not say (`owed`) what some other trust domain's bundle is; or has said it of all.
    pub fn owe_bundles(&mut self, owed: bool) {
        self.owes_bundles = owed;
    }

    /// Whether the server is to be asked for bundles again before long, though it tells what changes.
    pub fn owes_bundles(&self) -> bool {
        self.owes_bundles
    }

    /// Whether a head that comes with a delta is looked at now: see [`HEAD_SPACING`].
    fn is_to_look_at_head(&mut self, now: Instant) -> bool {
        let is_time = self.head_at.is_none_or(|last| now.saturating_duration_since(last) >= HEAD_SPACING);
        if is_time {
            self.head_at = Some(now);
        }
        is_time
    }

    /// A stream is opened.
    pub fn begin(&mut self) {
        (self.has_told, self.unexplained) = (false, false);
    }
}

impl Synchronizer {
    /// What the server is told of what is held, so that it can go on from there.
    pub(super) fn what_is_held(&self) -> WatchChangesRequest {
        let view = self.followed.is_whole.then(|| self.ledger.view_name());
        let bytes = |name: Option<&[u8]>| name.map(Bytes::copy_from_slice).unwrap_or_default();
        WatchChangesRequest {
            output_mask: Some(mask(self.fields())),
            view: bytes(view.as_ref().map(|name| name.as_bytes())),
            bundle: bytes(self.followed.bundle.as_ref().map(|name| name.as_bytes())),
        }
    }

    /// Takes in the first delta of a stream; false if everything is to be asked for.
    pub(super) async fn go_on_from(&mut self, first: Delta) -> Result<bool, SyncError> {
        self.followed.begin();
        match self.take_all(vec![first]).await? {
            None => Ok(true),
            Some(stray) => {
                debug!(why = %describe(&stray), "the server does not go on from what is held");
                Ok(false)
            }
        }
    }

    /// Takes in these deltas, and has signed what is due for them. One that is not taken in brings about a sync.
    pub(super) async fn follow(&mut self, mut deltas: Vec<Delta>) -> Result<(), SyncError> {
        let heads = deltas.iter_mut().map(|delta| std::mem::take(&mut delta.issuance_head));
        let newest = heads.filter(|head| !head.is_empty()).last();
        let followed = self.follow_deltas(deltas).await;
        self.look_at_head(newest);
        followed
    }

    /// Of several heads the last counts, by the bundle that came with it. A server that shows another history is shown what was kept, by a sync.
    fn look_at_head(&mut self, newest: Option<Bytes>) {
        let Some(newest) = newest.filter(|_| self.followed.is_to_look_at_head(Instant::now())) else { return };
        if matches!(self.take_head(Some(&newest)), Some(Verdict::StepBack | Verdict::Fork)) {
            self.next_poll = self.next_poll.min(self.pushes.next_sync());
        }
    }

    async fn follow_deltas(&mut self, deltas: Vec<Delta>) -> Result<(), SyncError> {
        if let Some(stray) = self.take_all(deltas).await? {
            self.tell_stray(&stray);
            self.next_poll = self.next_poll.min(self.pushes.next_sync());
        }
        self.sign_only().await?;
        if self.parts.local_authority.is_some() {
            let channel = self.trusted_channel().await?;
            self.tend_local_authority(channel).await;
        }
        Ok(())
    }

    /// Up to the first that is not taken in, and why it is not.
    async fn take_all(&mut self, deltas: Vec<Delta>) -> Result<Option<Stray>, SyncError> {
        let federated = self.ledger.federates_with();
        let (mut foreign, mut stray) = (false, None);
        for delta in deltas {
            match self.take(&delta) {
                Ok(()) => foreign |= delta.federated,
                Err(why) => {
                    stray = Some(why);
                    break;
                }
            }
        }
        if stray.is_none() {
            self.synced_unix = self.parts.time.now_unix();
        }
        let wanted = self.ledger.federates_with();
        if wanted != federated || ((foreign || self.followed.owes_bundles) && !wanted.is_empty()) {
            let channel = self.trusted_channel().await?;
            self.sync_federated(channel).await?;
        }
        if self.followed.owes_bundles {
            self.next_poll = self.next_poll.min(Instant::now() + self.poll_pause(unit()));
        }
        Ok(stray)
    }

    fn take(&mut self, delta: &Delta) -> Result<(), Stray> {
        if delta.full_sync {
            return Err(Stray::FullSync);
        }
        let leads_to = self.ledger.view_after(&delta.entries, &delta.removed);
        if leads_to.is_none_or(|name| name.as_bytes() != &delta.view[..]) {
            return Err(Stray::Elsewhere);
        }
        if let Some(told) = &delta.bundle {
            let bundle = TrustBundle::from_answer(told, &self.parts.trust_domain).map_err(Stray::Bundle)?;
            self.adopt_bundle(bundle.into());
            self.followed.take_bundle(BundleName::of(told));
        }
        let is_heartbeat = delta.entries.is_empty() && delta.removed.is_empty() && delta.bundle.is_none();
        if std::mem::take(&mut self.followed.unexplained) && is_heartbeat && !delta.federated {
            warn!(
                "a sync found entries changed of which the server had not told; it is asked at each interval all the same"
            );
        }
        let (terms, passed_over) = sorted_out(&delta.entries, &self.parts.trust_domain, self.fields());
        let change = self.ledger.apply(&delta.removed, terms, passed_over, Instant::now());
        self.entries_changed(change);
        self.followed.may_be_ahead = false;
        Ok(())
    }

    /// Once for each stream. What a sync has been ahead of is nobody's mistake.
    fn tell_stray(&mut self, stray: &Stray) {
        let why = describe(stray);
        match stray {
            Stray::FullSync => debug!(why, "a sync follows"),
            Stray::Elsewhere if self.followed.may_be_ahead => debug!(why, "a delta is not taken in; a sync follows"),
            _ if std::mem::replace(&mut self.followed.has_told, true) => {
                debug!(why, "a delta is not taken in; a sync follows")
            }
            _ => warn!(why, "what the server says has changed is not taken in; a sync follows"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::push::DELTA_SPACING;
    use super::*;

    #[test]
    fn heads_that_come_with_deltas_are_looked_at_once_a_second_at_most() {
        let (mut followed, now) = (Followed::default(), Instant::now());
        let looked_at: Vec<u32> =
            (0..=200).filter(|step| followed.is_to_look_at_head(now + *step * DELTA_SPACING)).collect();
        assert_eq!(looked_at, [0, 50, 100, 150, 200], "deltas come 20 ms apart");
    }
}
