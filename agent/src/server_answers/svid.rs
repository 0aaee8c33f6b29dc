//! X509-SVIDs for this agent and its workloads.

use std::fmt;

use ironroot_api::SpiffeId;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::types;
use ironroot_api::tls::VerifiedSvid;
use rustls_pki_types::CertificateDer;
use webpki::KeyUsage;
use zeroize::Zeroizing;

use super::{AnswerRefusal, TrustBundle};
use crate::trusted_time::TrustedTime;

/// The agent's certificate chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSvid {
    /// The agent's ID.
    pub spiffe_id: SpiffeId,
    /// DER, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// DER SubjectPublicKeyInfo of the leaf.
    pub spki_der: Vec<u8>,
    /// UNIX seconds.
    pub not_before_unix: i64,
    /// UNIX seconds.
    pub not_after_unix: i64,
}

/// A workload's certificate chain and private key.
#[derive(Clone, PartialEq, Eq)]
pub struct WorkloadSvid {
    /// The workload's ID.
    pub spiffe_id: SpiffeId,
    /// DER, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
    /// UNIX seconds.
    pub not_before_unix: i64,
    /// UNIX seconds: the earliest end in the chain.
    pub not_after_unix: i64,
}

impl fmt::Debug for WorkloadSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadSvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("not_after_unix", &self.not_after_unix)
            .finish_non_exhaustive()
    }
}

/// Checks the certificate that attestation or renewal gave: ours is the key, an authority of the bundle signed it, it is
/// valid now, and it names an agent of the trust domain.
pub fn agent_svid(
    answer: &types::X509svid,
    spki_der: &[u8],
    bundle: &TrustBundle,
    time: &TrustedTime,
) -> Result<AgentSvid, AnswerRefusal> {
    let svid = restored_agent_svid(answer.cert_chain.iter().map(|der| &der[..]), bundle, time)?;
    if svid.spki_der != spki_der {
        return Err(AnswerRefusal::OtherKey);
    }
    expect_announced(answer.id.as_ref(), &svid.spiffe_id)?;
    Ok(svid)
}

/// Checks a stored chain of the agent, DER, leaf first. The caller finds the key that it names.
pub fn restored_agent_svid<'a>(
    chain: impl IntoIterator<Item = &'a [u8]>,
    bundle: &TrustBundle,
    time: &TrustedTime,
) -> Result<AgentSvid, AnswerRefusal> {
    let checked = CheckedChain::check(chain, bundle, time)?;
    let spiffe_id = checked.verified.spiffe_id().clone();
    if !spiffe_id.path().starts_with("/spire/agent/") {
        return Err(AnswerRefusal::NotAnAgent(spiffe_id.to_string()));
    }
    Ok(AgentSvid {
        spiffe_id,
        spki_der: checked.spki_der,
        not_before_unix: checked.not_before_unix,
        not_after_unix: checked.not_after_unix,
        chain: checked.chain,
    })
}

/// Checks a workload's certificate: `expected` is the entry's ID, `spki_der` and `key` the pair it was asked for.
pub fn workload_svid(
    answer: &types::X509svid,
    expected: &SpiffeId,
    spki_der: &[u8],
    key: &Zeroizing<Vec<u8>>,
    bundle: &TrustBundle,
    time: &TrustedTime,
) -> Result<WorkloadSvid, AnswerRefusal> {
    let chain = answer.cert_chain.iter().map(|der| &der[..]);
    expect_announced(answer.id.as_ref(), expected)?;
    let checked = CheckedChain::check(chain, bundle, time)?;
    if checked.spki_der != spki_der {
        return Err(AnswerRefusal::OtherKey);
    }
    expect_id(checked.verified.spiffe_id(), expected)?;
    Ok(WorkloadSvid {
        spiffe_id: expected.clone(),
        chain: checked.chain,
        key: key.clone(),
        not_before_unix: checked.not_before_unix,
        not_after_unix: checked.not_after_unix,
    })
}

/// Takes up an SVID and key that this agent checked before it stored them where nobody else can write. Whether it has
/// expired is asked whenever it is served.
pub fn restored_workload_svid<'a>(
    chain: impl IntoIterator<Item = &'a [u8]>,
    expected: &SpiffeId,
    key: Zeroizing<Vec<u8>>,
) -> Result<WorkloadSvid, AnswerRefusal> {
    let certificates = chain.into_iter().map(Certificate::parse).collect::<Result<Vec<_>, _>>()?;
    let leaf = certificates.first().ok_or(AnswerRefusal::Missing("certificate"))?;
    expect_id(&leaf.leaf_spiffe_id()?, expected)?;
    Ok(WorkloadSvid {
        spiffe_id: expected.clone(),
        key,
        not_before_unix: leaf.not_before_unix(),
        not_after_unix: certificates.iter().map(Certificate::not_after_unix).min().unwrap_or(0),
        chain: certificates.iter().map(|c| c.der().clone()).collect(),
    })
}

struct CheckedChain {
    chain: Vec<CertificateDer<'static>>,
    verified: VerifiedSvid,
    spki_der: Vec<u8>,
    not_before_unix: i64,
    not_after_unix: i64,
}

impl CheckedChain {
    fn check<'a>(
        chain: impl IntoIterator<Item = &'a [u8]>,
        bundle: &TrustBundle,
        time: &TrustedTime,
    ) -> Result<Self, AnswerRefusal> {
        let limit = ironroot_api::tls::MAX_CHAIN;
        let mut certificates = Vec::new();
        for der in chain {
            if certificates.len() == limit {
                return Err(AnswerRefusal::TooMany { what: "certificates", limit });
            }
            certificates.push(Certificate::parse(der)?);
        }
        let leaf = certificates.first().ok_or(AnswerRefusal::Missing("certificate"))?;
        let newest = certificates.iter().map(Certificate::not_before_unix).max().unwrap_or(0);
        let chain: Vec<_> = certificates.iter().map(|c| c.der().clone()).collect();
        let now = time.verification_time(newest);
        let verified = bundle.anchors().verify(&chain[0], &chain[1..], KeyUsage::client_auth(), now)?;
        time.witness(newest);
        Ok(Self {
            verified,
            spki_der: leaf.spki_der(),
            not_before_unix: leaf.not_before_unix(),
            not_after_unix: certificates.iter().map(Certificate::not_after_unix).min().unwrap_or(0),
            chain,
        })
    }
}

/// The ID beside the certificate, if the server sends one, must be the certificate's.
fn expect_announced(announced: Option<&types::Spiffeid>, expected: &SpiffeId) -> Result<(), AnswerRefusal> {
    let Some(announced) = announced else { return Ok(()) };
    expect_id(&SpiffeId::from_parts(&announced.trust_domain, &announced.path)?, expected)
}

fn expect_id(found: &SpiffeId, expected: &SpiffeId) -> Result<(), AnswerRefusal> {
    if found == expected {
        return Ok(());
    }
    Err(AnswerRefusal::OtherId { found: found.to_string(), expected: expected.to_string() })
}
