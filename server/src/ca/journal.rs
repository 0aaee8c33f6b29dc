//! What the CA has decided, durable before anyone can see it.
//!
//! ```text
//!  slot:  Empty ──intend──► Intended ──prepare──► Prepared ──activate──► Active ──(other slot activated)──► Old
//!           ▲                  ▲                   ▲  └─forsake─► Empty                                      │
//!           └────── prune ─────┴──── intend ───────┴──── prepare (the same key, certified anew) ◄───────────┘
//! ```
//! An authority whose slot is used again stays in the bundle until it is pruned. One that a root has signed is not in the bundle:
//! the root is.

mod authority;
mod format;
mod root;
mod slot;

use ironroot_api::TrustDomain;
use serde::{Deserialize, Serialize};

pub use authority::Authority;
pub use format::JournalError;
pub use root::{RootSlot, Roots};
pub use slot::{Place, Slot, SlotName};

use crate::clock::{ClockRecord, Moment};

/// Authorities kept beside those in the slots. In its life a CA keeps two or three; each time that the clock is wrong for long
/// adds one or two. When there are more, the one that was retired first goes.
const MAX_RETIRED: usize = 64;

/// The journal. Each method is one transition and takes nothing that is not on disk afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    format: u32,
    trust_domain: String,
    sequence_number: u64,
    /// The number of the key that is made next.
    #[serde(default)]
    next_key: u64,
    /// The clock when this was written.
    #[serde(default)]
    clock: Option<ClockRecord>,
    #[serde(default)]
    roots: Roots,
    a: Slot,
    b: Slot,
    retired: Vec<Authority>,
}

impl Journal {
    /// Of a CA that does not exist yet.
    pub fn new(trust_domain: &TrustDomain) -> Self {
        Self {
            format: format::FORMAT,
            trust_domain: trust_domain.as_str().to_owned(),
            sequence_number: 0,
            next_key: 0,
            clock: None,
            roots: Roots::default(),
            a: Slot::Empty,
            b: Slot::Empty,
            retired: Vec::new(),
        }
    }

    /// What is in this slot.
    pub fn slot(&self, name: SlotName) -> &Slot {
        match name {
            SlotName::A => &self.a,
            SlotName::B => &self.b,
        }
    }

    /// The slot where a key is about to be made.
    pub fn intended(&self) -> Option<SlotName> {
        SlotName::BOTH.into_iter().find(|name| *self.slot(*name) == Slot::Intended)
    }

    /// The authority that comes next.
    pub fn prepared(&self) -> Option<(SlotName, &Authority)> {
        self.only(|slot| if let Slot::Prepared(authority) = slot { Some(authority) } else { None })
    }

    /// The authority that signs, as long as the clock lets it.
    pub fn active(&self) -> Option<(SlotName, &Authority)> {
        self.only(|slot| if let Slot::Active(authority) = slot { Some(authority) } else { None })
    }

    /// Every authority whose key is still in a slot, in the order in which they are asked to sign: the active one; those that
    /// were, the newest first; the prepared one. All are in the bundle, or their roots are.
    pub fn signers(&self) -> Vec<(SlotName, &Authority)> {
        let old = self.only(|slot| if let Slot::Old(authority) = slot { Some(authority) } else { None });
        let with_key = |authority: &Authority| {
            SlotName::BOTH.into_iter().find(|name| self.slot(*name).authority().is_some_and(|a| a.key == authority.key))
        };
        let retired = self.retired.iter().rev().filter_map(|authority| Some((with_key(authority)?, authority)));
        self.active().into_iter().chain(old).chain(retired).chain(self.prepared()).collect()
    }

    /// The first of them that may sign at `now_unix`, the prepared one left out.
    pub fn signer(&self, now_unix: i64) -> Option<(SlotName, &Authority)> {
        let prepared = self.prepared();
        self.signers().into_iter().find(|signer| Some(*signer) != prepared && signer.1.is_valid(now_unix))
    }

    /// Whether the key in this slot may be destroyed: it certifies nothing that could still be valid.
    pub fn key_may_go(&self, name: SlotName, moment: Moment) -> bool {
        let Some(authority) = self.slot(name).authority() else { return true };
        let of_this_key = self.retired.iter().filter(|retired| retired.key == authority.key);
        of_this_key.chain([authority]).all(|authority| authority.is_over(moment))
    }

