//! The attestation key: signs what the TPM says about itself.

use tss_esapi::structures::Public;

use super::chip::Chip;
use super::error::TpmError;
use super::key_blob::KeyBlob;
use super::templates;

impl Chip {
    /// Makes an attestation key: P-256, restricted, a child of the EK in the endorsement hierarchy. That its
    /// qualifiedSigner names the EK is what proves its clock and counters honest: attestations of a key in the owner
    /// hierarchy are disguised (Part 1 §36.7).
    pub fn create_attestation_key(&mut self) -> Result<KeyBlob, TpmError> {
        self.create_ak(&templates::attestation_key()?)
    }

    /// The same of RSA with 2048 bits.
    pub fn create_rsa_attestation_key(&mut self) -> Result<KeyBlob, TpmError> {
        self.create_ak(&templates::rsa_attestation_key()?)
    }

    fn create_ak(&mut self, template: &Public) -> Result<KeyBlob, TpmError> {
        let kind = self.endorsement_kind()?;
        self.task(|tpm| {
            let ek = tpm.endorsement(kind)?;
            let session = tpm.endorsement_session(&ek, kind)?;
            tpm.create(&ek, session, template, None)
        })
    }
}
