//! What the CA has decided, durable before anyone can see it: the slots of each purpose, which keys were used, the clock.
//!
//! An authority whose slot is used again stays in the bundle until it is pruned. One that a root has signed is not in the bundle:
//! the root is.

mod authority;
mod credential;
mod format;
mod inherited;
mod key;
mod slot;
mod slots;
mod upstream_chain;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use ironroot_api::TrustDomain;
use serde::{Deserialize, Serialize};

pub use authority::Authority;
pub use credential::{CaCertificate, Credential, JwtKey, KeyId};
pub use format::JournalError;
pub use inherited::{Inherited, Standing};
pub use key::{KeyMark, KeyRecord, Origin};
pub use slot::{Place, Slot, SlotName};
pub use slots::{MAX_RETIRED, Slots};
pub use upstream_chain::UpstreamChain;
pub use verdict::Verdict;

use super::purpose::Purpose;
use super::server_name::ServerName;
use crate::clock::{ClockRecord, Moment};

/// Keys of an administrator that are remembered as used. No more are taken then: in a ceremony a handful is made, so these are the
/// keys of many lives.
pub const MAX_USED_KEYS: usize = 1024;

/// The journal of one server. Each method is one transition and takes nothing that is not on disk afterwards. `C`: what authorities
/// are verified with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Journal<C = Credential> {
    format: u32,
    trust_domain: String,
    /// Whose; empty of a server without a name.
    server: String,
    sequence_number: u64,
    /// The number of the key that is used next.
    next_key: u64,
    /// The clock when this was written.
    clock: Option<ClockRecord>,
    slots: BTreeMap<Purpose, Slots<C>>,
    /// Keys of an administrator that were taken, at most [`MAX_USED_KEYS`].
    used: BTreeSet<KeyMark>,
}

impl<C: Clone + PartialEq> Journal<C> {
    /// Of a CA that does not exist yet.
    pub fn new(trust_domain: &TrustDomain, server: &ServerName) -> Self {
        Self {
            format: format::FORMAT,
            trust_domain: trust_domain.as_str().to_owned(),
            server: server.as_str().to_owned(),
            sequence_number: 0,
            next_key: 0,
            clock: None,
            slots: Purpose::ALL.into_iter().map(|purpose| (purpose, Slots::default())).collect(),
            used: BTreeSet::new(),
        }
    }

    /// Whose it is.
    pub fn server(&self) -> ServerName {
        self.server.parse().unwrap_or_default()
    }

    /// The places of a purpose.
    pub fn slots(&self, purpose: Purpose) -> &Slots<C> {
        self.slots.get(&purpose).expect("each purpose has its slots: made and read so")
    }

    /// Empty, or an authority or key and how far its life is.
    pub fn slot(&self, place: Place) -> &Slot<C> {
        self.slots(place.purpose).slot(place.slot)
    }

    /// The authorities of the bundle, the oldest first.
    pub fn anchors(&self) -> Vec<&Authority<C>> {
        let mut anchors: Vec<_> = self.slots.values().flat_map(Slots::anchors).collect();
        anchors.sort_by_key(|authority| (authority.issued_at, authority.not_after));
        anchors
    }

    /// Every authority of every purpose, in the order in which purposes are made.
    pub fn authorities(&self) -> Vec<&Authority<C>> {
        self.slots.values().flat_map(Slots::authorities).collect()
    }