    /// The authorities of the bundle, the oldest first: roots, and those that no root has signed.
    pub fn authorities(&self) -> Vec<&Authority> {
        let mut anchors = self.every_authority();
        anchors.retain(|authority| authority.root.is_none());
        anchors.sort_by_key(|authority| (authority.issued_at, authority.not_after));
        anchors
    }

    /// The roots.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    fn every_authority(&self) -> Vec<&Authority> {
        let slots = SlotName::BOTH.into_iter().filter_map(|name| self.slot(name).authority());
        let roots = self.roots.made().into_iter().map(|(_, root)| root);
        self.retired.iter().chain(slots).chain(roots).collect()
    }

    /// Grows with each change of the bundle.
    pub fn sequence_number(&self) -> u64 {
        self.sequence_number
    }

    /// The number that the next new key gets.
    pub fn next_key(&self) -> u64 {
        self.next_key
    }

    /// The clock when this was written.
    pub fn clock(&self) -> Option<&ClockRecord> {
        self.clock.as_ref()
    }

    /// With the clock as it is now.
    pub fn with_clock(mut self, clock: ClockRecord) -> Self {
        self.clock = Some(clock);
        self
    }

    /// A key is about to be made in `name`, over whatever is there.
    pub fn intend(mut self, name: SlotName) -> Self {
        self.retire(name);
        *self.slot_mut(name) = Slot::Intended;
        self
    }

    /// The key in `name`, a new one or the one that was there, has been certified.
    pub fn prepare(mut self, name: SlotName, authority: Authority) -> Self {
        self.retire(name);
        self.next_key = self.next_key.max(authority.key + 1);
        self.sequence_number += u64::from(authority.root.is_none());
        *self.slot_mut(name) = Slot::Prepared(authority);
        self
    }

    /// A root's key is about to be made in `name`, over whatever is there.
    pub fn intend_root(mut self, name: SlotName) -> Self {
        *self.roots.slot_mut(name) = RootSlot::Intended;
        self
    }

    /// The root's key in `name` has been made and certified.
    pub fn make_root(mut self, name: SlotName, root: Authority) -> Self {
        self.next_key = self.next_key.max(root.key + 1);
        self.sequence_number += 1;
        *self.roots.slot_mut(name) = RootSlot::Made(root);
        self
    }

    /// `name`, which is prepared, signs from now on; the other slot, if it was active, is old.
    pub fn activate(mut self, name: SlotName) -> Self {
        if let Slot::Prepared(authority) = self.slot(name).clone() {
            *self.slot_mut(name) = Slot::Active(authority);
            if let Slot::Active(authority) = self.slot(name.other()).clone() {
                *self.slot_mut(name.other()) = Slot::Old(authority);
            }
        }
        self
    }

    /// The key in `name` is not in the token.
    pub fn forsake(mut self, name: SlotName) -> Self {
        self.retire(name);
        *self.slot_mut(name) = Slot::Empty;
        self
    }

    /// Authorities whose time is over leave the bundle.
    pub fn prune(mut self, moment: Moment) -> Self {
        let before = self.authorities().len();
        for name in SlotName::BOTH {
            if self.is_old_and_over(name, moment) {
                *self.slot_mut(name) = Slot::Empty;
            }
        }
        self.retired.retain(|authority| !authority.is_prunable(moment));
        if self.authorities().len() != before {
            self.sequence_number += 1;
        }
        self
    }

    /// Whether [`Journal::prune`] would change anything.
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

    fn slot_mut(&mut self, name: SlotName) -> &mut Slot {
        match name {
            SlotName::A => &mut self.a,
            SlotName::B => &mut self.b,
        }
    }

    fn only<'a>(&'a self, pick: impl Fn(&'a Slot) -> Option<&'a Authority>) -> Option<(SlotName, &'a Authority)> {
        SlotName::BOTH.into_iter().find_map(|name| Some((name, pick(self.slot(name))?)))
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::certificate::Certificate;

    use super::*;
    use crate::clock::Trust;

    pub(super) fn trust_domain() -> TrustDomain {
        TrustDomain::new("example.org").unwrap()
    }

    pub(super) fn authority(uri: &str) -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        let not_after = Certificate::parse(&certificate).unwrap().not_after_unix();
        Authority { certificate, issued_at: 1_800_000_000, not_after, issued_counted: 0, key: 0, root: None }
    }

    /// Three authorities: one retired, one active, one prepared, each with its own key.
    pub(super) fn full() -> Journal {
        let authority = |key| Authority { key, ..authority("spiffe://example.org") };
        let journal = Journal::new(&trust_domain()).intend(SlotName::A).prepare(SlotName::A, authority(0));
        let journal = journal.activate(SlotName::A).intend(SlotName::B).prepare(SlotName::B, authority(1));
        journal.activate(SlotName::B).intend(SlotName::A).prepare(SlotName::A, authority(2))
    }

    fn moment(now_unix: i64, trust: Trust) -> Moment {
        Moment { now_unix, counted: i64::MAX, trust }
    }

    //= FED-02
    #[test]
    fn an_authority_stays_in_the_bundle_when_its_slot_is_used_again() {
        let journal = full();
        assert_eq!((journal.authorities().len(), journal.sequence_number(), journal.next_key()), (3, 3, 3));
        let forsaken = journal.clone().forsake(SlotName::A);
        assert_eq!((forsaken.authorities().len(), forsaken.prepared()), (3, None));
        let end = journal.next_prune(0).unwrap();
        assert_eq!(journal.clone().prune(moment(end - 1, Trust::Agreed)), journal);
        for unsure in [Trust::Settling, Trust::Incident] {
            assert_eq!(journal.clone().prune(moment(end, unsure)), journal, "{unsure:?}");
        }
        let pruned = journal.clone().prune(moment(end, Trust::Agreed));
        assert_eq!(
            (pruned.authorities().len(), pruned.sequence_number()),
            (2, 4),
            "the active and the prepared one stay"
        );
    }

    #[test]
    fn a_key_that_is_certified_anew_signs_under_both_certificates() {
        let journal = full();
        let anew = Authority { key: 1, issued_at: 1_800_000_100, ..authority("spiffe://example.org") };
        let journal = journal.forsake(SlotName::A).prepare(SlotName::B, anew.clone());
        let signers: Vec<_> = journal.signers().iter().map(|(slot, a)| (*slot, a.key, a.issued_at)).collect();
        assert_eq!(signers, [(SlotName::B, 1, 1_800_000_000), (SlotName::B, 1, 1_800_000_100)]);
        let (_, signer) = journal.signer(1_800_000_200).unwrap();
        assert_eq!(signer.issued_at, 1_800_000_000, "the prepared one waits until it is activated");
        assert_eq!(journal.activate(SlotName::B).signer(1_800_000_200).unwrap().1, &anew);
    }

    #[test]
    fn what_a_root_has_signed_is_not_in_the_bundle_and_changes_nothing_there() {
        let root = authority("spiffe://example.org");
        let ca = |key| Authority { key, root: Some(0), ..authority("spiffe://example.org") };
        let journal = Journal::new(&trust_domain()).intend_root(SlotName::A).make_root(SlotName::A, root.clone());
        assert_eq!(journal.sequence_number(), 1);
        let journal = journal.intend(SlotName::A).prepare(SlotName::A, ca(1)).activate(SlotName::A);
        let journal = journal.intend(SlotName::B).prepare(SlotName::B, ca(2)).activate(SlotName::B);
        assert_eq!((journal.authorities(), journal.sequence_number()), (vec![&root], 1));
        assert_eq!((journal.signers().len(), journal.next_key()), (2, 3));
    }

    #[test]
    fn activating_one_takes_nothing_from_the_other() {
        let journal = full().activate(SlotName::A);
        let Slot::Old(old) = journal.slot(SlotName::B).clone() else { panic!("{journal:?}") };
        let anew = Authority { key: 2, ..authority("spiffe://example.org") };
        let journal = journal.prepare(SlotName::A, anew).activate(SlotName::A);
        assert_eq!(journal.slot(SlotName::B), &Slot::Old(old), "it was not active");
    }

    #[test]
    fn the_number_of_authorities_is_bounded() {
        let mut journal = full();
        for n in 0..2 * MAX_RETIRED as u64 {
            let authority = Authority { key: n, issued_at: n as i64, ..authority("spiffe://example.org") };
            journal = journal.prepare(SlotName::A, authority);
        }
        assert_eq!(journal.authorities().len(), MAX_RETIRED + 2);
    }
}
