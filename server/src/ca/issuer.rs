//! The authorities that may sign: each its key in the token and its certificate.

use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_hsm::Urgency;

use super::ca_to_sign::CaToSign;
use super::journal::{Authority, Credential, KeyRecord, UpstreamChain, Verdict};
use super::lint::{self, LintError, Verifier};
use super::profile::{self, AuthorityFacts, Certifier, DownstreamCa, Leaf, Serial, SubjectKey};
use super::sampling::{Sampling, Scrutiny};
use super::{CaError, CaPolicy};
use crate::ca::CaSubject;
use crate::clock::Moment;
use crate::keys::{Key, KeyError};

/// A signed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedSvid {
    /// DER, leaf first, then the authority if it is not in the bundle, and what is between it and its root. What is in the bundle is not
    /// here.
    pub chain: Vec<Vec<u8>>,
    /// The leaf's serial number in decimal.
    pub serial: String,
    /// The leaf's end of life, UNIX seconds.
    pub not_after_unix: i64,
}

/// The CA certificate of a server below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCa {
    /// DER, the new CA first, then what is between it and a root.
    pub chain: Vec<Vec<u8>>,
    /// Its serial number in decimal.
    pub serial: String,
    /// Its end of life, UNIX seconds.
    pub not_after_unix: i64,
}

/// Certificates between an SVID and its root that verifiers take. Source: rustls-webpki, `MAX_SUB_CA_COUNT`.
pub const MAX_INTERMEDIATES: usize = 6;

/// What the token signs to show that it still does. No certificate, CSR or token of ours begins like this.
const PROBE: &[u8] = b"ironroot asks whether the token signs";

/// An authority with its key at hand.
pub(super) struct Issuer {
    key: Key,
    /// The authority's.
    credential: Credential,
    facts: AuthorityFacts,
    /// What follows the leaf in a chain.
    intermediates: Vec<Vec<u8>>,
    verifier: Verifier,
    sampling: Sampling,
}

impl Issuer {
    /// `key` is the one that `authority`, whose certificate this is, certifies.
    pub(super) fn new(key: Key, authority: &Authority, certificate: &Certificate) -> Result<Self, CaError> {
        let verifier = Verifier::of(&key)?;
        let facts = AuthorityFacts::of(certificate)?;
        let own = (!authority.is_anchor()).then(|| certificate.der().to_vec());
        let above = authority.upstream.iter().flat_map(UpstreamChain::ders);
        let intermediates = own.into_iter().chain(above).collect();
        let (credential, sampling) = (authority.credential.clone(), Sampling::default());
        Ok(Self { key, credential, facts, intermediates, verifier, sampling })
    }

    /// Whether it may sign.
    pub(super) fn is_valid(&self, now_unix: i64) -> bool {
        self.facts.check(now_unix).is_ok()
    }

    /// Why it may not sign now; none if it may.
    pub(super) fn trouble(&self, now_unix: i64) -> Option<CaError> {
        self.facts.check(now_unix).err().map(CaError::Profile)
    }

    /// Whether it is this authority.
    pub(super) fn is_of(&self, authority: &Authority) -> bool {
        self.credential == authority.credential
    }

    /// Its end, UNIX seconds.
    pub(super) fn not_after_unix(&self) -> i64 {
        self.facts.not_after()
    }

    /// Has the token sign what is no certificate, unless this key has signed something within this time.
    pub(super) async fn probe(&self, unless_within: Duration) -> Result<(), KeyError> {
        if self.key.signed_ago().is_some_and(|ago| ago < unless_within) {
            return Ok(());
        }
        self.key.sign_message(PROBE, Urgency::FIRST).await.map(drop)
    }

    /// Signs what is no certificate and begins like nothing else that is signed: the signature in the form of JWS, and the certificates that
    /// it is verified with, this authority's first.
    pub(super) async fn sign_statement(&self, statement: &[u8]) -> Result<(Vec<u8>, Vec<Vec<u8>>), CaError> {
        let signature = self.key.sign_message(statement, Urgency::FIRST).await?;
        let own = self.credential.certificate().filter(|_| self.intermediates.is_empty());
        let own = own.map(|certificate| certificate.der().to_vec());
        Ok((signature, own.into_iter().chain(self.intermediates.iter().cloned()).collect()))
    }

