//! TPMs that are known by their endorsement key, as the agents of a plugin of SPIRE's show them (`tpm`).

use std::io;
use std::path::{Path, PathBuf};

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
const NOT_SEEN: &str = "whether this endorsement key is listed cannot be seen: its device is to come again";

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
        TpmRefusal::Unknown { certificate: None, .. } => Fault::Unknown,
        TpmRefusal::Unknown { certificate: Some(_), .. }
        | TpmRefusal::Tpm(_)
        | TpmRefusal::Key(_)
        | TpmRefusal::CreationData => Fault::Node,
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
        let listed = self.is_listed(&ek_sha256, policy).await;
        let vouched = match (&listed, &policy.makers) {
            (Ok(true), _) => claim.admit(Admission::Known),
            (_, Some(roots)) => claim.admit(Admission::Manufacturer { roots, now_unix }),
            (_, None) => Err(TpmRefusal::Unknown { ek_sha256: hex(&ek_sha256), certificate: None }),
        };
        // A maker's word is enough. Where nobody gives it and the list cannot be seen, nothing is certain.
        let admitted = vouched.map_err(|refusal| match (refusal, listed) {
            (TpmRefusal::Unknown { .. }, Err(unseen)) => unseen,
            (refusal, _) => refusal.into(),
        })?;
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
    async fn is_listed(&self, ek_sha256: &[u8; 32], policy: &TpmPolicy) -> Result<bool, AttestationError> {
        if self.devices.device(ek_sha256).is_some_and(|device| device.state == DeviceState::Enrolled) {
            return Ok(true);
        }
        let Some(directory) = &policy.hashes else { return Ok(false) };
        let path = directory.join(hex(ek_sha256));
        let seen = match tokio::fs::try_exists(&path).await {
            Ok(false) => require_list(directory).await.map(|()| false),
            seen => seen,
        };
        seen.map_err(|error| {
            if let Some(pass) = in_moderation(NOT_SEEN) {
                warn!(path = %path.display(), %error, suppressed = pass.suppressed, "{NOT_SEEN}");
            }
            AttestationError::ListUnread { ek_sha256: hex(ek_sha256) }
        })
    }
}

/// A list that is not there, such as one on a share that is not mounted, says nothing of any key. Where it is to be mounted is an empty
/// directory then.
async fn require_list(directory: &Path) -> io::Result<()> {
    match tokio::fs::read_dir(directory).await?.next_entry().await? {
        Some(_) => Ok(()),
        None => Err(io::Error::other("the directory of hash_path is empty, as one is whose mount is missing")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ironroot_api::TrustDomain;
    use ironroot_attest::ek_certificate::EkCertificateError;

    use super::*;
    use crate::registry::Registry;
    use crate::store::Store;

    #[tokio::test]
    async fn a_list_that_cannot_be_seen_is_the_servers_fault_and_makes_no_key_unknown() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let trust_domain = TrustDomain::new("td").expect("legal");
        let store = Store::open(&directory.path().join("datastore.sqlite3"), &trust_domain).expect("opens");
        let registry = Registry::load(store.clone()).await.expect("loads");
        let attestation = NodeAttestation::new(trust_domain, store, Arc::clone(registry.devices()), Vec::new());
        let (listed, file) = (directory.path().join(hex(&[1; 32])), directory.path().join("a file"));
        for path in [&listed, &file] {
            std::fs::write(path, "").expect("written");
        }
        let by = |hashes: &Path| TpmPolicy { hashes: Some(hashes.to_owned()), makers: None };
        let whole = by(directory.path());
        assert!(attestation.is_listed(&[1; 32], &whole).await.expect("seen"));
        assert!(!attestation.is_listed(&[2; 32], &whole).await.expect("seen"));
        let mount_point = directory.path().join("not mounted");
        std::fs::create_dir(&mount_point).expect("made");
        for elsewhere in [file, directory.path().join("not there"), mount_point] {
            let refused = attestation.is_listed(&[1; 32], &by(&elsewhere)).await.expect_err("there is no list");
            assert!(matches!(refused.fault(), Fault::Server), "{}", elsewhere.display());
        }
    }

    #[test]
    fn a_key_that_nobody_knows_is_told_from_one_whose_certificate_is_not_believed() {
        let unknown = |certificate| TpmRefusal::Unknown { ek_sha256: hex(&[1; 32]), certificate };
        assert!(matches!(fault(&unknown(None)), Fault::Unknown));
        let untrusted = EkCertificateError::Untrusted(webpki::Error::UnknownIssuer);
        assert!(matches!(fault(&unknown(Some(untrusted))), Fault::Node));
    }
}
