//! What the CA has decided, durable before anyone can see it.
//!
//! ```text
//!  slot:  Empty ──intend──► Intended ──prepare──► Prepared ──activate──► Active ──(other slot activated)──► Old
//!                              ▲                      └─forsake─► Empty                                      │
//!                              └────────────────────────── intend ◄──────────────────────────────────────────┘
//! ```
//! An authority whose slot is used again stays in the bundle until it is pruned.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_api::TrustDomain;
use ironroot_api::certificate::{Certificate, CertificateError};
use ironroot_hsm::KeyId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// The format written.
const FORMAT: u32 = 1;
/// An expired authority stays in the bundle this long, seconds, or for its own lifetime if that is shorter. Source: SPIRE,
/// `safetyThreshold`.
const PRUNE_AFTER: i64 = 24 * 60 * 60;

/// Why a journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Not what a server wrote, or damaged.
    #[error("it does not parse; restore the data store from its backup")]
    Malformed(#[source] serde_json::Error),
    /// Written by a newer server.
    #[error("it has format {0}, this server knows format {FORMAT}; run the newer server")]
    Format(u32),
    /// Another trust domain's.
    #[error("it belongs to trust domain {0:?}; the trust domain of a server cannot be changed")]
    OtherTrustDomain(String),
    /// An authority's certificate is damaged.
    #[error("an authority's certificate is damaged; restore the data store from its backup")]
    Certificate(#[from] CertificateError),
    /// What it says cannot be.
    #[error("it contradicts itself ({0}); restore the data store from its backup")]
    Contradiction(&'static str),
}

/// One of the two places for a CA key. Source: SPIRE's slots `x509-CA-A`, `x509-CA-B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotName {
    /// The first.
    A,
    /// The second.
    B,
}

impl SlotName {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// CKA_ID of the slot's key: the first 16 bytes of a SHA-256, since some tokens allow no more.
    pub fn key_id(self, trust_domain: &TrustDomain) -> KeyId {
        let text = format!("ironroot x509-CA-{self} {trust_domain}");
        KeyId::new(&digest(&SHA256, text.as_bytes()).as_ref()[..16]).expect("16 bytes are a legal CKA_ID")
    }

    /// CKA_LABEL of the slot's key, for people.
    pub fn key_label(self, trust_domain: &TrustDomain) -> String {
        format!("{trust_domain} x509-CA-{self}")
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// A CA certificate and its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// DER.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub certificate: Vec<u8>,
    /// UNIX seconds.
    pub issued_at: i64,
    /// UNIX seconds.
    pub not_after: i64,
}

impl Authority {
    /// Seconds from issue to end.
    pub fn lifetime(&self) -> i64 {
        self.not_after - self.issued_at
    }

    /// Whether its life is over.
    pub fn is_expired(&self, now_unix: i64) -> bool {
        self.not_after <= now_unix
    }

    /// When it leaves the bundle, UNIX seconds.
    pub fn prune_at(&self) -> i64 {
        self.not_after + PRUNE_AFTER.min(self.lifetime())
    }
}

/// What a slot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Slot {
    /// Nothing.
    #[default]
    Empty,
    /// A key is about to be made here. Whatever the token holds under this slot's CKA_ID is nobody's and is replaced.
    Intended,
    /// Made, certified and in the bundle; does not sign yet.
    Prepared(Authority),
    /// Signs.
    Active(Authority),
    /// Has signed; its SVIDs are still about.
    Old(Authority),
}

impl Slot {
    /// The authority here, if there is one.
    pub fn authority(&self) -> Option<&Authority> {
        match self {
            Self::Empty | Self::Intended => None,
            Self::Prepared(authority) | Self::Active(authority) | Self::Old(authority) => Some(authority),
        }
    }
}

/// The journal. Each method is one transition and takes nothing that is not on disk afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    format: u32,
    trust_domain: String,
    sequence_number: u64,
    a: Slot,
    b: Slot,
    retired: Vec<Authority>,
}

impl Journal {
    /// Of a CA that does not exist yet.
    pub fn new(trust_domain: &TrustDomain) -> Self {
        Self {
            format: FORMAT,
            trust_domain: trust_domain.as_str().to_owned(),
            sequence_number: 0,
            a: Slot::Empty,
            b: Slot::Empty,
            retired: Vec::new(),
        }
    }

