//! Certificates that devices were given, and possession of their keys, as SPIRE's `x509pop` asks for it.

mod agent_fields;
mod refusal;

use std::borrow::Cow;
use std::sync::Arc;

use ironroot_api::TrustDomain;
use ironroot_api::csr::Csr;
use ironroot_api::tls::TrustAnchors;
use ironroot_attest::node::x509pop::{self, ATTESTATION_TYPE, Authorities, Pending, SizeLimits};

use rustls_pki_types::CertificateDer;
use webpki::KeyUsage;

use super::agent_path::AgentPathTemplate;
use super::fresh::fresh;
use super::proof::renamed;
use super::{AttestationError, AttestedNode, Circumstances, NodeAttestation, Progress, Proof};
use crate::rights::NoRight;
pub use agent_fields::X509POP_FIELDS;
pub use refusal::X509PopServerRefusal;

/// The attestation type.
pub(super) const TYPE: &str = ATTESTATION_TYPE;

/// What this server asks of a certificate.
#[derive(Debug)]
pub struct X509PopPolicy {
    /// Who must have issued it.
    pub issuers: Issuers,
    /// What is looked at at all.
    pub limits: SizeLimits,
    /// What the agent is called.
    pub agent_path: AgentPathTemplate,
    /// Whether the certificate must name the address that the device comes from.
    pub verify_client_ip: bool,
}

/// Whose certificates devices attest with: SPIRE's two modes.
#[derive(Debug)]
pub enum Issuers {
    /// Those of authorities that the operator names: `external_pki`.
    Named(Authorities),
    /// X509-SVIDs of this trust domain whose path begins so: `spiffe`.
    TrustDomain {
        /// Begins and ends with a slash.
        prefix: String,
    },
}

/// The certificates as they were sent, and what is asked of them.
#[derive(Debug)]
pub struct Evidence<'a> {
    evidence: x509pop::Evidence,
    policy: &'a Arc<X509PopPolicy>,
}

impl<'a> Evidence<'a> {
    pub(super) fn read(payload: &[u8], policy: &'a Arc<X509PopPolicy>) -> Result<Self, X509PopServerRefusal> {
        Ok(Self { evidence: x509pop::Evidence::from_json(payload)?, policy })
    }

    pub(super) fn certificate_sha256(&self) -> Option<[u8; 32]> {
        self.evidence.certificate_sha256()
    }
}

/// An attestation that waits for the node's answer.
#[derive(Debug)]
pub struct Challenge {
    pending: Pending,
    policy: Arc<X509PopPolicy>,
    exchanged: Option<Exchanged>,
    csr: Csr,
}

impl Challenge {
    /// As [`super::Challenge::wait_for`].
    pub(super) fn wait_for(&mut self, seconds: i64) {
        self.pending.wait_for(seconds);
    }
}

/// What is used of an SVID that is exchanged: of the one that was verified, and nothing else.
#[derive(Debug)]
struct Exchanged {
    /// Behind the prefix.
    path: String,
    /// Decimal.
    serial: String,
}

impl NodeAttestation {
    pub(super) fn challenge_certificate(
        &self,
        Evidence { evidence, policy }: Evidence<'_>,
        csr: Csr,
        at: &Circumstances<'_>,
    ) -> Result<Progress, X509PopServerRefusal> {
        let authorities = policy.issuers.authorities(at.own_authorities)?;
        let verified = evidence.verify(&authorities, &policy.limits, at.now_unix)?;
        let exchanged = policy.issuers.exchanged(evidence.certificates(), &self.trust_domain, at)?;
        if policy.verify_client_ip {
            let address = at.address.ok_or(X509PopServerRefusal::NoAddress)?;
            verified.is_for(address).then_some(()).ok_or(X509PopServerRefusal::Address(address))?;
        }
        let (pending, challenge) = verified.challenge(fresh(), at.now_unix);
        let waiting = Challenge { pending, policy: policy.clone(), exchanged, csr };
        Ok(Progress::Challenge(super::Challenge::X509Pop(Box::new(waiting)), challenge.to_json()))
    }

    pub(super) fn judge_certificate(
        &self,
        Challenge { pending, policy, exchanged, csr }: Challenge,
        response: &[u8],
        now_unix: i64,
    ) -> Result<AttestedNode, AttestationError> {
        let attested = pending.complete(response, now_unix).map_err(X509PopServerRefusal::from)?;
        let certificate = attested.certificate();
        let exchanged_path = exchanged.as_ref().map_or("", |svid| &svid.path);
        let value = |name: &str| agent_fields::value(name, certificate, &self.trust_domain, exchanged_path);
        let path = policy.agent_path.render(&value).map_err(X509PopServerRefusal::from)?;
        let id = self.trust_domain.id_with_path(&format!("/spire/agent{path}"))?;
        let other_ids = renamed(&id, &certificate.fingerprint(), &certificate.other_fingerprints());
        Ok(AttestedNode {
            id,
            attestation_type: TYPE.into(),
            selectors: attested.selectors(self.trust_domain.as_str()),
            can_reattest: true,
            csr,
            proof: match (attested.certificate_sha256(), exchanged) {
                (sha256, Some(Exchanged { serial, .. })) => Proof::Svid { sha256, serial },
                (sha256, None) => Proof::Certificate { sha256, other_ids },
            },
        })
    }
}

impl Issuers {
    /// In mode `spiffe` those that verify this trust domain's SVIDs now; what is tainted vouches for no new agent.
    fn authorities(&self, own: &[Vec<u8>]) -> Result<Cow<'_, Authorities>, X509PopServerRefusal> {
        match self {
            Self::Named(authorities) => Ok(Cow::Borrowed(authorities)),
            Self::TrustDomain { .. } => Ok(Cow::Owned(Authorities::from_der(own)?)),
        }
    }

    /// The SVID that is exchanged, if a CA of this data store's servers has signed it for clients, and no agent that is banned has fetched it:
    /// all CAs of the trust domain lead to the same bundle. Nothing where certificates are none.
    //= FLT-S26 server faults: "what was fetched through it gives no rights at the server any more"
    fn exchanged(
        &self,
        certificates: &[Vec<u8>],
        trust_domain: &TrustDomain,
        at: &Circumstances<'_>,
    ) -> Result<Option<Exchanged>, X509PopServerRefusal> {
        let (Self::TrustDomain { prefix }, Some((leaf, above))) = (self, certificates.split_first()) else {
            return Ok(None);
        };
        let der = |bytes: &Vec<u8>| CertificateDer::from(bytes.clone());
        let authorities: Vec<_> = at.own_authorities.iter().map(der).collect();
        let refused = X509PopServerRefusal::NoSvid;
        let anchors = TrustAnchors::new(trust_domain.clone(), &authorities).map_err(|why| refused(why.into()))?;
        let above: Vec<_> = above.iter().map(der).collect();
        let svid = anchors.verify(&der(leaf), &above, KeyUsage::client_auth(), at.now_unix).map_err(refused)?;
        let own = at.provenance.judge(&svid).map_err(|why| match why {
            NoRight::ThroughBannedAgent => X509PopServerRefusal::ThroughBannedAgent,
            _ => X509PopServerRefusal::SignedElsewhere,
        })?;
        let (id, serial) = (own.svid().spiffe_id().clone(), own.svid().serial().to_owned());
        match id.path().strip_prefix(prefix.as_str()).map(str::to_owned) {
            Some(path) => Ok(Some(Exchanged { path, serial })),
            None => Err(X509PopServerRefusal::Prefix { id, prefix: prefix.clone() }),
        }
    }
}

#[cfg(test)]
mod tests;
