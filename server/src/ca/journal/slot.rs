//! The places for keys, and what they hold.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_api::TrustDomain;
use ironroot_hsm::{KeyId, KeyName};
use serde::{Deserialize, Serialize};

use super::authority::Authority;
use super::credential::Credential;
use super::key::KeyRecord;
use crate::ca::purpose::Purpose;
use crate::ca::server_name::ServerName;

/// One of the two places for the keys of a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "two equal slots: what tells them apart is what they hold")]
pub enum SlotName {
    A,
    B,
}

impl SlotName {
    /// A, then B: the order in which slots are looked at.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The slot that the next key goes to while this one signs.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
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
pub struct Place {
    /// What the key signs.
    pub purpose: Purpose,
    /// Which of the two slots of that purpose.
    pub slot: SlotName,
}

impl Place {
    /// Of a CA that signs SVIDs.
    pub fn ca(slot: SlotName) -> Self {
        Self { purpose: Purpose::X509Ca, slot }
    }

    /// Of a root that signs CAs.
    pub fn root(slot: SlotName) -> Self {
        Self { purpose: Purpose::Root, slot }
    }

    /// Of a key that signs JWT-SVIDs.
    pub fn jwt(slot: SlotName) -> Self {
        Self { purpose: Purpose::Jwt, slot }
    }

    /// Of a key that signs WIT-SVIDs.
    pub fn wit(slot: SlotName) -> Self {
        Self { purpose: Purpose::Wit, slot }
    }

    /// Both slots of every purpose.
    pub fn all() -> impl Iterator<Item = Self> {
        Purpose::ALL.into_iter().flat_map(|purpose| SlotName::BOTH.map(|slot| Self { purpose, slot }))
    }

    /// What a key that `server` makes here is called. Its CKA_ID is the first 16 bytes of a SHA-256, since some tokens allow no
    /// more; its CKA_LABEL is for people, and for tokens that choose CKA_IDs themselves.
    pub fn key_name(self, trust_domain: &TrustDomain, server: &ServerName) -> KeyName {
        // Without a name these are the names of the time when a token had one server.
        let (id, label) = match server.is_unnamed() {
            true => (format!("ironroot {self} {trust_domain}"), format!("{trust_domain} {self}")),
            false => (format!("ironroot {self} {trust_domain} {server}"), format!("{trust_domain} {server} {self}")),
        };
        let id = KeyId::new(&digest(&SHA256, id.as_bytes()).as_ref()[..16]).expect("16 bytes are a legal CKA_ID");
        KeyName::new(id, &label)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.purpose, self.slot)
    }
}

/// What a place holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Slot<C = Credential> {
    /// No key, in use or intended.
    Empty,
    /// This key is about to be used here. If it is to be made, whatever the token holds under its name is nobody's and is
    /// replaced.
    Intended(KeyRecord),
    /// Certified, and in the bundle, or its root is; does not sign yet.
    Prepared(Authority<C>),
    /// Signs whatever its purpose signs, as long as the clock lets it.
    Active(Authority<C>),
    /// Has signed; what it signed is still about.
    Old(Authority<C>),
    /// An operator has revoked what had this key: it has left the bundle, and the key is to be destroyed.
    Revoked(KeyRecord),
}

impl<C> Slot<C> {
    /// The authority, if its key is certified: prepared, active or old.
    pub fn authority(&self) -> Option<&Authority<C>> {
        match self {
            Self::Empty | Self::Intended(_) | Self::Revoked(_) => None,
            Self::Prepared(authority) | Self::Active(authority) | Self::Old(authority) => Some(authority),
        }
    }

    pub(super) fn authority_mut(&mut self) -> Option<&mut Authority<C>> {
        match self {
            Self::Empty | Self::Intended(_) | Self::Revoked(_) => None,
            Self::Prepared(authority) | Self::Active(authority) | Self::Old(authority) => Some(authority),
        }
    }

    /// The authority's key, the one that is intended, or the one that is to be destroyed.
    pub fn key(&self) -> Option<&KeyRecord> {
        match self {
            Self::Intended(key) | Self::Revoked(key) => Some(key),
            other => other.authority().map(|authority| &authority.in_token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_other_places_servers_and_trust_domains_have_other_names() {
        let domains = ["example.org", "example.com"].map(|name| TrustDomain::new(name).unwrap());
        let servers = [ServerName::default(), "one".parse().unwrap(), "two".parse().unwrap()];
        let mut names = std::collections::HashSet::new();
        for (domain, server) in domains.iter().flat_map(|domain| servers.iter().map(move |server| (domain, server))) {
            names.extend(Place::all().map(|place| place.key_name(domain, server).to_string()));
        }
        assert_eq!(names.len(), 2 * 3 * 8);
        let label = |place: Place, server| place.key_name(&domains[0], server).label().unwrap().to_owned();
        assert_eq!(label(Place::ca(SlotName::A), &servers[0]), "example.org x509-CA-A");
        assert_eq!(label(Place::root(SlotName::B), &servers[1]), "example.org one x509-Root-B");
        assert_eq!(label(Place::jwt(SlotName::B), &servers[2]), "example.org two JWT-Signer-B");
    }

    /// The keys of servers that are in use.
    #[test]
    fn keys_of_a_server_without_a_name_are_called_as_they_always_were() {
        let domain = TrustDomain::new("example.org").unwrap();
        for (place, id) in [
            (Place::root(SlotName::A), "d36b0cdc8bacf444acad4e99163bf9e5"),
            (Place::ca(SlotName::A), "b1b20003ae6b10b19e19908bc9542e8f"),
        ] {
            let name = place.key_name(&domain, &ServerName::default());
            assert_eq!(name.id().unwrap().to_string(), id);
        }
    }
}