    /// Composes, signs and checks an X509-SVID.
    pub(super) async fn issue(
        &self,
        leaf: &Leaf,
        serial: Serial,
        scrutiny: Scrutiny,
        now_unix: i64,
    ) -> Result<IssuedSvid, CaError> {
        let tbs = profile::svid(leaf, &self.facts, serial, now_unix)?;
        // What lives shortest runs out first: SVIDs are renewed at half their life.
        let urgency = Urgency::by(now_unix.saturating_add(leaf.ttl_seconds / 2));
        let certificate = sign(&self.key, &tbs, urgency).await?;
        let verifier = self.sampling.is_verified(scrutiny).then_some(&self.verifier);
        let not_after_unix = lint::svid(&certificate, leaf, &self.facts, verifier).inspect_err(|error| {
            if matches!(error, LintError::Signature) {
                self.sampling.distrust();
            }
        })?;
        let chain = std::iter::once(certificate).chain(self.intermediates.iter().cloned()).collect();
        Ok(IssuedSvid { chain, serial: serial.decimal(), not_after_unix })
    }
}

impl Issuer {
    /// Certifies the key of a server below, as long as it asks for or `ca_ttl`, and no longer than this authority lives; verified before it leaves.
    pub(super) async fn certify_downstream(
        &self,
        CaToSign { spki, ttl_seconds, scope }: &CaToSign,
        policy: &CaPolicy,
        now_unix: i64,
    ) -> Result<IssuedCa, CaError> {
        self.facts.check(now_unix)?;
        let tier = tier_below(self.intermediates.len())?;
        let ttl_seconds = if *ttl_seconds == 0 { policy.ca_ttl_seconds } else { *ttl_seconds };
        let ca = DownstreamCa { spki: spki.clone(), ttl_seconds, tier, scope: *scope };
        let serial = Serial::random();
        let (subject, trust_domain) = (&policy.subject, &policy.trust_domain);
        let tbs = profile::downstream_authority(&ca, subject, trust_domain, &self.facts, serial, now_unix)?;
        let der = sign(&self.key, &tbs, Urgency::FIRST).await?;
        let verified = lint::signing_certificate(&der, trust_domain, spki.as_der(), Some(&self.facts), &self.verifier);
        let not_after_unix = verified?.not_after_unix();
        let chain = std::iter::once(der).chain(self.intermediates.iter().cloned()).collect();
        Ok(IssuedCa { chain, serial: serial.decimal(), not_after_unix })
    }
}

/// How many CAs are above one that is signed by a CA with so many certificates between its SVIDs and the root.
fn tier_below(intermediates: usize) -> Result<usize, CaError> {
    match intermediates < MAX_INTERMEDIATES {
        true => Ok(intermediates.max(1)),
        false => Err(CaError::TooManyTiers),
    }
}

/// A root with its key at hand.
pub(super) struct Root {
    key: Key,
    number: u64,
    facts: AuthorityFacts,
}

impl Root {
    /// `key` is the one that `root`, whose certificate this is, certifies.
    pub(super) fn new(key: Key, root: &Authority, certificate: &Certificate) -> Result<Self, CaError> {
        Ok(Self { key, number: root.key, facts: AuthorityFacts::of(certificate)? })
    }
}

/// A key that is to become an authority.
pub(super) struct Candidate {
    pub(super) key: Key,
    /// Its number in the journal.
    pub(super) number: u64,
    /// What the journal calls it.
    pub(super) record: KeyRecord,
}

/// Certifies a CA's key for the policy's lifetime from now on: by `root`, or by itself.
pub(super) async fn certify_ca(
    candidate: Candidate,
    root: Option<&Root>,
    policy: &CaPolicy,
    moment: Moment,
) -> Result<Authority, CaError> {
    sign_authority(candidate, root, &policy.subject, &policy.trust_domain, moment, policy.ca_ttl_seconds).await
}

