//! The two places for a CA key, and what each holds.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_api::TrustDomain;
use ironroot_hsm::KeyId;
use serde::{Deserialize, Serialize};

use super::authority::Authority;

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

/// What a slot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Slot {
    /// Nothing.
    #[default]
    Empty,
    /// A key is about to be made here. Whatever the token holds under this slot's CKA_ID is nobody's and is replaced.
    Intended,
    /// Certified and in the bundle; does not sign yet.
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

    pub(super) fn authority_mut(&mut self) -> Option<&mut Authority> {
        match self {
            Self::Empty | Self::Intended => None,
            Self::Prepared(authority) | Self::Active(authority) | Self::Old(authority) => Some(authority),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_other_slots_and_trust_domains_have_other_identifiers() {
        let trust_domain = TrustDomain::new("example.org").unwrap();
        let other = TrustDomain::new("example.com").unwrap();
        let ids = [SlotName::A.key_id(&trust_domain), SlotName::B.key_id(&trust_domain), SlotName::A.key_id(&other)];
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
        assert_eq!(SlotName::A.key_label(&trust_domain), "example.org x509-CA-A");
    }
}