    /// Whether there is a CA, or a root for one.
    pub fn is_founded(&self) -> bool {
        let has_any = |purpose| !self.slots(purpose).authorities().is_empty();
        [Purpose::Root, Purpose::X509Ca].into_iter().any(has_any)
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

    /// Whether this key of an administrator was taken before.
    pub fn has_used(&self, key: &KeyMark) -> bool {
        self.used.contains(key)
    }

    /// Whether no more of them can be remembered, and so none may be taken.
    pub fn remembers_no_more_keys(&self) -> bool {
        self.used.len() >= MAX_USED_KEYS
    }

    /// With the clock as it is now.
    pub fn with_clock(mut self, clock: ClockRecord) -> Self {
        self.clock = Some(clock);
        self
    }

    /// With this key of an administrator taken.
    pub fn with_used(mut self, key: KeyMark) -> Self {
        self.used.insert(key);
        self
    }

    /// `key` is about to be used in `place`, over whatever is there.
    pub fn intend(mut self, place: Place, key: KeyRecord) -> Self {
        self.slots_mut(place.purpose).intend(place.slot, key);
        self
    }

    /// The key in `place`, a new one or the one that was there, has been certified.
    pub fn prepare(mut self, place: Place, authority: Authority<C>) -> Self {
        self.next_key = self.next_key.max(authority.key + 1);
        self.sequence_number += u64::from(authority.is_anchor());
        self.slots_mut(place.purpose).prepare(place.slot, authority);
        self
    }

    /// `place`, which is prepared, signs from now on; the other slot, if it was active, is old.
    pub fn activate(mut self, place: Place) -> Self {
        self.slots_mut(place.purpose).activate(place.slot);
        self
    }

    /// As [`intend`](Self::intend), at an operator's word: what is prepared in `place` leaves the bundle, since it has signed nothing.
    pub fn replace(mut self, place: Place, key: KeyRecord) -> Self {
        let before = self.slots(place.purpose).anchors().len();
        self.slots_mut(place.purpose).replace(place.slot, key);
        self.count_change_of(place.purpose, before)
    }

    /// As [`activate`](Self::activate), at an operator's word: who signed before is not certified again.
    pub fn activate_by_hand(mut self, place: Place) -> Self {
        let before = self.slots(place.purpose).active().map(|(_, authority)| authority.key);
        let slots = self.slots_mut(place.purpose);
        slots.activate(place.slot);
        slots.judge(Verdict::Replaced, |authority| Some(authority.key) == before);
        self
    }

    /// That key of `purpose` is in other hands: it signs nothing, nor does what it has signed as a root.
    pub fn taint(mut self, purpose: Purpose, key: u64) -> Self {
        self.slots_mut(purpose).judge(Verdict::Tainted, |authority| authority.key == key);
        if purpose == Purpose::Root {
            self.slots_mut(Purpose::X509Ca).judge(Verdict::Tainted, |authority| authority.root == Some(key));
        }
        self.sequence_number += 1;
        self
    }

    /// CAs that are not in the bundle themselves sign nothing more.
    pub fn taint_cas(mut self, is_meant: impl Fn(&Authority<C>) -> bool) -> Self {
        self.slots_mut(Purpose::X509Ca).judge(Verdict::Tainted, is_meant);
        self
    }

    /// Whatever is verified with that key of `purpose` leaves the bundle, with what it has signed as a root; their keys are to be
    /// destroyed.
    pub fn revoke(mut self, purpose: Purpose, key: u64) -> Self {
        self.slots_mut(purpose).revoke(|authority| authority.key == key);
        if purpose == Purpose::Root {
            self.slots_mut(Purpose::X509Ca).revoke(|authority| authority.root == Some(key));
        }
        self.sequence_number += 1;
        self
    }

    /// The revoked key in `place` is destroyed.
    pub fn destroyed(mut self, place: Place) -> Self {
        self.slots_mut(place.purpose).destroyed(place.slot);
        self
    }

    /// An operator has accepted that this is older than what others have seen: from now on it counts from the time, so that no bundle has a
    /// number that another one had.
    pub fn outrun(mut self, now_unix: i64) -> Self {
        self.sequence_number = (self.sequence_number + 1).max(now_unix.try_into().unwrap_or_default());
        self
    }

    /// The key in `place` is not in the token.
    pub fn forsake(mut self, place: Place) -> Self {
        self.slots_mut(place.purpose).forsake(place.slot);
        self
    }

    /// Nobody wants `purpose` any more: what is there ends in its time, and its keys are destroyed then.
    pub fn lay_down(mut self, purpose: Purpose) -> Self {
        self.slots_mut(purpose).lay_down();
        self
    }

    /// Authorities of `purpose` whose time is over leave the bundle.
    pub fn prune(mut self, purpose: Purpose, moment: Moment) -> Self {
        let before = self.slots(purpose).anchors().len();
        self.slots_mut(purpose).prune(moment);
        self.count_change_of(purpose, before)
    }

    /// `before`: how many authorities of the purpose the bundle had.
    fn count_change_of(mut self, purpose: Purpose, before: usize) -> Self {
        let has_changed = self.slots(purpose).anchors().len() != before;
        self.sequence_number += u64::from(has_changed);
        self
    }

    fn slots_mut(&mut self, purpose: Purpose) -> &mut Slots<C> {
        self.slots.entry(purpose).or_default()
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::certificate::Certificate;
    use ironroot_api::csr::Spki;
    use ironroot_hsm::KeyName;

    use super::*;
    use crate::clock::Trust;

    pub(super) fn trust_domain() -> TrustDomain {
        TrustDomain::new("example.org").unwrap()
    }

    pub(super) fn authority(uri: &str) -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
        let certificate = Certificate::parse(params.self_signed(&key).unwrap().der()).unwrap();
        let (not_after, in_token) = (certificate.not_after_unix(), made("a"));
        let (issued_at, issued_counted, key) = (1_800_000_000, 0, 0);
        let (credential, root, upstream, verdict) = (certificate.into(), None, None, Verdict::None);
        Authority { credential, issued_at, not_after, issued_counted, key, in_token, root, upstream, verdict }
    }

    pub(super) fn jwt_authority() -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let spki = Spki::parse(&rcgen::PublicKeyData::subject_public_key_info(&key)).unwrap();
        let (credential, in_token) = (JwtKey::new(KeyId::random(), spki).into(), made("jwt"));
        let (issued_at, not_after) = (1_800_000_000, 1_800_086_400);
        let (issued_counted, key, root, upstream, verdict) = (0, 0, None, None, Verdict::None);
        Authority { credential, issued_at, not_after, issued_counted, key, in_token, root, upstream, verdict }
    }

