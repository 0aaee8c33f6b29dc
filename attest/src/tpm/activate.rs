//! Credential activation: the proof that EK and AK live in one chip.

use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{EncryptedSecret, IdObject};
use zeroize::Zeroizing;

use super::chip::Chip;
use super::ek::Endorsed;
use super::error::TpmError;
use super::key_blob::KeyBlob;

impl Chip {
    /// Recovers the secret that was encrypted to this chip's EK and the name of `ak`.
    ///
    /// `credential`: TPMS_ID_OBJECT, `secret`: content of TPM2B_ENCRYPTED_SECRET, both without outer size. A credential
    /// for another AK or another EK is [`ForeignKey`](TpmError::ForeignKey) (TPM_RC_INTEGRITY) or
    /// [`Refused`](TpmError::Refused). Source: Part 3 §12.5.
    pub fn activate_credential(
        &mut self,
        ak: &KeyBlob,
        credential: &[u8],
        secret: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let credential =
            IdObject::try_from(credential).map_err(|_| TpmError::Argument("the credential is too long"))?;
        let secret =
            EncryptedSecret::try_from(secret).map_err(|_| TpmError::Argument("the encrypted secret is too long"))?;
        let kind = self.endorsement_kind()?;
        self.task(|tpm| {
            let Endorsed { kind, ek, session, child } = tpm.load_under_endorsement(kind, ak)?;
            tpm.renew_endorsement_policy(session, kind)?;
            let sessions = (Some(AuthSession::Password), Some(session), None);
            let activated = tpm.command("TPM2_ActivateCredential", sessions, |esys| {
                esys.activate_credential(child.handle, ek.handle, credential.clone(), secret.clone())
            })?;
            Ok(Zeroizing::new(activated.value().to_vec()))
        })
    }
}
