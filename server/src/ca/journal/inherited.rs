//! The journal of a CA that goes on where another server's ended: what that published stays in the bundle, and what signed there signs
//! here, as far as its key has come along.

use ironroot_api::TrustDomain;
use ironroot_hsm::KeyName;

use super::slots::MAX_RETIRED;
use super::{Authority, Credential, Journal, JournalError, KeyMark, KeyRecord, Place, Slot, UpstreamChain, Verdict};
use crate::ca::server_name::ServerName;

/// An authority of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// What it is verified with.
    pub credential: Credential,
    /// UNIX seconds.
    pub issued_at: i64,
    /// UNIX seconds.
    pub not_after: i64,
    /// What it is for, and, if its key has come along, where the key is.
    pub standing: Standing,
    /// What is between it and a root of an authority above; none if it is in the bundle itself.
    pub upstream: Option<UpstreamChain>,
    /// Whether its key is in other hands.
    pub is_tainted: bool,
}

/// What an inherited authority can do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its key is known by the name of this place: it is prepared, and signs nothing yet.
    Prepared(Place),
    /// The same: it signs.
    Active(Place),
    /// The same: it has signed.
    Old(Place),
    /// It is only verified with.
    Verifies(crate::ca::Purpose),
}

impl Journal {
    /// A journal with these authorities, whose bundle is newer than that of `sequence_number`.
    ///
    /// Errors: there are too many, or they contradict each other.
    pub fn inherit(
        trust_domain: &TrustDomain,
        server: &ServerName,
        sequence_number: u64,
        authorities: Vec<Inherited>,
    ) -> Result<Self, JournalError> {
        let mut journal = Self::new(trust_domain, server);
        journal.sequence_number = sequence_number.saturating_add(1);
        journal.next_key = authorities.len() as u64;
        for (number, inherited) in authorities.into_iter().enumerate() {
            let standing = inherited.standing;
            let authority = inherited.into_authority(number as u64);
            let slot = match standing {
                Standing::Verifies(purpose) => {
                    journal.slots_mut(purpose).retired.push(authority);
                    continue;
                }
                Standing::Prepared(place) => (place, Slot::Prepared(authority)),
                Standing::Active(place) => (place, Slot::Active(authority)),
                Standing::Old(place) => (place, Slot::Old(authority)),
            };
            journal.slots_mut(slot.0.purpose).fill(slot.0.slot, slot.1);
        }
        if journal.slots.values().any(|slots| slots.retired.len() > MAX_RETIRED) {
            return Err(JournalError::Contradiction("it has more authorities than are kept"));
        }
        journal.check(trust_domain)?;
        Ok(journal)
    }
}

impl Inherited {
    fn into_authority(self, key: u64) -> Authority {
        let in_token = match self.standing {
            Standing::Prepared(place) | Standing::Active(place) | Standing::Old(place) => {
                KeyRecord::made(labelled(&place.to_string()))
            }
            // Nobody looks for it: an authority without a place signs nothing.
            Standing::Verifies(_) => {
                KeyRecord::given(labelled("not taken over"), KeyMark::of(&self.credential.spki_der()))
            }
        };
        Authority {
            credential: self.credential,
            issued_at: self.issued_at,
            not_after: self.not_after,
            // Its life is counted from now on: it stays longer than it must, and never less.
            issued_counted: 0,
            key,
            in_token,
            root: None,
            upstream: self.upstream,
            verdict: if self.is_tainted { Verdict::Tainted } else { Verdict::None },
        }
    }
}

fn labelled(label: &str) -> KeyName {
    KeyName::labelled(label).expect("it is not empty")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{authority, jwt_authority, trust_domain};
    use super::super::{Purpose, SlotName};
    use super::*;

    fn inherited(of: Authority, standing: Standing) -> Inherited {
        let Authority { credential, issued_at, not_after, .. } = of;
        Inherited { credential, issued_at, not_after, standing, upstream: None, is_tainted: false }
    }

    fn inherit(authorities: Vec<Inherited>) -> Result<Journal, JournalError> {
        Journal::inherit(&trust_domain(), &ServerName::default(), 41, authorities)
    }

    #[test]
    fn what_another_server_published_stays_and_what_signed_there_signs_here() {
        let ca = || authority("spiffe://example.org");
        let (a, b) = (Place::ca(SlotName::A), Place::ca(SlotName::B));
        let journal = inherit(vec![
            inherited(ca(), Standing::Verifies(Purpose::X509Ca)),
            inherited(ca(), Standing::Active(b)),
            inherited(ca(), Standing::Prepared(a)),
            inherited(jwt_authority(), Standing::Active(Place::jwt(SlotName::A))),
        ]);
        let journal = journal.expect("it can be");
        assert_eq!((journal.anchors().len(), journal.sequence_number(), journal.next_key()), (4, 42, 4));
        assert!(journal.is_founded());
        let slots = journal.slots(Purpose::X509Ca);
        let active = slots.active().expect("there is one");
        assert_eq!((active.0, active.1.in_token.name.label()), (SlotName::B, Some("x509-CA-B")));
        assert!(slots.prepared().is_some() && slots.signers().len() == 2, "{slots:?}");
        let again = Journal::from_bytes(&journal.to_bytes(), &trust_domain(), &ServerName::default());
        assert_eq!(again.expect("it is read"), journal);
    }

    #[test]
    fn what_was_tainted_there_is_tainted_here() {
        let tainted = Inherited { is_tainted: true, ..inherited(jwt_authority(), Standing::Verifies(Purpose::Jwt)) };
        let journal = inherit(vec![tainted]).expect("it can be");
        assert!(journal.anchors()[0].is_tainted());
    }

    /// Upstream authorities of SPIRE's are any CA.
    #[test]
    fn what_is_only_verified_with_need_not_name_the_trust_domain_and_what_signs_must() {
        let foreign = || authority("spiffe://example.com");
        inherit(vec![inherited(foreign(), Standing::Verifies(Purpose::Root))]).expect("it is a root");
        let signing = inherit(vec![inherited(foreign(), Standing::Active(Place::ca(SlotName::A)))]);
        assert!(matches!(signing, Err(JournalError::Contradiction(_))));
    }

    #[test]
    fn more_authorities_than_are_kept_are_refused() {
        let many = |count| (0..count).map(|_| inherited(jwt_authority(), Standing::Verifies(Purpose::Jwt))).collect();
        assert!(inherit(many(MAX_RETIRED)).is_ok());
        assert!(matches!(inherit(many(MAX_RETIRED + 1)), Err(JournalError::Contradiction(_))));
    }
}
