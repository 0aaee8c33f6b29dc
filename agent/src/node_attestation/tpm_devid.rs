//! `NodeAttestor "tpm_devid"`: a certificate for a key in the device's TPM, in files as SPIRE's agent has them.

mod files;

use std::path::PathBuf;

use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm_devid::{ATTESTATION_TYPE, Challenge, Evidence, Response};
use ironroot_attest::tpm::{Chip, DevIdKey, EndorsementKey, KeyBlob, Tpm, TpmError};
use thiserror::Error;
use tracing::info;

use super::kept_key;
use crate::agent_key::KeyError;
use files::DevId;
pub(super) use files::read;
pub use files::{DevIdFileError, DevIdFiles};

/// The attestation type.
pub(super) const TYPE: &str = ATTESTATION_TYPE;

/// Why the device's DevID did not attest.
#[derive(Debug, Error)]
pub enum TpmDevIdFailure {
    /// One of its files cannot be used.
    #[error(transparent)]
    File(#[from] DevIdFileError),
    /// The chip did not do its part.
    #[error("the TPM could not {0}")]
    Chip(&'static str, #[source] TpmError),
    /// Neither SPIRE's server nor ours takes a chip that no maker vouches for.
    #[error("the TPM holds no certificate for its endorsement key, without which no server takes a DevID")]
    NoEndorsementCertificate,
    /// The attestation key could not be kept.
    #[error("the attestation key could not be kept")]
    Key(#[from] KeyError),
    /// The server's challenge does not parse.
    #[error("the server's challenge is unusable")]
    Challenge(#[source] Refusal),
}

impl TpmDevIdFailure {
    /// Whether the chip does not take a key: it is of another chip, of before this one was cleared, or damaged.
    fn is_about_a_key(&self) -> bool {
        let Self::Chip(_, error) = self else { return false };
        matches!(
            error,
            TpmError::ForeignKey(_) | TpmError::ForeignParent | TpmError::Refused(_) | TpmError::Argument(_)
        )
    }
}

/// The chip, and the directory where its attestation key is kept.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) tpm: Tpm,
    pub(super) directory: PathBuf,
}

/// Proves that this device has its DevID key, in its chip.
pub(super) struct Prover {
    device: Device,
    devid: DevIdKey,
    attestation_key: KeyBlob,
    evidence: Vec<u8>,
}

impl DevIdFiles {
    /// Reads the files and has the chip say that the key is in it.
    pub(super) async fn prover(&self, device: Device) -> Result<Prover, TpmDevIdFailure> {
        let files = self.clone();
        let devid = kept_key::blocking(move || files.load()).await?;
        // Before an attestation key is made in vain.
        let (what, key) = ("load its DevID key", devid.key.clone());
        let taken = device.tpm.run(what, move |chip| chip.takes_devid(&key)).await;
        taken.map_err(|error| TpmDevIdFailure::Chip(what, error))?;
        let what = "read its endorsement key";
        let read = device.tpm.run(what, Chip::endorsement_key).await;
        let endorsement_key = read.map_err(|error| TpmDevIdFailure::Chip(what, error))?;
        device.prove(devid, endorsement_key).await
    }
}

impl Device {
    /// An attestation key that is kept is used again; one that the chip does not take any more is made anew, once.
    async fn prove(&self, devid: DevId, endorsement_key: EndorsementKey) -> Result<Prover, TpmDevIdFailure> {
        if let Some(kept) = kept_key::read::<KeyBlob>(&self.directory, &endorsement_key.name).await {
            match self.certify(&devid, &endorsement_key, kept).await {
                Err(error) if error.is_about_a_key() => {
                    info!("the chip does not take the attestation key that was kept: another is made");
                }
                outcome => return outcome,
            }
        }
        let what = "make an attestation key";
        let made = self.tpm.run(what, Chip::create_rsa_attestation_key).await;
        let made = made.map_err(|error| TpmDevIdFailure::Chip(what, error))?;
        let prover = self.certify(&devid, &endorsement_key, made.clone()).await?;
        kept_key::write(&self.directory, &made).await;
        Ok(prover)
    }

    async fn certify(
        &self,
        devid: &DevId,
        endorsement_key: &EndorsementKey,
        attestation_key: KeyBlob,
    ) -> Result<Prover, TpmDevIdFailure> {
        let ek_certificate = endorsement_key.certificates.first().cloned();
        let ek_certificate = Some(ek_certificate.ok_or(TpmDevIdFailure::NoEndorsementCertificate)?);
        let (what, ak, key) = ("certify the DevID key", attestation_key.clone(), devid.key.clone());
        let certified = self.tpm.run(what, move |chip| chip.certify_devid(&key, &ak)).await;
        let (certify, certify_signature) = certified.map_err(|error| TpmDevIdFailure::Chip(what, error))?;
        let evidence = Evidence {
            devid_certificates: devid.certificates.clone(),
            devid_public: devid.key.public().to_vec(),
            ek_certificate,
            ek_public: endorsement_key.public.clone(),
            ak_public: attestation_key.public.clone(),
            certify,
            certify_signature,
        };
        let (device, devid) = (self.clone(), devid.key.clone());
        Ok(Prover { device, devid, attestation_key, evidence: evidence.to_json() })
    }
}

impl Prover {
    /// The first message.
    pub(super) fn evidence(&self) -> Vec<u8> {
        self.evidence.clone()
    }

    /// The answer to a challenge.
    pub(super) async fn respond(&self, challenge: &[u8]) -> Result<Vec<u8>, TpmDevIdFailure> {
        let Challenge { nonce, credential, secret } =
            Challenge::from_json(challenge).map_err(TpmDevIdFailure::Challenge)?;
        let devid = self.devid.clone();
        let signature =
            self.ask("sign with the DevID key", move |chip, _| chip.sign_with_devid(&devid, &nonce)).await?;
        let secret = self
            .ask("activate the credential", move |chip, ak| chip.activate_credential(ak, &credential, &secret))
            .await?;
        Ok(Response { signature, secret: secret.to_vec() }.to_json())
    }

    /// What is to be noted once the conversation has failed: a key that the chip did not take is made anew the next time.
    pub(super) async fn settle(&self, failure: &TpmDevIdFailure) {
        if failure.is_about_a_key() {
            kept_key::forget::<KeyBlob>(&self.device.directory).await;
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&mut Chip, &KeyBlob) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmDevIdFailure> {
        let ak = self.attestation_key.clone();
        let answer = self.device.tpm.run(what, move |chip| job(chip, &ak)).await;
        answer.map_err(|error| TpmDevIdFailure::Chip(what, error))
    }
}