    pub(super) fn made(label: &str) -> KeyRecord {
        KeyRecord::made(KeyName::labelled(label).unwrap())
    }

    pub(super) fn founding() -> Journal {
        Journal::new(&trust_domain(), &ServerName::default())
    }

    const A: Place = Place { purpose: Purpose::X509Ca, slot: SlotName::A };
    const B: Place = Place { purpose: Purpose::X509Ca, slot: SlotName::B };
    const ROOT: Place = Place { purpose: Purpose::Root, slot: SlotName::A };

    fn slots(journal: &Journal) -> &Slots {
        journal.slots(Purpose::X509Ca)
    }

    /// Three authorities: one retired, one active, one prepared, each with its own key.
    pub(super) fn full() -> Journal {
        let authority = |key| Authority { key, ..authority("spiffe://example.org") };
        let journal = founding().intend(A, made("a")).prepare(A, authority(0));
        let journal = journal.activate(A).intend(B, made("b")).prepare(B, authority(1));
        journal.activate(B).intend(A, made("a")).prepare(A, authority(2))
    }

    fn moment(now_unix: i64, trust: Trust) -> Moment {
        Moment { now_unix, counted: i64::MAX, trust }
    }

    //= FED-02
    #[test]
    fn an_authority_stays_in_the_bundle_when_its_slot_is_used_again() {
        let journal = full();
        assert_eq!((journal.anchors().len(), journal.sequence_number(), journal.next_key()), (3, 3, 3));
        let forsaken = journal.clone().forsake(A);
        assert_eq!((forsaken.anchors().len(), slots(&forsaken).prepared()), (3, None));
        let end = slots(&journal).next_prune(0).unwrap();
        assert_eq!((slots(&journal).next_prune(end - 1), slots(&journal).next_prune(end)), (Some(end), None));
        assert_eq!(journal.clone().prune(Purpose::X509Ca, moment(end - 1, Trust::Agreed)), journal);
        for unsure in [Trust::Settling, Trust::Incident] {
            assert_eq!(journal.clone().prune(Purpose::X509Ca, moment(end, unsure)), journal, "{unsure:?}");
        }
        let pruned = journal.clone().prune(Purpose::X509Ca, moment(end, Trust::Agreed));
        assert_eq!((pruned.anchors().len(), pruned.sequence_number()), (2, 4), "the active and the prepared one stay");
    }

    #[test]
    fn an_old_authority_ends_in_its_slot_at_a_time_that_is_known_before() {
        let authority = |key| Authority { key, ..authority("spiffe://example.org") };
        let journal = founding().intend(A, made("a")).prepare(A, authority(0)).activate(A);
        assert_eq!(slots(&journal).next_prune(0), None, "the active one is not pruned where it stands");
        let journal = journal.intend(B, made("b")).prepare(B, authority(1)).activate(B);
        let end = authority(0).prune_at();
        assert_eq!(slots(&journal).next_prune(0), Some(end));
        let pruned = journal.prune(Purpose::X509Ca, moment(end, Trust::Agreed));
        assert_eq!((pruned.slot(A), slots(&pruned).next_prune(0)), (&Slot::Empty, None));
    }