/// Certifies a root's key with itself, for `ttl_seconds` from now on.
pub(super) async fn certify_root(
    candidate: Candidate,
    ttl_seconds: i64,
    policy: &CaPolicy,
    moment: Moment,
) -> Result<Authority, CaError> {
    let subject = profile::root_subject(&policy.subject, &policy.trust_domain);
    sign_authority(candidate, None, &subject, &policy.trust_domain, moment, ttl_seconds).await
}

/// Certifies a key with itself, until `not_after`; verified before it is returned.
pub(super) async fn certify_itself(
    key: &Key,
    subject: &CaSubject,
    trust_domain: &TrustDomain,
    now_unix: i64,
    not_after: i64,
) -> Result<Certificate, CaError> {
    let (serial, itself) = (Serial::random(), Certifier::Itself(key.kind()));
    let tbs = profile::authority(subject, trust_domain, key.into(), itself, serial, now_unix, not_after)?;
    let der = sign(key, &tbs, Urgency::FIRST).await?;
    Ok(lint::authority(&der, trust_domain, key, None)?)
}

/// Has a root, whose key and certificate these are, certify a CA of this name (DER) until `end`, and no longer than the root lives;
/// verified before it is returned.
pub(super) async fn certify_below(
    (root_key, root): (&Key, &AuthorityFacts),
    name: &[u8],
    trust_domain: &TrustDomain,
    key: SubjectKey<'_>,
    now_unix: i64,
    end: i64,
) -> Result<Certificate, CaError> {
    let (serial, above) = (Serial::random(), Certifier::Root(root));
    let tbs = profile::signing_certificate(name, trust_domain, key, above, serial, now_unix, end)?;
    let der = sign(root_key, &tbs, Urgency::FIRST).await?;
    Ok(lint::signing_certificate(&der, trust_domain, key.spki_der(), Some(root), &Verifier::of(root_key)?)?)
}

async fn sign_authority(
    candidate: Candidate,
    root: Option<&Root>,
    subject: &CaSubject,
    trust_domain: &TrustDomain,
    moment: Moment,
    ttl_seconds: i64,
) -> Result<Authority, CaError> {
    let Candidate { key, number, record } = candidate;
    let Moment { now_unix, counted: issued_counted, .. } = moment;
    let (facts, serial) = (root.map(|root| &root.facts), Serial::random());
    let not_after = now_unix.saturating_add(ttl_seconds);
    let certifier = facts.map_or(Certifier::Itself(key.kind()), Certifier::Root);
    let tbs = profile::authority(subject, trust_domain, (&key).into(), certifier, serial, now_unix, not_after)?;
    let der = sign(root.map_or(&key, |root| &root.key), &tbs, Urgency::FIRST).await?;
    let certificate = lint::authority(&der, trust_domain, &key, root.map(|root| (&root.key, &root.facts)))?;
    Ok(Authority {
        credential: certificate.into(),
        issued_at: now_unix,
        not_after: facts.map_or(not_after, |root| not_after.min(root.not_after())),
        issued_counted,
        key: number,
        in_token: record,
        root: root.map(|root| root.number),
        upstream: None,
        verdict: Verdict::None,
    })
}

async fn sign(key: &Key, tbs: &[u8], urgency: Urgency) -> Result<Vec<u8>, CaError> {
    let signature = key.sign_message(tbs, urgency).await?;
    Ok(profile::assemble(tbs, key.kind(), &key.kind().x509_signature(signature))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ca_is_signed_whose_svids_no_verifier_takes() {
        let tiers: Vec<_> = (0..MAX_INTERMEDIATES).map(|intermediates| tier_below(intermediates).unwrap()).collect();
        assert_eq!(tiers, [1, 1, 2, 3, 4, 5]);
        let refused = tier_below(MAX_INTERMEDIATES).unwrap_err();
        assert!(matches!(refused, CaError::TooManyTiers), "{refused}");
    }
}
