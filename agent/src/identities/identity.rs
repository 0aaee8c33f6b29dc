//! One X509-SVID with its key and the terms of its entry.

use std::fmt;

use ironroot_api::certificate::Certificate;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_attest::SelectorSet;
use prost::bytes::Bytes;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::IdentitiesError;

/// A workload's private key, PKCS#8 DER. Clones share the bytes, which are wiped when the last one goes.
#[derive(Clone)]
pub struct WorkloadKey(Bytes);

impl WorkloadKey {
    /// Takes over the key's bytes.
    pub fn new(pkcs8_der: Zeroizing<Vec<u8>>) -> Self {
        Self(Bytes::from_owner(pkcs8_der))
    }

    /// The PKCS#8 DER, to be handed to its workload and nobody else.
    pub fn pkcs8_der(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkloadKey(..)")
    }
}

/// What an [`Identity`] is made of, unchecked.
#[derive(Debug)]
pub struct IdentityParts<'a> {
    /// The registration entry's ID.
    pub entry_id: String,
    /// The entry's SPIFFE ID.
    pub spiffe_id: SpiffeId,
    /// The selectors a workload must have.
    pub selectors: SelectorSet,
    /// The entry's hint, or empty.
    pub hint: String,
    /// When the entry was created, UNIX seconds.
    pub created_at: i64,
    /// Trust domains whose bundles the workload gets too.
    pub federates_with: Vec<TrustDomain>,
    /// The certificate chain, leaf first, without the root.
    pub chain: &'a [CertificateDer<'a>],
    /// The leaf's private key.
    pub key: WorkloadKey,
}

/// An identity that can be served: its key fits its certificate, its certificate its entry.
#[derive(Debug)]
pub struct Identity {
    entry_id: String,
    spiffe_id: SpiffeId,
    selectors: SelectorSet,
    hint: String,
    created_at: i64,
    federates_with: Vec<TrustDomain>,
    chain_der: Bytes,
    key: WorkloadKey,
    not_before_unix: i64,
    not_after_unix: i64,
}

impl Identity {
    /// Checks that leaf, key and entry belong together. Whether the chain leads to the bundle is the caller's to check.
    pub fn try_new(parts: IdentityParts<'_>) -> Result<Self, IdentitiesError> {
        let IdentityParts { entry_id, spiffe_id, selectors, hint, created_at, federates_with, chain, key } = parts;
        let bad = |source| IdentitiesError::Certificate { entry_id: entry_id.clone(), source };
        let certificates: Result<Vec<_>, _> = chain.iter().map(|der| Certificate::parse(der)).collect();
        let certificates = certificates.map_err(bad)?;
        let leaf = certificates.first().ok_or_else(|| IdentitiesError::NoCertificate(entry_id.clone()))?;
        let found = leaf.leaf_spiffe_id().map_err(bad)?;
        if found != spiffe_id {
            return Err(IdentitiesError::OtherId { entry_id, found: found.to_string() });
        }
        match public_key(&key) {
            None => return Err(IdentitiesError::Key(entry_id)),
            Some(spki) if spki != leaf.spki_der() => return Err(IdentitiesError::KeyMismatch(entry_id)),
            Some(_) => {}
        }
        let (not_before_unix, not_after_unix) = (leaf.not_before_unix(), leaf.not_after_unix());
        let chain_der = chain.iter().flat_map(|der| der.iter().copied()).collect();
        Ok(Self {
            entry_id,
            spiffe_id,
            selectors,
            hint,
            created_at,
            federates_with,
            chain_der,
            key,
            not_before_unix,
            not_after_unix,
        })
    }

    /// The registration entry's ID.
    pub fn entry_id(&self) -> &str {
        &self.entry_id
    }

    /// The SPIFFE ID, the same in entry and certificate.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The selectors a workload must have.
    pub fn selectors(&self) -> &SelectorSet {
        &self.selectors
    }

    /// The entry's hint, or empty.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// When the entry was created, UNIX seconds.
    pub fn created_at(&self) -> i64 {
        self.created_at
    }

    /// Trust domains whose bundles the workload gets too.
    pub fn federates_with(&self) -> &[TrustDomain] {
        &self.federates_with
    }

    /// The certificate chain, DER laid end to end, leaf first.
    pub fn chain_der(&self) -> &Bytes {
        &self.chain_der
    }

    /// The leaf's private key.
    pub fn key(&self) -> &WorkloadKey {
        &self.key
    }

    /// The leaf's notBefore, UNIX seconds.
    pub fn not_before_unix(&self) -> i64 {
        self.not_before_unix
    }

    /// The leaf's notAfter, UNIX seconds.
    pub fn not_after_unix(&self) -> i64 {
        self.not_after_unix
    }
}

/// The DER SubjectPublicKeyInfo of a private key; `None` if it is not PKCS#8 of a kind we know.
fn public_key(key: &WorkloadKey) -> Option<Vec<u8>> {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&key.0[..]));
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).ok()?;
    signer.public_key().map(|spki| spki.to_vec())
}
