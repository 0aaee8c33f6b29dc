//! The places for keys, and what those for CA keys hold.

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

    /// CKA_ID of the CA key in this slot.
    pub fn key_id(self, trust_domain: &TrustDomain) -> KeyId {
        Place::Ca(self).key_id(trust_domain)
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

/// A place for a key in the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Of a CA that signs SVIDs.
    Ca(SlotName),
    /// Of a root that signs CAs.
    Root(SlotName),
}

impl Place {
    /// Each.
    pub const ALL: [Self; 4] =
        [Self::Ca(SlotName::A), Self::Ca(SlotName::B), Self::Root(SlotName::A), Self::Root(SlotName::B)];

    /// CKA_ID of the key: the first 16 bytes of a SHA-256, since some tokens allow no more.
    pub fn key_id(self, trust_domain: &TrustDomain) -> KeyId {
        let text = format!("ironroot {} {trust_domain}", self.name());
        KeyId::new(&digest(&SHA256, text.as_bytes()).as_ref()[..16]).expect("16 bytes are a legal CKA_ID")
    }

    /// CKA_LABEL of the key, for people.
    pub fn key_label(self, trust_domain: &TrustDomain) -> String {
        format!("{trust_domain} {}", self.name())
    }

    fn name(self) -> String {
        match self {
            Self::Ca(slot) => format!("x509-CA-{slot}"),
            Self::Root(slot) => format!("x509-Root-{slot}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// What a slot for a CA key holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Slot {
    /// Nothing.
    #[default]
    Empty,
    /// A key is about to be made here. Whatever the token holds under this slot's CKA_ID is nobody's and is replaced.
    Intended,
    /// Certified, and in the bundle, or its root is; does not sign yet.
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
    fn keys_of_other_places_and_trust_domains_have_other_identifiers() {
        let domains = ["example.org", "example.com"].map(|name| TrustDomain::new(name).unwrap());
        let ids: std::collections::HashSet<_> =
            domains.iter().flat_map(|domain| Place::ALL.map(|place| place.key_id(domain).to_string())).collect();
        assert_eq!(ids.len(), 8);
        assert_eq!(Place::Ca(SlotName::A).key_label(&domains[0]), "example.org x509-CA-A");
        assert_eq!(Place::Root(SlotName::B).key_label(&domains[0]), "example.org x509-Root-B");
    }
}
