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
use crate::trusted_time::{Lifetime, Moment, Span, TrustedTime};

/// The agent's certificate chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSvid {
    /// The agent's ID.
    pub spiffe_id: SpiffeId,
    /// DER, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// DER SubjectPublicKeyInfo of the leaf.
    pub spki_der: Vec<u8>,
    /// How long the chain lasts.
    pub lifetime: Lifetime,
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
    /// How long the chain lasts.
    pub lifetime: Lifetime,
}

impl fmt::Debug for WorkloadSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadSvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// Checks the certificate that attestation or renewal gave: ours is the key, an authority of the bundle signed it, and it
/// names an agent of the trust domain. As the key was made for this request, the signature is fresh: `time` learns from it.
pub fn agent_svid(
    answer: &types::X509svid,
    spki_der: &[u8],
    bundle: &TrustBundle,
    time: &TrustedTime,
) -> Result<AgentSvid, AnswerRefusal> {
    let checked = CheckedChain::check(answer.cert_chain.iter().map(|der| &der[..]), bundle, &time.moment())?;
    if checked.spki_der != spki_der {
        return Err(AnswerRefusal::OtherKey);
    }
    expect_announced(answer.id.as_ref(), checked.verified.spiffe_id())?;
    checked.expect_agent()?;
    let lifetime = time.receive(checked.issued, checked.span);
    Ok(checked.agent_svid(lifetime))
}

/// Checks a stored chain of the agent, DER, leaf first, of which `left` seconds were left when it was stored, if that is
/// known. The caller finds the key that it names, and asks `lifetime` whether it has ended.
pub fn restored_agent_svid<'a>(
    chain: impl IntoIterator<Item = &'a [u8]>,
    left: Option<i64>,
    bundle: &TrustBundle,
    moment: &Moment,
) -> Result<AgentSvid, AnswerRefusal> {
    let checked = CheckedChain::check(chain, bundle, moment)?;
    checked.expect_agent()?;
    let lifetime = Lifetime::kept(checked.span, left);
    Ok(checked.agent_svid(lifetime))
}

/// Checks a workload's certificate: `expected` is the entry's ID, `spki_der` and `key` the pair it was asked for. As the key
/// was made for this request, the signature is fresh: `time` learns from it.
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
    let checked = CheckedChain::check(chain, bundle, &time.moment())?;
    if checked.spki_der != spki_der {
        return Err(AnswerRefusal::OtherKey);
    }
    expect_id(checked.verified.spiffe_id(), expected)?;
    let lifetime = time.receive(checked.issued, checked.span);
    Ok(WorkloadSvid { spiffe_id: expected.clone(), chain: checked.chain, key: key.clone(), lifetime })
}

/// Takes up an SVID and key that this agent checked before it stored them where nobody else can write, with the seconds that
/// were `left` then, if known. Whether it has ended is asked whenever it is served.
pub fn restored_workload_svid<'a>(
    chain: impl IntoIterator<Item = &'a [u8]>,
    expected: &SpiffeId,
    key: Zeroizing<Vec<u8>>,
    left: Option<i64>,
) -> Result<WorkloadSvid, AnswerRefusal> {
    let certificates = chain.into_iter().map(Certificate::parse).collect::<Result<Vec<_>, _>>()?;
    let leaf = certificates.first().ok_or(AnswerRefusal::Missing("certificate"))?;
    expect_id(&leaf.leaf_spiffe_id()?, expected)?;
    Ok(WorkloadSvid {
        spiffe_id: expected.clone(),
        key,
        lifetime: Lifetime::kept(span(&certificates), left),
        chain: certificates.iter().map(|c| c.der().clone()).collect(),
    })
}

struct CheckedChain {
    chain: Vec<CertificateDer<'static>>,
    verified: VerifiedSvid,
    spki_der: Vec<u8>,
    /// The leaf's notBefore.
    issued: i64,
    span: Span,
}

impl CheckedChain {
    /// Everything but the time, which is [`Lifetime`]'s: the chain is verified at the moment of its span nearest to now.
    fn check<'a>(
        chain: impl IntoIterator<Item = &'a [u8]>,
        bundle: &TrustBundle,
        moment: &Moment,
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
        let span = span(&certificates);
        let at = span.nearest(moment.estimate()).ok_or(AnswerRefusal::NeverValid)?;
        let chain: Vec<_> = certificates.iter().map(|c| c.der().clone()).collect();
        let verified = bundle.anchors().verify(&chain[0], &chain[1..], KeyUsage::client_auth(), at)?;
        Ok(Self { verified, spki_der: leaf.spki_der(), issued: leaf.not_before_unix(), span, chain })
    }

    fn expect_agent(&self) -> Result<(), AnswerRefusal> {
        let id = self.verified.spiffe_id();
        if id.path().starts_with("/spire/agent/") { Ok(()) } else { Err(AnswerRefusal::NotAnAgent(id.to_string())) }
    }

    fn agent_svid(self, lifetime: Lifetime) -> AgentSvid {
        let spiffe_id = self.verified.spiffe_id().clone();
        AgentSvid { spiffe_id, spki_der: self.spki_der, chain: self.chain, lifetime }
    }
}

/// When all certificates of a chain are valid.
pub fn span(certificates: &[Certificate]) -> Span {
    Span {
        not_before: certificates.iter().map(Certificate::not_before_unix).max().unwrap_or(0),
        not_after: certificates.iter().map(Certificate::not_after_unix).min().unwrap_or(0),
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
