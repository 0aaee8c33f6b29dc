//! DevID keys in TPMs, certified by an authority of the operator's, as SPIRE's `tpm_devid` asks for them.

use ironroot_api::csr::Csr;
use ironroot_attest::ek_certificate::ManufacturerRoots;
use ironroot_attest::node::tpm_devid::{ATTESTATION_TYPE, Claim, Pending, TpmDevIdRefusal};
use ironroot_attest::node::x509pop::Authorities;

use super::fresh::fresh;
use super::{AttestationError, AttestedNode, Fault, NodeAttestation, Progress, Proof};

/// The attestation type.
pub(super) const TYPE: &str = ATTESTATION_TYPE;

/// What this server asks of a DevID.
#[derive(Debug)]
pub struct TpmDevIdPolicy {
    /// Who must have issued its certificate.
    pub authorities: Authorities,
    /// Who must have made the chip that it is in.
    pub makers: ManufacturerRoots,
}

/// What a device claims, and what is asked of it.
#[derive(Debug)]
pub struct Evidence<'a> {
    claim: Claim,
    policy: &'a TpmDevIdPolicy,
}

impl<'a> Evidence<'a> {
    pub(super) fn read(payload: &[u8], policy: &'a TpmDevIdPolicy) -> Result<Self, TpmDevIdRefusal> {
        Ok(Self { claim: Claim::parse(payload)?, policy })
    }

    pub(super) fn device(&self) -> [u8; 32] {
        self.claim.ek_sha256()
    }

    pub(super) fn certificate_sha256(&self) -> [u8; 32] {
        self.claim.certificate_sha256()
    }
}

/// An attestation that waits for the node's answer.
#[derive(Debug)]
pub struct Challenge {
    pending: Pending,
    csr: Csr,
}

/// Whose fault it is: what cannot be read is the message's, the rest the node's.
pub(super) fn fault(refusal: &TpmDevIdRefusal) -> Fault {
    match refusal {
        TpmDevIdRefusal::Tpm(refusal) if refusal.is_of_the_message() => Fault::Message,
        TpmDevIdRefusal::NoCertificate | TpmDevIdRefusal::TooManyCertificates(_) | TpmDevIdRefusal::Malformed => {
            Fault::Message
        }
        TpmDevIdRefusal::Tpm(_)
        | TpmDevIdRefusal::KeyUsage
        | TpmDevIdRefusal::CertifiedKey(_)
        | TpmDevIdRefusal::Untrusted(_)
        | TpmDevIdRefusal::CertificateOfAnotherKey
        | TpmDevIdRefusal::NotADevIdKey { .. }
        | TpmDevIdRefusal::OtherHash
        | TpmDevIdRefusal::Possession => Fault::Node,
    }
}

impl NodeAttestation {
    pub(super) fn challenge_devid(
        &self,
        Evidence { claim, policy }: Evidence<'_>,
        csr: Csr,
        now_unix: i64,
    ) -> Result<Progress, AttestationError> {
        self.refuse_banned_device(&claim.ek_sha256())?;
        let verified = claim.verify(&policy.authorities, &policy.makers, now_unix)?;
        let (pending, challenge) = verified.challenge(fresh(), fresh(), now_unix)?;
        let waiting = super::Challenge::TpmDevId(Box::new(Challenge { pending, csr }));
        Ok(Progress::Challenge(waiting, challenge.to_json()))
    }

    pub(super) fn judge_devid(
        &self,
        Challenge { pending, csr }: Challenge,
        response: &[u8],
        now_unix: i64,
    ) -> Result<AttestedNode, AttestationError> {
        let attested = pending.complete(response, now_unix)?;
        let other_ids = attested.other_agent_paths().into_iter().map(|path| self.trust_domain.id_with_path(&path));
        let other_ids = other_ids.collect::<Result<_, _>>()?;
        Ok(AttestedNode {
            id: self.trust_domain.id_with_path(&attested.agent_path())?,
            attestation_type: TYPE.into(),
            selectors: attested.selectors().clone(),
            can_reattest: true,
            csr,
            proof: Proof::Chip {
                ek_sha256: attested.ek_sha256(),
                certificate_sha256: Some(attested.certificate_sha256()),
                other_ids,
            },
        })
    }
}
