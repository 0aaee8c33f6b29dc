//! The keys of one trust domain that sign its JWT-SVIDs.

use std::collections::BTreeMap;

use prost::bytes::Bytes;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::bounds::{MAX_JWT_AUTHORITIES, MAX_KEY_ID_BYTES};
use super::public_key::{Jwk, PublicKey};
use crate::TrustDomain;
use crate::pb::types;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtAuthority {
    wire: types::JwtKey,
    key: PublicKey,
}

impl JwtAuthority {
    /// Checks a key as it comes over the wire; `None` if no JWT-SVID can be verified with it.
    pub fn from_wire(wire: &types::JwtKey) -> Option<Self> {
        //= JWT-09 JWT-SVID 6.1: "the `kid` parameter of each JWK entry MUST be set."
        if wire.key_id.is_empty() || wire.key_id.len() > MAX_KEY_ID_BYTES {
            return None;
        }
        let key = PublicKey::parse(&wire.public_key)?;
        Some(Self { wire: wire.clone(), key })
    }

    /// What tokens name it by.
    pub fn key_id(&self) -> &str {
        &self.wire.key_id
    }

    /// Whether it is no longer trusted to sign; what it has signed is verified until it is gone.
    pub fn is_tainted(&self) -> bool {
        self.wire.tainted
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.wire.public_key
    }

    /// When it signs no more, UNIX seconds; 0: nobody has said.
    pub fn expires_at(&self) -> i64 {
        self.wire.expires_at
    }

    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }
}

/// See the module. Two are equal when they hold the same keys, in whatever order they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtAuthorities {
    trust_domain: TrustDomain,
    /// By key ID.
    authorities: BTreeMap<String, JwtAuthority>,
    jwks: Bytes,
    left_out: usize,
}

impl JwtAuthorities {
    /// Takes up the keys of a bundle. Those that cannot be used are left out and counted: anybody whom the server lets publish a
    /// key could otherwise stop every agent. Of two keys with one ID the first counts.
    pub fn from_wire(trust_domain: &TrustDomain, keys: &[types::JwtKey]) -> Self {
        let (mut authorities, mut left_out) = (BTreeMap::new(), 0);
        for wire in keys {
            let has_room = authorities.len() < MAX_JWT_AUTHORITIES && !authorities.contains_key(&wire.key_id);
            match JwtAuthority::from_wire(wire).filter(|_| has_room) {
                Some(authority) => _ = authorities.insert(wire.key_id.clone(), authority),
                None => left_out += 1,
            }
        }
        let jwks = jwks(authorities.values(), None);
        Self { trust_domain: trust_domain.clone(), authorities, jwks, left_out }
    }

    /// Whose keys these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The key of this ID.
    pub fn find(&self, key_id: &str) -> Option<&JwtAuthority> {
        self.authorities.get(key_id)
    }

    /// The public key of these bytes, DER SubjectPublicKeyInfo, under whatever ID; of several the one that signs longest.
    pub fn find_spki(&self, spki_der: &[u8]) -> Option<&JwtAuthority> {
        let of_the_key = self.authorities.values().filter(|authority| authority.spki_der() == spki_der);
        of_the_key.max_by_key(|authority| authority.expires_at())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.authorities.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.authorities.is_empty()
    }

    /// How many keys of the bundle are not here: of a kind that signs no JWT-SVID, without a usable ID, or too many.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// As they are stored and sent.
    pub fn to_wire(&self) -> Vec<types::JwtKey> {
        self.authorities.values().map(|authority| authority.wire.clone()).collect()
    }

    /// The JWK Set that workloads get, JSON, as SPIRE writes it: without `use`, which verifiers that know no SPIFFE take for
    /// a reason not to use a key.
    pub fn jwks(&self) -> &Bytes {
        &self.jwks
    }

    /// As keys of WIT-SVIDs, as workloads get those. Source: WIT-SVID §6, SPIFFE Workload API §7.
    pub fn wit_jwks(&self) -> String {
        let json = jwks(self.authorities.values(), Some("wit-svid"));
        String::from_utf8_lossy(&json).into_owned()
    }
}

/// Source: RFC 7517 §5.
#[derive(Serialize)]
struct JwkSet<'a> {
    keys: Vec<Jwk<'a>>,
}

fn jwks<'a>(authorities: impl Iterator<Item = &'a JwtAuthority>, purpose: Option<&'static str>) -> Bytes {
    let keys = authorities.filter_map(|authority| authority.key.jwk(Some(authority.key_id()), purpose)).collect();
    let mut json = Vec::new();
    let mut writer = Serializer::with_formatter(&mut json, PrettyFormatter::with_indent(b"    "));
    JwkSet { keys }.serialize(&mut writer).expect("texts into memory");
    json.into()
}
