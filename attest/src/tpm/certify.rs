//! Certification: the AK's word that another key lives in the same chip.

use tss_esapi::handles::ObjectHandle;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::SignatureScheme;

use super::chip::Chip;
use super::error::TpmError;
use super::key_blob::KeyBlob;
use super::key_blob::marshal;
use super::quote::extra_data;
use super::signing_key::check_attestation;

impl Chip {
    /// Certifies `key`, a child of the storage root key, by `ak` with `qualifying_data` as extraData. Returns TPMS_ATTEST and
    /// TPMT_SIGNATURE. Source: Part 3 §18.2.
    pub fn certify(
        &mut self,
        key: &KeyBlob,
        ak: &KeyBlob,
        qualifying_data: &[u8; 32],
    ) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let kind = self.endorsement_kind()?;
        self.task(|tpm| {
            // Parents leave their slots as soon as their child is loaded: three slots is all there is.
            let loaded_ak = tpm.load_alone(kind, ak)?;
            let (root, loaded_key) = tpm.load_under_root(key)?;
            tpm.release(&root)?;

            let (object, extra) = (ObjectHandle::from(loaded_key.handle), extra_data(qualifying_data));
            let sessions = (Some(AuthSession::Password), Some(AuthSession::Password), None);
            let (attest, signature) = tpm.command("TPM2_Certify", sessions, |esys| {
                esys.certify(object, loaded_ak.handle, extra.clone(), SignatureScheme::Null)
            })?;
            let attest = marshal("TPM2_Certify", &attest)?;
            check_attestation("TPM2_Certify", ak, &attest, &signature)?;
            Ok((attest, marshal("TPM2_Certify", &signature)?))
        })
    }
}
