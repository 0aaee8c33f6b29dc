//! TPM evidence: admission by the device registry, then challenge and answer.

mod files;

use files::FileList;
use ironroot_api::csr::Csr;
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::{
    ATTESTATION_TYPE, AttestedTpm, Claim, EventLogPolicy, Expectation, ImaQuote, ImaState, PcrHash, PcrSelection,
    Pending,
};
use ironroot_attest::weak_chips::WeaknessList;
use thiserror::Error;

use super::fresh::fresh;
use super::weak_firmware::{JudgedChip, WeakFirmware};
use super::{AttestationError, AttestedNode, BootPolicy, Fault, NodeAttestation, Progress, Proof};
use crate::devices::{AdmissionPolicy, Admitted, ContradictedChip, NotAdmitted, ProvenDevice};
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
    /// What is wanted of the log of what a device has booted.
    pub event_log: EventLogPolicy,
    /// What is wanted of the list of files that it has measured since.
    pub ima_log: EventLogPolicy,
    /// Whether what it has booted must meet a policy.
    pub boot_policy: BootPolicy,
    /// What becomes of chips with known faults.
    pub weak_firmware: WeakFirmware,
    /// The faults that are known.
    pub known_weaknesses: WeaknessList,
    /// Whether the agent's TLS key must have been made in the TPM.
    pub require_resident_key: bool,
}

/// Why a TPM is refused.
#[derive(Debug, Error)]
pub enum Tpm2Refusal {
    /// The evidence does not prove it.
    #[error("TPM evidence refused: {0}")]
    Evidence(#[from] Refusal),
    /// It has proven its key, and its counters or clock went back: it speaks for a copy.
    #[error("TPM evidence refused: {refusal}")]
    Contradiction {
        /// The chip.
        chip: ContradictedChip,
        /// What went back.
        refusal: Refusal,
    },
    /// Its key may not attest here.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// What it has booted meets no policy that is about it, and the server demands that.
    #[error(
        "device {ek_sha256} has booted what no policy allows: ironroot-server device show {ek_sha256} says what changed"
    )]
    BootPolicy {
        /// SHA-256 of the endorsement key, hex.
        ek_sha256: String,
        /// What it has proven.
        device: Box<ProvenDevice>,
    },
    /// Its chip has a known fault, and the server takes no such chips.
    #[error(
        "device {ek_sha256} has a chip with a known fault: {faults}; update the chip's firmware, or see weak_firmware of NodeAttestor \"tpm2\""
    )]
    WeakChip {
        /// SHA-256 of the endorsement key, hex.
        ek_sha256: String,
        /// Names of the faults.
        faults: String,
        /// What it has proven.
        device: Box<ProvenDevice>,
    },
    /// The device waits for an operator.
    #[error("device {ek_sha256} waits for approval: ironroot-server device approve {ek_sha256}")]
    ApprovalPending {
        /// SHA-256 of the endorsement key, hex.
        ek_sha256: String,
        /// What it has proven.
        chip: Box<AttestedTpm>,
    },
}

impl Tpm2Refusal {
    /// Why the answer to the challenge of that key is refused.
    fn of_answer(ek_sha256: [u8; 32], refusal: Refusal) -> Self {
        match ContradictedChip::of(ek_sha256, &refusal) {
            Some(chip) => Self::Contradiction { chip, refusal },
            None => Self::Evidence(refusal),
        }
    }

