//! X509-SVIDs for this agent and its workloads.

use std::fmt;

use ironroot_api::SpiffeId;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::types;
use ironroot_api::tls::{MAX_CHAIN, TrustAnchors, VerifiedSvid};
use rustls_pki_types::CertificateDer;
use webpki::KeyUsage;

use super::{AnswerRefusal, DerList, TrustBundle, Wit};
use crate::agent_key::{SoftwareKey, WorkloadKey};
use crate::trusted_time::{Lifetime, Moment, Span, TrustedTime};

/// The agent's certificate chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSvid {
    /// The ID in its leaf: below `/spire/agent/`.
    pub spiffe_id: SpiffeId,
    /// DER, leaf first, without the root.
    pub chain: DerList,
    /// DER SubjectPublicKeyInfo of the leaf.
    pub spki_der: Vec<u8>,
    /// How long the chain lasts.
    pub lifetime: Lifetime,
}

/// A workload's certificate chain and private key, which belong together: nobody looks again.
#[derive(Clone, PartialEq, Eq)]
pub struct WorkloadSvid {
    spiffe_id: SpiffeId,
    chain: DerList,
    key: WorkloadKey,
    lifetime: Lifetime,
    wit: Option<Wit>,
}

impl WorkloadSvid {
    /// The ID in the leaf, which is the one that the entry asked for.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// Leaf first, without the root.
    pub fn chain(&self) -> &DerList {
        &self.chain
    }

    /// The leaf's private key.
    pub fn key(&self) -> &WorkloadKey {
        &self.key
    }

    /// How long the chain lasts.
    pub fn lifetime(&self) -> &Lifetime {
        &self.lifetime
    }

    /// The WIT-SVID for the same key, if there is one.
    pub fn wit(&self) -> Option<&Wit> {
        self.wit.as_ref()
    }

    /// The same with that WIT-SVID.
    pub fn with_wit(self, wit: Option<Wit>) -> Self {
        Self { wit, ..self }
    }

    /// What lasts shortest of it: both are replaced together.
    pub fn shortest(&self, moment: &Moment) -> &Lifetime {
        let wit = self.wit.as_ref().map(Wit::lifetime);
        wit.filter(|wit| moment.remaining(wit) < moment.remaining(&self.lifetime)).unwrap_or(&self.lifetime)
    }

    /// Whether an authority of `anchors` signed it. Its time is judged elsewhere.
    pub(crate) fn is_signed_by(&self, anchors: &TrustAnchors, moment: &Moment) -> bool {
        is_signed_by(&self.chain, &self.lifetime, anchors, moment)
    }

    #[cfg(test)]
    pub(crate) fn unchecked(spiffe_id: SpiffeId, lifetime: Lifetime) -> Self {
        let key = WorkloadKey::new(zeroize::Zeroizing::new(vec![1]));
        Self { spiffe_id, chain: DerList::of([]), key, lifetime, wit: None }
    }
}

impl AgentSvid {
    #[cfg(test)]
    pub(crate) fn unchecked(lifetime: Lifetime) -> Self {
        let spiffe_id = SpiffeId::parse("spiffe://td/spire/agent/x").expect("legal");
        Self { spiffe_id, chain: DerList::of([]), spki_der: Vec::new(), lifetime }
    }

    /// Whether an authority of `anchors` signed it. Its time is judged elsewhere.
    pub(crate) fn is_signed_by(&self, anchors: &TrustAnchors, moment: &Moment) -> bool {
        is_signed_by(&self.chain, &self.lifetime, anchors, moment)
    }
}

impl fmt::Debug for WorkloadSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadSvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

