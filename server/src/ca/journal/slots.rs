//! The two places of one purpose, and the authorities whose place is used again: its life, whatever it signs.
//!
//! ```text
//!  slot:  Empty ──intend──► Intended ──prepare──► Prepared ──activate──► Active ──(other slot activated)──► Old
//!           ▲                  ▲                   ▲  └─forsake─► Empty                                      │
//!           └────── prune ─────┴──── intend ───────┴──── prepare (the same key, certified anew) ◄───────────┤
//!           ▲                                                                                               │
//!           └── destroyed ── Revoked ◄── revoke ────────────────────────────────── taint (it stays Old) ◄───┘
//! ```
//! Below the line is what only an operator orders; see `rotation/by_hand.rs`.

use serde::{Deserialize, Serialize};

use super::authority::Authority;
use super::credential::Credential;
use super::key::KeyRecord;
use super::slot::{Slot, SlotName};
use super::verdict::Verdict;
use crate::clock::Moment;

/// Authorities kept beside those in the slots. In its life a purpose keeps two or three; each time that the clock is wrong for
/// long adds one or two. When there are more, the one that was retired first goes.
pub const MAX_RETIRED: usize = 64;

/// The places of one purpose.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slots<C = Credential> {
    pub(super) a: Slot<C>,
    pub(super) b: Slot<C>,
    pub(super) retired: Vec<Authority<C>>,
}

impl<C> Default for Slots<C> {
    fn default() -> Self {
        Self { a: Slot::Empty, b: Slot::Empty, retired: Vec::new() }
    }
}

impl<C: Clone + PartialEq> Slots<C> {
    /// What the slot of that name holds.
    pub fn slot(&self, name: SlotName) -> &Slot<C> {
        match name {
            SlotName::A => &self.a,
            SlotName::B => &self.b,
        }
    }

    /// The slot whose key is about to be used, and the key.
    pub fn intended(&self) -> Option<(SlotName, &KeyRecord)> {
        let key = |name| if let Slot::Intended(key) = self.slot(name) { Some((name, key)) } else { None };
        SlotName::BOTH.into_iter().find_map(key)
    }

    /// The authority that comes next.
    pub fn prepared(&self) -> Option<(SlotName, &Authority<C>)> {
        self.only(|slot| if let Slot::Prepared(authority) = slot { Some(authority) } else { None })
    }

    /// The authority that signs, as long as the clock lets it.
    pub fn active(&self) -> Option<(SlotName, &Authority<C>)> {
        self.only(|slot| if let Slot::Active(authority) = slot { Some(authority) } else { None })
    }

    /// The slot whose key is to be destroyed, and the key.
    pub fn revoked(&self) -> Option<(SlotName, &KeyRecord)> {
        let key = |name| if let Slot::Revoked(key) = self.slot(name) { Some((name, key)) } else { None };
        SlotName::BOTH.into_iter().find_map(key)
    }

    /// Every authority whose key is still in a slot and that is not tainted, in the order in which they are asked to sign: the active
    /// one; those that were, the newest first; the prepared one.
    pub fn signers(&self) -> Vec<(SlotName, &Authority<C>)> {
        let old = self.only(|slot| if let Slot::Old(authority) = slot { Some(authority) } else { None });
        let with_key = |authority: &Authority<C>| {
            SlotName::BOTH.into_iter().find(|name| self.slot(*name).authority().is_some_and(|a| a.key == authority.key))
        };
        let retired = self.retired.iter().rev().filter_map(|authority| Some((with_key(authority)?, authority)));
        let all = self.active().into_iter().chain(old).chain(retired).chain(self.prepared());
        all.filter(|(_, authority)| !authority.is_tainted()).collect()
    }

    /// Those of them that may sign at `now_unix`, the prepared one left out.
    pub fn valid_signers(&self, now_unix: i64) -> impl Iterator<Item = (SlotName, &Authority<C>)> {
        let prepared = self.prepared();
        self.signers().into_iter().filter(move |signer| Some(*signer) != prepared && signer.1.is_valid(now_unix))
    }

    /// The first of those.
    pub fn signer(&self, now_unix: i64) -> Option<(SlotName, &Authority<C>)> {
        self.valid_signers(now_unix).next()
    }

    /// Whether the key in this slot may go: it certifies nothing that could still be valid, or an operator had it replaced.
    pub fn key_may_go(&self, name: SlotName, moment: Moment) -> bool {
        let Some(authority) = self.slot(name).authority() else { return true };
        if !authority.verdict.is_none() {
            return true;
        }
        let of_this_key = self.retired.iter().filter(|retired| retired.key == authority.key);
        of_this_key.chain([authority]).all(|authority| authority.is_over(moment))
    }

    /// Every authority that the journal knows: those that have left their slots first, then slot A's and slot B's.
    pub fn authorities(&self) -> Vec<&Authority<C>> {
        let slots = SlotName::BOTH.into_iter().filter_map(|name| self.slot(name).authority());
        self.retired.iter().chain(slots).collect()
    }

    /// How many there are beside those in the slots.
    pub fn retired_count(&self) -> usize {
        self.retired.len()
    }