    pub(super) fn fault(self) -> Fault {
        match self {
            Self::NotAdmitted(NotAdmitted::Banned { .. }) => Fault::Banned,
            Self::NotAdmitted(NotAdmitted::NotEnrolled { .. })
            | Self::Evidence(Refusal::NotEnrolled)
            | Self::ApprovalPending { .. } => Fault::Unknown,
            Self::Evidence(_)
            | Self::Contradiction { .. }
            | Self::NotAdmitted(NotAdmitted::Evidence(_))
            | Self::BootPolicy { .. }
            | Self::WeakChip { .. } => Fault::Node,
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
    asked: Asked,
    terms: Terms,
}

/// What a node was asked for last.
#[derive(Debug)]
enum Asked {
    /// To prove its key, and what it has booted.
    Proof(Box<Pending>),
    /// For more of its list of files; the rest is proven.
    Files(Box<ProvenChip>, Box<FileList>),
}

/// What an attestation is held against.
#[derive(Debug)]
struct Terms {
    /// SHA-256 of the endorsement key that it is for.
    ek_sha256: [u8; 32],
    boot_policy: BootPolicy,
    ima_log: EventLogPolicy,
    weak_firmware: WeakFirmware,
    known_weaknesses: WeaknessList,
    csr: Csr,
}

/// A chip that has proven itself, and is no stranger's.
#[derive(Debug)]
struct ProvenChip {
    attested: AttestedTpm,
    device: ProvenDevice,
    judged: JudgedChip,
}

impl NodeAttestation {
    pub(super) fn challenge_tpm(
        &self,
        Evidence { claim, policy }: Evidence<'_>,
        csr: Csr,
        now_unix: i64,
    ) -> Result<Progress, AttestationError> {
        let ek_sha256 = claim.ek_sha256();
        let admitted = self.devices.admit(claim, &policy.admission, now_unix).map_err(Tpm2Refusal::from)?;
        let Admitted { ek, last_clock } = admitted;
        let expectation = Expectation {
            trust_domain: self.trust_domain.as_str().to_owned(),
            csr_spki_der: csr.spki().as_der().to_vec(),
            pcrs: policy.pcrs,
            pcr_banks: policy.pcr_banks.clone(),
            event_log: policy.event_log,
            ima_log: policy.ima_log,
            require_resident_key: policy.require_resident_key,
            last_seen: last_clock,
        };
        let challenged = ek.challenge(expectation, fresh(), fresh(), now_unix).map_err(Tpm2Refusal::from);
        let (pending, challenge) = challenged?;
        let terms = Terms {
            ek_sha256,
            boot_policy: policy.boot_policy,
            ima_log: policy.ima_log,
            weak_firmware: policy.weak_firmware,
            known_weaknesses: policy.known_weaknesses.clone(),
            csr,
        };
        let waiting = Challenge { asked: Asked::Proof(Box::new(pending)), terms };
        Ok(Progress::Challenge(super::Challenge::Tpm2(Box::new(waiting)), challenge.to_json()))
    }

    /// Judges what the node answered.
    pub(super) fn judge_tpm(
        &self,
        Challenge { asked, terms }: Challenge,
        response: &[u8],
        now_unix: i64,
    ) -> Result<Progress, AttestationError> {
        match asked {
            Asked::Proof(pending) => {
                let attested = pending.complete(response, now_unix);
                let attested = attested.map_err(|refusal| Tpm2Refusal::of_answer(terms.ek_sha256, refusal))?;
                self.judge_proof(attested, terms)
            }
            Asked::Files(chip, files) => self.judge_files(*chip, *files, terms, response),
        }
    }

    /// A key that nobody vouches for may wait once it was proven: rows for invented keys would cost a stranger nothing.
    fn judge_proof(&self, attested: AttestedTpm, terms: Terms) -> Result<Progress, AttestationError> {
        let Some(device) = ProvenDevice::of(&attested) else {
            let (ek_sha256, chip) = (hex(&terms.ek_sha256), Box::new(attested));
            return Err(Tpm2Refusal::ApprovalPending { ek_sha256, chip }.into());
        };
        let registered = self.devices.device(&terms.ek_sha256).map(|device| device.manufacturer.clone());
        let judged = JudgedChip::of(&attested, &registered.unwrap_or_default(), &terms.known_weaknesses);
        //= TPM-40 TPM 2.0 Part 2, TPMS_ATTEST: "banned by maker and firmware"
        if let Some(faults) = judged.faults().filter(|_| terms.weak_firmware == WeakFirmware::Refuse) {
            let (ek_sha256, device) = (hex(&terms.ek_sha256), Box::new(device));
            return Err(Tpm2Refusal::WeakChip { ek_sha256, faults, device }.into());
        }
        match attested.ima() {
            ImaState::Quoted(quote) => {
                let files = self.files(&attested, ImaQuote::clone(quote));
                self.go_on(ProvenChip { attested, device, judged }, files, terms)
            }
            ImaState::NotAsked => self.conclude(ProvenChip { attested, device, judged }, terms),
            ImaState::NotSent => {
                let missing = "the device sent no list of the files that it measured (IMA)".to_owned();
                let device = device.with_files(Err(missing));
                self.conclude(ProvenChip { attested, device, judged }, terms)
            }
        }
    }

    fn files(&self, attested: &AttestedTpm, quote: ImaQuote) -> FileList {
        FileList::new(quote, attested.boot_id(), self.devices.ima_task(&attested.ek_sha256()))
    }

    fn judge_files(
        &self,
        chip: ProvenChip,
        mut files: FileList,
        terms: Terms,
        response: &[u8],
    ) -> Result<Progress, AttestationError> {
        let Err(error) = files.take(response) else { return self.go_on(chip, files, terms) };
        let counts_as_none = match terms.ima_log {
            EventLogPolicy::Ignored | EventLogPolicy::Lenient => true,
            EventLogPolicy::Verified => error.may_be_honest(),
            EventLogPolicy::Required => false,
        };
        if !counts_as_none {
            return Err(Tpm2Refusal::Evidence(Refusal::Ima(error)).into());
        }
        let missing = format!("the list of measured files (IMA) does not count: {error}");
        self.conclude(ProvenChip { device: chip.device.with_files(Err(missing)), ..chip }, terms)
    }

    /// Asks for more of the list, until it leads to the quoted register.
    fn go_on(&self, chip: ProvenChip, files: FileList, terms: Terms) -> Result<Progress, AttestationError> {
        if files.is_proven() {
            return self.conclude(ProvenChip { device: chip.device.with_files(files.facts()), ..chip }, terms);
        }
        let request = files.request().to_json();
        let waiting = Challenge { asked: Asked::Files(Box::new(chip), Box::new(files)), terms };
        Ok(Progress::Challenge(super::Challenge::Tpm2(Box::new(waiting)), request))
    }

    fn conclude(&self, chip: ProvenChip, terms: Terms) -> Result<Progress, AttestationError> {
        let ProvenChip { attested, device, judged } = chip;
        if terms.boot_policy == BootPolicy::Enforce && !self.devices.meets_any(&terms.ek_sha256, device.boot()) {
            let (ek_sha256, device) = (hex(&terms.ek_sha256), Box::new(device));
            return Err(Tpm2Refusal::BootPolicy { ek_sha256, device }.into());
        }
        Ok(Progress::Attested(Box::new(AttestedNode {
            id: self.trust_domain.id_with_path(&attested.agent_path())?,
            attestation_type: TYPE.into(),
            selectors: judged.with(attested.selectors()),
            can_reattest: true,
            csr: terms.csr,
            proof: Proof::Tpm(device),
        })))
    }
}
