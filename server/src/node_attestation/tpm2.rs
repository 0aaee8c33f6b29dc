//! TPM evidence: admission by the device registry, then challenge and answer.

use ironroot_api::csr::Csr;
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::{ATTESTATION_TYPE, Claim, ClockReading, Expectation, PcrHash, PcrSelection, Pending};
use thiserror::Error;

use super::fresh::fresh;
use super::{AttestationError, AttestedNode, Fault, NodeAttestation, Progress};
use crate::devices::{AdmissionPolicy, Admitted, NotAdmitted, ProvenDevice};
use ironroot_text::hex::hex;

/// What the wire and the agents' IDs call this way to attest.
pub(super) const TYPE: &str = ATTESTATION_TYPE;

/// What this server asks of a TPM.
#[derive(Debug)]
pub struct Tpm2Policy {
    /// Whose TPMs may attest.
    pub admission: AdmissionPolicy,
    /// The PCRs that must be quoted.
    pub pcrs: PcrSelection,
    /// The banks they may be quoted from, the one preferred first.
    pub pcr_banks: Vec<PcrHash>,
    /// Whether the agent's TLS key must have been made in the TPM.
    pub require_resident_key: bool,
}

/// Why a TPM is refused.
#[derive(Debug, Error)]
pub enum Tpm2Refusal {
    /// The evidence does not prove it.
    #[error("TPM evidence refused: {0}")]
    Evidence(#[from] Refusal),
    /// Its key may not attest here.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// The device waits for an operator.
    #[error("device {ek_sha256} waits for approval: ironroot-server device approve {ek_sha256}")]
    ApprovalPending {
        /// SHA-256 of the endorsement key, hex.
        ek_sha256: String,
    },
}

impl Tpm2Refusal {
    /// What a chip said that was proven and whose counters or clock went back.
    pub fn contradicting_clock(&self) -> Option<ClockReading> {
        match self {
            Self::Evidence(refusal) => refusal.contradicting_clock(),
            Self::NotAdmitted(_) | Self::ApprovalPending { .. } => None,
        }
    }

    pub(super) fn fault(self) -> Fault {
        match self {
            Self::NotAdmitted(NotAdmitted::Banned { .. }) => Fault::Banned,
            Self::Evidence(_) | Self::NotAdmitted(_) | Self::ApprovalPending { .. } => Fault::Node,
        }
    }
}

/// What a TPM claims, and what is asked of it.
#[derive(Debug)]
pub struct Evidence<'a> {
    claim: Claim,
    policy: &'a Tpm2Policy,
}

impl<'a> Evidence<'a> {
    pub(super) fn read(payload: &[u8], policy: &'a Tpm2Policy) -> Result<Self, Tpm2Refusal> {
        Ok(Self { claim: Claim::parse(payload)?, policy })
    }

    pub(super) fn device(&self) -> [u8; 32] {
        self.claim.ek_sha256()
    }
}

/// An attestation that waits for the node's answer.
#[derive(Debug)]
pub struct Challenge {
    pending: Pending,
    csr: Csr,
}

impl NodeAttestation {
    pub(super) fn challenge_tpm(
        &self,
        Evidence { claim, policy }: Evidence<'_>,
        csr: Csr,
        now_unix: i64,
    ) -> Result<Progress, AttestationError> {
        let admitted = self.devices.admit(claim, &policy.admission, now_unix).map_err(Tpm2Refusal::from)?;
        let Admitted { ek, last_clock } = admitted;
        let expectation = Expectation {
            trust_domain: self.trust_domain.as_str().to_owned(),
            csr_spki_der: csr.spki().as_der().to_vec(),
            pcrs: policy.pcrs,
            pcr_banks: policy.pcr_banks.clone(),
            require_resident_key: policy.require_resident_key,
            last_seen: last_clock,
        };
        let challenged = ek.challenge(expectation, fresh(), fresh(), now_unix).map_err(Tpm2Refusal::from);
        let (pending, challenge) = challenged?;
        let waiting = super::Challenge::Tpm2(Box::new(Challenge { pending, csr }));
        Ok(Progress::Challenge(waiting, challenge.to_json()))
    }

    /// A key that nobody vouches for gets a row once it was proven: rows for invented keys would cost a stranger nothing.
    pub(super) async fn judge_tpm(
        &self,
        Challenge { pending, csr }: Challenge,
        response: &[u8],
        now_unix: i64,
    ) -> Result<AttestedNode, AttestationError> {
        let attested = pending.complete(response, now_unix).map_err(Tpm2Refusal::from)?;
        let Some(device) = ProvenDevice::of(&attested) else {
            self.devices.record_pending(&attested, now_unix).await?;
            return Err(Tpm2Refusal::ApprovalPending { ek_sha256: hex(&attested.ek_sha256()) }.into());
        };
        Ok(AttestedNode {
            id: self.trust_domain.id_with_path(&attested.agent_path())?,
            attestation_type: TYPE,
            selectors: attested.selectors().clone(),
            can_reattest: true,
            csr,
            device: Some(device),
        })
    }
}
