//! Certificates that devices were given, and possession of their keys, as SPIRE's `x509pop` asks for it.

use ironroot_api::csr::Csr;
use ironroot_attest::node::x509pop::{self, ATTESTATION_TYPE, Authorities, Pending, X509PopRefusal};

use super::fresh::fresh;
use super::{AttestationError, AttestedNode, Fault, NodeAttestation, Progress, Proof};

/// The attestation type.
pub(super) const TYPE: &str = ATTESTATION_TYPE;

/// What this server asks of a certificate.
#[derive(Debug)]
pub struct X509PopPolicy {
    /// Who must have issued it.
    pub authorities: Authorities,
}

/// The certificates as they were sent, and what is asked of them.
#[derive(Debug)]
pub struct Evidence<'a> {
    evidence: x509pop::Evidence,
    policy: &'a X509PopPolicy,
}

impl<'a> Evidence<'a> {
    pub(super) fn read(payload: &[u8], policy: &'a X509PopPolicy) -> Result<Self, X509PopRefusal> {
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
    csr: Csr,
}

/// Whose fault it is: what cannot be read is the message's, the rest the node's.
pub(super) fn fault(refusal: &X509PopRefusal) -> Fault {
    match refusal {
        X509PopRefusal::Message(_)
        | X509PopRefusal::NoCertificate
        | X509PopRefusal::TooManyCertificates(_)
        | X509PopRefusal::Malformed
        | X509PopRefusal::OtherFamily
        | X509PopRefusal::OtherChallenge => Fault::Message,
        X509PopRefusal::Untrusted(_)
        | X509PopRefusal::KeyUsage
        | X509PopRefusal::Key
        | X509PopRefusal::Late(_)
        | X509PopRefusal::Signature => Fault::Node,
    }
}

impl NodeAttestation {
    pub(super) fn challenge_certificate(
        &self,
        Evidence { evidence, policy }: Evidence<'_>,
        csr: Csr,
        now_unix: i64,
    ) -> Result<Progress, AttestationError> {
        let (pending, challenge) = evidence.verify(&policy.authorities, now_unix)?.challenge(fresh(), now_unix);
        let waiting = super::Challenge::X509Pop(Box::new(Challenge { pending, csr }));
        Ok(Progress::Challenge(waiting, challenge.to_json()))
    }

    pub(super) fn judge_certificate(
        &self,
        Challenge { pending, csr }: Challenge,
        response: &[u8],
        now_unix: i64,
    ) -> Result<AttestedNode, AttestationError> {
        let attested = pending.complete(response, now_unix)?;
        Ok(AttestedNode {
            id: self.trust_domain.id_with_path(&attested.agent_path())?,
            attestation_type: TYPE,
            selectors: attested.selectors().clone(),
            can_reattest: true,
            csr,
            proof: Proof::Certificate { sha256: attested.certificate_sha256() },
        })
    }
}