pub(super) fn is_signed_by(chain: &DerList, lifetime: &Lifetime, anchors: &TrustAnchors, moment: &Moment) -> bool {
    let at = lifetime.span().nearest(moment.estimate());
    at.is_some_and(|at| chain.leads_to(anchors, at))
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
    checked.expect_key(spki_der)?;
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

/// Checks a workload's certificate: `expected` is the entry's ID, `key` the one it was asked for. As the key was made for this
/// request, the signature is fresh: `time` learns from it.
pub fn workload_svid(
    answer: &types::X509svid,
    expected: &SpiffeId,
    key: &SoftwareKey,
    bundle: &TrustBundle,
    time: &TrustedTime,
) -> Result<WorkloadSvid, AnswerRefusal> {
    let chain = answer.cert_chain.iter().map(|der| &der[..]);
    expect_announced(answer.id.as_ref(), expected)?;
    let checked = CheckedChain::check(chain, bundle, &time.moment())?;
    checked.expect_key(key.spki_der())?;
    expect_id(checked.verified.spiffe_id(), expected)?;
    let lifetime = time.receive(checked.issued, checked.span);
    let (spiffe_id, chain, key) = (expected.clone(), checked.list(), key.pkcs8().clone());
    Ok(WorkloadSvid { spiffe_id, chain, key, lifetime, wit: None })
}

/// Checks a certificate for a key of a workload's own: `expected` is the entry's ID, `spki_der` the key's. It says nothing of the time: the
/// key may be an old one. What has ended as far as `moment` can know is refused.
pub fn chain_for_key(
    answer: &types::X509svid,
    expected: &SpiffeId,
    spki_der: &[u8],
    bundle: &TrustBundle,
    moment: &Moment,
) -> Result<DerList, AnswerRefusal> {
    expect_announced(answer.id.as_ref(), expected)?;
    let checked = CheckedChain::check(answer.cert_chain.iter().map(|der| &der[..]), bundle, moment)?;
    checked.expect_key(spki_der)?;
    expect_id(checked.verified.spiffe_id(), expected)?;
    if moment.is_placed() && checked.span.not_after < moment.estimate() {
        return Err(AnswerRefusal::Ended(checked.span));
    }
    Ok(checked.list())
}

/// Checks a workload's certificate that this agent has just signed with its own CA, as if a server had sent it. It says nothing of the
/// time. `now_unix`: when it was signed.
pub fn own_workload_svid<'a>(
    chain: impl IntoIterator<Item = &'a [u8]>,
    expected: &SpiffeId,
    key: &SoftwareKey,
    bundle: &TrustBundle,
    time: &TrustedTime,
    now_unix: i64,
) -> Result<WorkloadSvid, AnswerRefusal> {
    let checked = CheckedChain::check(chain, bundle, &time.moment())?;
    checked.expect_key(key.spki_der())?;
    expect_id(checked.verified.spiffe_id(), expected)?;
    let lifetime = time.count(now_unix, checked.span);
    let (spiffe_id, chain, key) = (expected.clone(), checked.list(), key.pkcs8().clone());
    Ok(WorkloadSvid { spiffe_id, chain, key, lifetime, wit: None })
}

/// Takes up an SVID and key that this agent checked before it stored them where nobody else can write, with the seconds that
/// were `left` then, if known: still for `expected`, and still a pair. Whether it has ended is asked whenever it is served.
pub fn restored_workload_svid<'a>(
    chain: impl IntoIterator<Item = &'a [u8]>,
    expected: &SpiffeId,
    key: WorkloadKey,
    left: Option<i64>,
) -> Result<WorkloadSvid, AnswerRefusal> {
    let certificates = chain.into_iter().map(Certificate::parse).collect::<Result<Vec<_>, _>>()?;
    let leaf = certificates.first().ok_or(AnswerRefusal::Missing("certificate"))?;
    expect_id(&leaf.leaf_spiffe_id()?, expected)?;
    if key.spki_der().ok_or(AnswerRefusal::Key)? != leaf.spki_der() {
        return Err(AnswerRefusal::OtherKey);
    }
    let lifetime = Lifetime::kept(span(&certificates), left);
    Ok(WorkloadSvid { spiffe_id: expected.clone(), key, lifetime, chain: DerList::of(&certificates), wit: None })
}

/// A chain of which each certificate was decoded once, and which leads to the bundle.
pub(super) struct CheckedChain {
    pub(super) certificates: Vec<Certificate>,
    verified: VerifiedSvid,
    spki_der: Vec<u8>,
    /// The leaf's notBefore.
    issued: i64,
    pub(super) span: Span,
}

impl CheckedChain {
    /// Everything but the time, which is [`Lifetime`]'s: the chain is verified at the moment of its span nearest to now.
    pub(super) fn check<'a>(
        chain: impl IntoIterator<Item = &'a [u8]>,
        bundle: &TrustBundle,
        moment: &Moment,
    ) -> Result<Self, AnswerRefusal> {
        let mut certificates = Vec::new();
        for der in chain {
            if certificates.len() == MAX_CHAIN {
                return Err(AnswerRefusal::TooMany { what: "certificates", limit: MAX_CHAIN });
            }
            certificates.push(Certificate::parse(der)?);
        }
        let leaf = certificates.first().ok_or(AnswerRefusal::Missing("certificate"))?;
        let span = span(&certificates);
        let at = span.nearest(moment.estimate()).ok_or(AnswerRefusal::NeverValid)?;
        let intermediates: Vec<CertificateDer<'_>> = certificates[1..].iter().map(|c| c.der().clone()).collect();
        let verified = bundle.anchors().verify_parsed(leaf, &intermediates, KeyUsage::client_auth(), at)?;
        Ok(Self { verified, spki_der: leaf.spki_der(), issued: leaf.not_before_unix(), span, certificates })
    }

    fn expect_key(&self, spki_der: &[u8]) -> Result<(), AnswerRefusal> {
        //= FLT-A25 agent faults: "each is verified and bounded"
        if self.spki_der == spki_der { Ok(()) } else { Err(AnswerRefusal::OtherKey) }
    }

    fn expect_agent(&self) -> Result<(), AnswerRefusal> {
        let id = self.verified.spiffe_id();
        if id.names_an_agent() { Ok(()) } else { Err(AnswerRefusal::NotAnAgent(id.to_string())) }
    }

    pub(super) fn list(&self) -> DerList {
        DerList::of(&self.certificates)
    }

    fn agent_svid(self, lifetime: Lifetime) -> AgentSvid {
        let (spiffe_id, chain) = (self.verified.spiffe_id().clone(), self.list());
        AgentSvid { spiffe_id, spki_der: self.spki_der, chain, lifetime }
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