    #[test]
    fn a_key_that_is_certified_anew_signs_under_both_certificates() {
        let journal = full();
        let anew = Authority { key: 1, issued_at: 1_800_000_100, ..authority("spiffe://example.org") };
        let journal = journal.forsake(A).prepare(B, anew.clone());
        let signers: Vec<_> = slots(&journal).signers().iter().map(|(slot, a)| (*slot, a.key, a.issued_at)).collect();
        assert_eq!(signers, [(SlotName::B, 1, 1_800_000_000), (SlotName::B, 1, 1_800_000_100)]);
        let (_, signer) = slots(&journal).signer(1_800_000_200).unwrap();
        assert_eq!(signer.issued_at, 1_800_000_000, "the prepared one waits until it is activated");
        assert_eq!(slots(&journal.activate(B)).signer(1_800_000_200).unwrap().1, &anew);
    }

    #[test]
    fn what_a_root_has_signed_is_not_in_the_bundle_and_changes_nothing_there() {
        let root = authority("spiffe://example.org");
        let ca = |key| Authority { key, root: Some(0), ..authority("spiffe://example.org") };
        let journal = founding().intend(ROOT, made("root")).prepare(ROOT, root.clone()).activate(ROOT);
        assert_eq!(journal.sequence_number(), 1);
        let journal = journal.intend(A, made("a")).prepare(A, ca(1)).activate(A);
        let journal = journal.intend(B, made("b")).prepare(B, ca(2)).activate(B);
        assert_eq!((journal.anchors(), journal.sequence_number()), (vec![&root], 1));
        assert_eq!((slots(&journal).signers().len(), journal.next_key()), (2, 3));
    }

    #[test]
    fn what_the_authority_above_has_signed_is_not_in_the_bundle_either() {
        let chain =
            || UpstreamChain::new([authority("spiffe://example.org").credential].into_iter().filter_map(certificate));
        let ca = Authority { upstream: Some(chain()), ..authority("spiffe://example.org") };
        let journal = founding().intend(A, made("a")).prepare(A, ca).activate(A);
        assert_eq!((journal.anchors().len(), journal.sequence_number(), journal.is_founded()), (0, 0, true));
        assert_eq!(slots(&journal).signers()[0].1.upstream.as_ref().map(|chain| chain.ders().count()), Some(1));
    }

    fn certificate(credential: Credential) -> Option<CaCertificate> {
        if let Credential::Certificate(certificate) = credential { Some(certificate) } else { None }
    }

    #[test]
    fn keys_of_jwt_svids_are_in_the_bundle_and_found_no_ca() {
        let place = Place::jwt(SlotName::A);
        let journal = founding().intend(place, made("jwt")).prepare(place, jwt_authority()).activate(place);
        assert_eq!((journal.anchors().len(), journal.sequence_number(), journal.is_founded()), (1, 1, false));
        assert!(full().is_founded());
        let end = jwt_authority().prune_at();
        let pruned = |journal: &Journal| journal.clone().prune(Purpose::Jwt, moment(end, Trust::Agreed));
        assert_eq!(pruned(&journal).slot(place), journal.slot(place), "the active one stays");
        assert_eq!(pruned(&journal.clone().lay_down(Purpose::Jwt)).slot(place), &Slot::Empty, "unless nobody wants it");
        let forsaken = journal.forsake(place);
        assert_eq!((forsaken.anchors().len(), forsaken.sequence_number()), (1, 1), "what it signed is still about");
    }

    #[test]
    fn activating_one_takes_nothing_from_the_other() {
        let journal = full().activate(A);
        let Slot::Old(old) = journal.slot(B).clone() else { panic!("{journal:?}") };
        let anew = Authority { key: 2, ..authority("spiffe://example.org") };
        let journal = journal.prepare(A, anew).activate(A);
        assert_eq!(journal.slot(B), &Slot::Old(old), "it was not active");
    }

    #[test]
    fn so_many_keys_of_an_administrator_are_remembered_and_no_more_are_taken() {
        let mark = |number: usize| KeyMark::of(&number.to_be_bytes());
        let taken = (1..MAX_USED_KEYS).fold(founding(), |journal, number| journal.with_used(mark(number)));
        assert!(!taken.remembers_no_more_keys() && taken.has_used(&mark(1)) && !taken.has_used(&mark(0)));
        assert!(taken.with_used(mark(0)).remembers_no_more_keys());
    }

    #[test]
    fn the_number_of_authorities_is_bounded() {
        let mut journal = full();
        for n in 0..2 * slots::MAX_RETIRED as u64 {
            let authority = Authority { key: n, issued_at: n as i64, ..authority("spiffe://example.org") };
            journal = journal.prepare(A, authority);
        }
        assert_eq!(journal.anchors().len(), slots::MAX_RETIRED + 2);
    }
}
