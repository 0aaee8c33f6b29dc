//! TPMs that are known by their endorsement key, as the agents of a plugin of SPIRE's show them (`tpm`).

use std::path::PathBuf;

use ironroot_api::csr::Csr;
use ironroot_attest::ek_certificate::ManufacturerRoots;
use ironroot_attest::node::tpm::{ATTESTATION_TYPE, Admission, Claim, Pending, TpmRefusal};
use ironroot_shell::logging::in_moderation;
use ironroot_text::hex::hex;
use tracing::warn;

use super::fresh::fresh;
use super::{AttestationError, AttestedNode, Fault, NodeAttestation, Progress, Proof};
use crate::facts::device::DeviceState;

/// The attestation type.
pub(super) const TYPE: &str = ATTESTATION_TYPE;
/// What the log says, in moderation: strangers show keys.
const NOT_SEEN: &str = "whether this endorsement key is listed cannot be seen: it counts as not listed";

/// Which endorsement keys count, besides those of devices in the registry.
#[derive(Debug)]
pub struct TpmPolicy {
    /// A directory with a file for each, named by its hash. Looked at for each attestation: whoever adds a file need not restart.
    pub hashes: Option<PathBuf>,
    /// Makers of chips; none if no certificate counts.
    pub makers: Option<ManufacturerRoots>,
}

/// What a TPM claims, and what is asked of it.
#[derive(Debug)]
pub struct Evidence<'a> {
    claim: Claim,
    policy: &'a TpmPolicy,
}

impl<'a> Evidence<'a> {
    pub(super) fn read(payload: &[u8], policy: &'a TpmPolicy) -> Result<Self, TpmRefusal> {
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

/// Whose fault it is: what cannot be read is the message's, the rest the node's.
pub(super) fn fault(refusal: &TpmRefusal) -> Fault {
    match refusal {
        TpmRefusal::Tpm(refusal) if refusal.is_of_the_message() => Fault::Message,
        TpmRefusal::Pem | TpmRefusal::NoKey | TpmRefusal::Tpm12 => Fault::Message,
        TpmRefusal::Unknown { .. } => Fault::Unknown,
        TpmRefusal::Tpm(_) | TpmRefusal::Key(_) | TpmRefusal::CreationData => Fault::Node,
    }
}

impl NodeAttestation {
    pub(super) async fn challenge_known_tpm(
        &self,
        Evidence { claim, policy }: Evidence<'_>,
        csr: Csr,
        now_unix: i64,
    ) -> Result<Progress, AttestationError> {
        let ek_sha256 = claim.ek_sha256();
        self.refuse_banned_device(&ek_sha256)?;
        let admitted = match (self.is_listed(&ek_sha256, policy).await, &policy.makers) {
            (true, _) => claim.admit(Admission::Known)?,
            (false, Some(roots)) => claim.admit(Admission::Manufacturer { roots, now_unix })?,
            (false, None) => return Err(TpmRefusal::Unknown { ek_sha256: hex(&ek_sha256), certificate: None }.into()),
        };
        let (pending, challenge) = admitted.challenge(fresh(), now_unix)?;
        let waiting = super::Challenge::Tpm(Box::new(Challenge { pending, csr }));
        Ok(Progress::Challenge(waiting, challenge.to_json()))
    }

    pub(super) fn judge_known_tpm(
        &self,
        Challenge { pending, csr }: Challenge,
        response: &[u8],
        now_unix: i64,
    ) -> Result<AttestedNode, AttestationError> {
        let attested = pending.complete(response, now_unix)?;
        Ok(AttestedNode {
            id: self.trust_domain.id_with_path(&attested.agent_path())?,
            attestation_type: TYPE.into(),
            selectors: attested.selectors(),
            can_reattest: true,
            csr,
            proof: Proof::Chip { ek_sha256: attested.ek_sha256(), certificate_sha256: None, other_ids: Vec::new() },
        })
    }

    /// Whether the device registry, or a file of that name, knows the key.
    async fn is_listed(&self, ek_sha256: &[u8; 32], policy: &TpmPolicy) -> bool {
        if self.devices.device(ek_sha256).is_some_and(|device| device.state == DeviceState::Enrolled) {
            return true;
        }
        let Some(directory) = &policy.hashes else { return false };
        let path = directory.join(hex(ek_sha256));
        tokio::fs::try_exists(&path).await.unwrap_or_else(|error| {
            if let Some(pass) = in_moderation(NOT_SEEN) {
                warn!(path = %path.display(), %error, suppressed = pass.suppressed, "{NOT_SEEN}");
            }
            false
        })
    }
}
