//! The authority that signs now: its key in the token and its certificate.

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_api::certificate::Certificate;
use ironroot_hsm::{TokenKey, Urgency};

use super::journal::Authority;
use super::lint::{self, Verifier};
use super::profile::{self, AuthorityFacts, Leaf, Serial};
use super::{CaError, CaPolicy};

/// A signed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedSvid {
    /// DER, leaf first. The authority itself is in the bundle and not here.
    pub chain: Vec<Vec<u8>>,
    /// The leaf's serial number in decimal.
    pub serial: String,
    /// The leaf's end of life, UNIX seconds.
    pub not_after_unix: i64,
}

/// An authority with its key at hand.
pub(super) struct Issuer {
    key: TokenKey,
    facts: AuthorityFacts,
    verifier: Verifier,
}

impl Issuer {
    /// `key` is the one that `certificate` certifies.
    pub(super) fn new(key: TokenKey, certificate: &Certificate) -> Result<Self, CaError> {
        let verifier = Verifier::of(&key)?;
        Ok(Self { facts: AuthorityFacts::of(certificate)?, verifier, key })
    }

    /// Composes, signs and checks an X509-SVID.
    pub(super) async fn issue(&self, leaf: &Leaf, now_unix: i64) -> Result<IssuedSvid, CaError> {
        let serial = Serial::random();
        let tbs = profile::svid(leaf, &self.facts, serial, now_unix)?;
        // What lives shortest runs out first: SVIDs are renewed at half their life.
        let urgency = Urgency::by(now_unix.saturating_add(leaf.ttl_seconds / 2));
        let certificate = sign(&self.key, &tbs, urgency).await?;
        let not_after_unix = lint::svid(&certificate, leaf, &self.facts, &self.verifier)?;
        Ok(IssuedSvid { chain: vec![certificate], serial: serial.decimal(), not_after_unix })
    }
}

/// Certifies a new CA key with itself, for the policy's lifetime from now on.
pub(super) async fn certify(key: &TokenKey, policy: &CaPolicy, now_unix: i64) -> Result<Authority, CaError> {
    let not_after = now_unix.saturating_add(policy.ca_ttl_seconds);
    let (subject, spki) = (&policy.subject, key.spki_der());
    let tbs = profile::authority(subject, &policy.trust_domain, spki, Serial::random(), now_unix, not_after)?;
    let certificate = sign(key, &tbs, Urgency::FIRST).await?;
    lint::authority(&certificate, &policy.trust_domain, key)?;
    Ok(Authority { certificate, issued_at: now_unix, not_after })
}

async fn sign(key: &TokenKey, tbs: &[u8], urgency: Urgency) -> Result<Vec<u8>, CaError> {
    let hash: [u8; 32] = digest(&SHA256, tbs).as_ref().try_into().expect("SHA-256 has 32 bytes");
    let signature = key.sign_digest(hash, urgency).await?;
    Ok(profile::assemble(tbs, &signature.to_der())?)
}
