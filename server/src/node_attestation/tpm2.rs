//! TPM evidence: admission by the device registry, then challenge and answer.

use aws_lc_rs::rand;
use ironroot_api::csr::Csr;
use ironroot_attest::ek_certificate::ManufacturerRoots;
use ironroot_attest::node::tpm2::{
    ATTESTATION_TYPE, Admission, AdmittedEk, Claim, Expectation, PcrHash, PcrSelection, Pending,
};

use super::{AttestationError, AttestedNode, NodeAttestation, ProvenDevice};
use crate::devices::{AdmissionMode, DeviceDecision};
use ironroot_text::hex::hex;

/// What this server asks of a TPM.
#[derive(Debug)]
pub struct Tpm2Policy {
    /// Whose TPMs may attest.
    pub admission: NodeAdmission,
    /// The PCRs that must be quoted.
    pub pcrs: PcrSelection,
    /// The banks they may be quoted from, the one preferred first.
    pub pcr_banks: Vec<PcrHash>,
    /// Whether the agent's TLS key must have been made in the TPM.
    pub require_resident_key: bool,
}

/// Whose TPMs may attest.
#[derive(Debug)]
pub enum NodeAdmission {
    /// Those in the device registry.
    Enrolled,
    /// Those, and any whose endorsement key certificate chains to these manufacturers.
    Manufacturer(ManufacturerRoots),
    /// Those, once an operator has approved them; new ones wait in the registry.
    Approval,
}

impl NodeAdmission {
    fn mode(&self) -> AdmissionMode {
        match self {
            Self::Enrolled => AdmissionMode::EnrolledOnly,
            Self::Manufacturer(_) => AdmissionMode::ManufacturerRoots,
            Self::Approval => AdmissionMode::PendingApproval,
        }
    }
}

/// On whose word a device may prove its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sponsor {
    /// It is in the registry.
    Registry,
    /// Its manufacturer's certificate.
    Manufacturer,
    /// Nobody's yet: it proves its key, and then waits for an operator.
    Nobody,
}

/// An attestation that waits for the node's answer.
#[derive(Debug)]
pub struct Tpm2Challenge {
    pending: Pending,
    csr: Csr,
    sponsor: Sponsor,
}

impl NodeAttestation {
    pub(super) async fn tpm2_begin(
        &self,
        policy: &Tpm2Policy,
        claim: Claim,
        csr: Csr,
        now_unix: i64,
    ) -> Result<(Tpm2Challenge, Vec<u8>), AttestationError> {
        let ek_sha256 = claim.ek_sha256();
        let (ek, sponsor) = self.admit(policy, claim, now_unix)?;
        let expectation = Expectation {
            trust_domain: self.trust_domain.as_str().to_owned(),
            csr_spki_der: csr.spki().as_der().to_vec(),
            pcrs: policy.pcrs,
            pcr_banks: policy.pcr_banks.clone(),
            require_resident_key: policy.require_resident_key,
            last_seen: self.devices.last_clock(&ek_sha256),
        };
        let (pending, challenge) = ek.challenge(expectation, random(), random(), now_unix)?;
        Ok((Tpm2Challenge { pending, csr, sponsor }, challenge.to_json()))
    }

    /// A ban comes first, then enrolment; a manufacturer's word or an operator's pending decision only where configured.
    fn admit(
        &self,
        policy: &Tpm2Policy,
        claim: Claim,
        now_unix: i64,
    ) -> Result<(AdmittedEk, Sponsor), AttestationError> {
        let ek_sha256 = claim.ek_sha256();
        let by_registry = Admission::Enrolled { ek_sha256 };
        match (self.devices.decide(&ek_sha256, policy.admission.mode()), &policy.admission) {
            (DeviceDecision::Banned, _) => Err(AttestationError::Banned(format!("with device {}", hex(&ek_sha256)))),
            (DeviceDecision::Enrolled, _) => Ok((claim.admit(by_registry)?, Sponsor::Registry)),
            (DeviceDecision::AskManufacturer, NodeAdmission::Manufacturer(roots)) => {
                Ok((claim.admit(Admission::Manufacturer { roots, now_unix })?, Sponsor::Manufacturer))
            }
            // Only a key that was proven gets a row: rows for invented keys would cost a stranger nothing.
            (DeviceDecision::RecordPending, _) => Ok((claim.admit(by_registry)?, Sponsor::Nobody)),
            (DeviceDecision::AskManufacturer | DeviceDecision::Unknown, _) => {
                Err(AttestationError::NotEnrolled { ek_sha256: hex(&ek_sha256) })
            }
        }
    }

    pub(super) async fn tpm2_complete(
        &self,
        challenge: Tpm2Challenge,
        response: &[u8],
        now_unix: i64,
    ) -> Result<AttestedNode, AttestationError> {
        let attested = challenge.pending.complete(response, now_unix)?;
        let ek_sha256 = attested.ek_sha256();
        if challenge.sponsor == Sponsor::Nobody {
            self.devices.record_pending(ek_sha256, now_unix).await?;
            return Err(AttestationError::ApprovalPending { ek_sha256: hex(&ek_sha256) });
        }
        let id = self.trust_domain.id_with_path(&attested.agent_path())?;
        self.refuse_banned(&id)?;
        Ok(AttestedNode {
            id,
            attestation_type: ATTESTATION_TYPE,
            selectors: attested.selectors().clone(),
            can_reattest: true,
            csr: challenge.csr,
            device: Some(ProvenDevice {
                ek_sha256,
                clock: attested.clock(),
                may_be_new: challenge.sponsor == Sponsor::Manufacturer,
            }),
        })
    }
}

/// 32 bytes from the CSPRNG: a nonce or a secret, used once.
fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).expect("the kernel's random source does not fail once it has been seeded");
    bytes
}