    /// Reads what [`Journal::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8], trust_domain: &TrustDomain) -> Result<Self, JournalError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(JournalError::Malformed)?;
        if head.format != FORMAT {
            return Err(JournalError::Format(head.format));
        }
        let journal: Self = serde_json::from_slice(bytes).map_err(JournalError::Malformed)?;
        if journal.trust_domain != trust_domain.as_str() {
            return Err(JournalError::OtherTrustDomain(journal.trust_domain));
        }
        journal.check()?;
        Ok(journal)
    }

    /// JSON, for the store.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a journal has no map with other keys than text")
    }

    /// The slot of that name.
    pub fn slot(&self, name: SlotName) -> &Slot {
        match name {
            SlotName::A => &self.a,
            SlotName::B => &self.b,
        }
    }

    /// Grows by one with each change of the bundle's content.
    pub fn sequence_number(&self) -> u64 {
        self.sequence_number
    }

    /// The slot whose key is about to be made.
    pub fn intended(&self) -> Option<SlotName> {
        SlotName::BOTH.into_iter().find(|name| *self.slot(*name) == Slot::Intended)
    }

    /// The prepared slot.
    pub fn prepared(&self) -> Option<(SlotName, &Authority)> {
        self.only(|slot| if let Slot::Prepared(authority) = slot { Some(authority) } else { None })
    }

    /// The active slot.
    pub fn active(&self) -> Option<(SlotName, &Authority)> {
        self.only(|slot| if let Slot::Active(authority) = slot { Some(authority) } else { None })
    }

    /// Every authority in the bundle, oldest first.
    pub fn authorities(&self) -> Vec<&Authority> {
        let slots = SlotName::BOTH.into_iter().filter_map(|name| self.slot(name).authority());
        let mut all: Vec<_> = self.retired.iter().chain(slots).collect();
        all.sort_by_key(|authority| authority.issued_at);
        all
    }

    /// The next key will be made in `name`. What was certified there stays in the bundle.
    pub fn intend(mut self, name: SlotName) -> Self {
        self.retire(name);
        *self.slot_mut(name) = Slot::Intended;
        self
    }

    /// The key in `name` has been made and certified.
    pub fn prepare(mut self, name: SlotName, authority: Authority) -> Self {
        *self.slot_mut(name) = Slot::Prepared(authority);
        self.sequence_number += 1;
        self
    }

    /// `name`, which is prepared, signs from now on; the other slot, if it was active, is old.
    pub fn activate(mut self, name: SlotName) -> Self {
        let other = self.slot_mut(name.other());
        if let Slot::Active(authority) = std::mem::take(other) {
            *other = Slot::Old(authority);
        }
        let slot = self.slot_mut(name);
        if let Slot::Prepared(authority) = std::mem::take(slot) {
            *slot = Slot::Active(authority);
        }
        self
    }

    /// The prepared key in `name` is lost; nothing was ever signed with it.
    pub fn forsake(mut self, name: SlotName) -> Self {
        self.retire(name);
        *self.slot_mut(name) = Slot::Empty;
        self
    }

    /// Authorities whose time is over leave the bundle.
    pub fn prune(mut self, now_unix: i64) -> Self {
        let before = self.authorities().len();
        self.retired.retain(|authority| authority.prune_at() > now_unix);
        for name in SlotName::BOTH {
            if matches!(self.slot(name), Slot::Old(authority) if authority.prune_at() <= now_unix) {
                *self.slot_mut(name) = Slot::Empty;
            }
        }
        if self.authorities().len() != before {
            self.sequence_number += 1;
        }
        self
    }

    /// When the next authority may be pruned, UNIX seconds. What is prepared or active is not pruned where it stands.
    pub fn next_prune(&self) -> Option<i64> {
        let old = SlotName::BOTH.into_iter().filter_map(|name| match self.slot(name) {
            Slot::Old(authority) => Some(authority),
            _ => None,
        });
        self.retired.iter().chain(old).map(Authority::prune_at).min()
    }

    fn retire(&mut self, name: SlotName) {
        let authority = self.slot(name).authority().cloned();
        self.retired.extend(authority);
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

    /// Makes sure that it can be believed.
    fn check(&self) -> Result<(), JournalError> {
        let count = |of: fn(&Slot) -> bool| SlotName::BOTH.into_iter().filter(|name| of(self.slot(*name))).count();
        if count(|slot| matches!(slot, Slot::Active(_))) > 1 {
            return Err(JournalError::Contradiction("two slots are active"));
        }
        if count(|slot| matches!(slot, Slot::Intended | Slot::Prepared(_))) > 1 {
            return Err(JournalError::Contradiction("two slots are being prepared"));
        }
        for authority in self.authorities() {
            let certificate = Certificate::parse(&authority.certificate)?;
            if certificate.not_after_unix() != authority.not_after {
                return Err(JournalError::Contradiction("an authority ends at another time than its certificate"));
            }
            if certificate.spiffe_id()?.trust_domain_name() != self.trust_domain {
                return Err(JournalError::Contradiction("an authority is another trust domain's"));
            }
        }
        Ok(())
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust_domain() -> TrustDomain {
        TrustDomain::new("example.org").unwrap()
    }

    fn authority(uri: &str) -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        let not_after = Certificate::parse(&certificate).unwrap().not_after_unix();
        Authority { certificate, issued_at: 1_800_000_000, not_after }
    }

    fn full() -> Journal {
        let authority = || authority("spiffe://example.org");
        let journal = Journal::new(&trust_domain()).intend(SlotName::A).prepare(SlotName::A, authority());
        let journal = journal.activate(SlotName::A).intend(SlotName::B).prepare(SlotName::B, authority());
        journal.activate(SlotName::B).intend(SlotName::A).prepare(SlotName::A, authority())
    }

    #[test]
    fn reads_what_it_wrote() {
        for journal in [Journal::new(&trust_domain()), Journal::new(&trust_domain()).intend(SlotName::A), full()] {
            assert_eq!(Journal::from_bytes(&journal.to_bytes(), &trust_domain()).unwrap(), journal);
        }
    }

    #[test]
    fn refuses_what_it_cannot_believe() {
        let text = String::from_utf8(full().to_bytes()).unwrap();
        let read = |text: &str| Journal::from_bytes(text.as_bytes(), &trust_domain()).unwrap_err();
        assert!(matches!(read(""), JournalError::Malformed(_)));
        assert!(matches!(read(&text[..text.len() - 1]), JournalError::Malformed(_)));
        assert!(matches!(read(&text.replace("\"format\":1", "\"format\":2")), JournalError::Format(2)));
        assert!(matches!(read(&text.replace("\"MII", "\"AAA")), JournalError::Certificate(_)));
        assert!(matches!(read(&text.replace("\"prepared\"", "\"active\"")), JournalError::Contradiction(_)));
        let other = TrustDomain::new("example.com").unwrap();
        assert!(matches!(Journal::from_bytes(text.as_bytes(), &other), Err(JournalError::OtherTrustDomain(_))));
        let foreign = Journal::new(&trust_domain()).prepare(SlotName::A, authority("spiffe://example.com"));
        assert!(matches!(read(&String::from_utf8(foreign.to_bytes()).unwrap()), JournalError::Contradiction(_)));
        let mut moved = authority("spiffe://example.org");
        moved.not_after += 1;
        let moved = Journal::new(&trust_domain()).prepare(SlotName::A, moved);
        assert!(matches!(read(&String::from_utf8(moved.to_bytes()).unwrap()), JournalError::Contradiction(_)));
    }

    #[test]
    fn an_authority_stays_in_the_bundle_when_its_slot_is_used_again() {
        let journal = full();
        assert_eq!((journal.authorities().len(), journal.sequence_number()), (3, 3));
        let forsaken = journal.clone().forsake(SlotName::A);
        assert_eq!((forsaken.authorities().len(), forsaken.prepared()), (3, None));
        let end = journal.next_prune().unwrap();
        assert_eq!(journal.clone().prune(end - 1), journal);
        let pruned = journal.clone().prune(end);
        assert_eq!(
            (pruned.authorities().len(), pruned.sequence_number()),
            (2, 4),
            "the active and the prepared one stay"
        );
    }

    #[test]
    fn keys_of_other_slots_and_trust_domains_have_other_identifiers() {
        let other = TrustDomain::new("example.com").unwrap();
        let ids =
            [SlotName::A.key_id(&trust_domain()), SlotName::B.key_id(&trust_domain()), SlotName::A.key_id(&other)];
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
        assert_eq!(SlotName::A.key_label(&trust_domain()), "example.org x509-CA-A");
    }
}