    /// Those that bundles hold: what neither a root nor the authority above has signed.
    pub fn anchors(&self) -> Vec<&Authority<C>> {
        self.authorities().into_iter().filter(|authority| authority.is_anchor()).collect()
    }

    /// Whether `Slots::prune` would change anything.
    pub fn is_prunable(&self, moment: Moment) -> bool {
        self.retired.iter().any(|authority| authority.is_prunable(moment))
            || SlotName::BOTH.into_iter().any(|name| self.is_old_and_over(name, moment))
    }

    /// When the next authority is pruned at the earliest, UNIX seconds, if later than `now_unix`. What is prepared or active
    /// is not pruned where it stands.
    pub fn next_prune(&self, now_unix: i64) -> Option<i64> {
        let old = SlotName::BOTH.into_iter().filter_map(|name| match self.slot(name) {
            Slot::Old(authority) => Some(authority),
            _ => None,
        });
        self.retired.iter().chain(old).map(Authority::prune_at).filter(|at| *at > now_unix).min()
    }

    pub(super) fn intend(&mut self, name: SlotName, key: KeyRecord) {
        self.retire(name);
        *self.slot_mut(name) = Slot::Intended(key);
    }

    pub(super) fn prepare(&mut self, name: SlotName, authority: Authority<C>) {
        self.retire(name);
        *self.slot_mut(name) = Slot::Prepared(authority);
    }

    pub(super) fn activate(&mut self, name: SlotName) {
        let Slot::Prepared(authority) = self.slot(name).clone() else { return };
        *self.slot_mut(name) = Slot::Active(authority);
        if let Slot::Active(authority) = self.slot(name.other()).clone() {
            *self.slot_mut(name.other()) = Slot::Old(authority);
        }
    }

    /// As [`intend`](Self::intend), but what is prepared here leaves the bundle: it has signed nothing.
    pub(super) fn replace(&mut self, name: SlotName, key: KeyRecord) {
        if let Slot::Prepared(_) = self.slot(name) {
            *self.slot_mut(name) = Slot::Empty;
        }
        self.intend(name, key);
    }

    /// Says `verdict` of each authority that `is_meant`, unless worse has been said of it.
    pub(super) fn judge(&mut self, verdict: Verdict, is_meant: impl Fn(&Authority<C>) -> bool) {
        let Self { a, b, retired } = self;
        let slots = [a, b].into_iter().filter_map(Slot::authority_mut);
        let meant = slots.chain(retired).filter(|authority| is_meant(authority));
        meant.for_each(|authority| authority.verdict = authority.verdict.max(verdict));
    }

    /// Each authority that `is_meant` leaves the bundle; the keys of those that are in slots are to be destroyed.
    pub(super) fn revoke(&mut self, is_meant: impl Fn(&Authority<C>) -> bool) {
        self.retired.retain(|authority| !is_meant(authority));
        for name in SlotName::BOTH {
            if let Some(authority) = self.slot(name).authority().filter(|authority| is_meant(authority)) {
                *self.slot_mut(name) = Slot::Revoked(authority.in_token.clone());
            }
        }
    }

    /// The revoked key in this slot has been destroyed.
    pub(super) fn destroyed(&mut self, name: SlotName) {
        if let Slot::Revoked(_) = self.slot(name) {
            *self.slot_mut(name) = Slot::Empty;
        }
    }

    /// Whoever was to sign, or did, is old.
    pub(super) fn lay_down(&mut self) {
        for name in SlotName::BOTH {
            if let Slot::Prepared(authority) | Slot::Active(authority) = self.slot(name).clone() {
                *self.slot_mut(name) = Slot::Old(authority);
            }
        }
    }

    pub(super) fn forsake(&mut self, name: SlotName) {
        self.retire(name);
        *self.slot_mut(name) = Slot::Empty;
    }

    pub(super) fn prune(&mut self, moment: Moment) {
        for name in SlotName::BOTH {
            if self.is_old_and_over(name, moment) {
                *self.slot_mut(name) = Slot::Empty;
            }
        }
        self.retired.retain(|authority| !authority.is_prunable(moment));
    }

    fn is_old_and_over(&self, name: SlotName, moment: Moment) -> bool {
        matches!(self.slot(name), Slot::Old(authority) if authority.is_prunable(moment))
            && self.key_may_go(name, moment)
    }

    fn retire(&mut self, name: SlotName) {
        let authority = self.slot(name).authority().cloned();
        self.retired.extend(authority);
        let surplus = self.retired.len().saturating_sub(MAX_RETIRED);
        self.retired.drain(..surplus);
    }

    pub(super) fn fill(&mut self, name: SlotName, slot: Slot<C>) {
        *self.slot_mut(name) = slot;
    }

    fn slot_mut(&mut self, name: SlotName) -> &mut Slot<C> {
        match name {
            SlotName::A => &mut self.a,
            SlotName::B => &mut self.b,
        }
    }

    fn only<'a>(
        &'a self,
        pick: impl Fn(&'a Slot<C>) -> Option<&'a Authority<C>>,
    ) -> Option<(SlotName, &'a Authority<C>)> {
        SlotName::BOTH.into_iter().find_map(|name| Some((name, pick(self.slot(name))?)))
    }
}
