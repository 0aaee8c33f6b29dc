//! Making and loading keys.

use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{CreateKeyResult, Name, Public, SensitiveData};
use tss_esapi::tss2_esys::TPMS_CREATION_DATA;

use super::connection::Connection;
use super::error::TpmError;
use super::hierarchy::KeyHierarchy;
use super::key_blob::KeyBlob;
use super::loaded::Loaded;

impl Connection {
    /// TPM2_CreatePrimary. The same template always gives the same key until the hierarchy is cleared.
    pub fn create_primary(&mut self, hierarchy: KeyHierarchy, template: &Public) -> Result<Loaded, TpmError> {
        let made = self.authorized_by(hierarchy, |tpm, session| {
            tpm.command("TPM2_CreatePrimary", (Some(session), None, None), |esys| {
                esys.create_primary(hierarchy.esys(), template.clone(), None, None, None, None)
            })
        })?;
        self.loaded(made.key_handle, made.out_public)
    }

    /// TPM2_Create: a new child of `parent`, wrapped by it.
    pub fn create(
        &mut self,
        parent: &Loaded,
        session: AuthSession,
        template: &Public,
        secret: Option<&SensitiveData>,
    ) -> Result<KeyBlob, TpmError> {
        let made = self.command("TPM2_Create", (Some(session), None, None), |esys| {
            esys.create(parent.handle, template.clone(), None, secret.cloned(), None, None)
        })?;
        child(parent, made)
    }

    /// TPM2_Load: `blob` into a slot.
    pub fn load(&mut self, parent: &Loaded, session: AuthSession, blob: &KeyBlob) -> Result<Loaded, TpmError> {
        let (public, private) = (blob.esys_public()?, blob.esys_private()?);
        let handle = self.command("TPM2_Load", (Some(session), None, None), |esys| {
            esys.load(parent.handle, private.clone(), public.clone())
        })?;
        self.loaded(handle, public)
    }
}

/// What TPM2_Create made, if it was made under `parent`. Of a persistent parent the library tells the chip the name that the bus has told, so
/// that the command's HMAC says nothing of which key it is; what the chip answers in a session that is salted to that key does.
pub fn child(parent: &Loaded, made: CreateKeyResult) -> Result<KeyBlob, TpmError> {
    let told = Name::try_from(TPMS_CREATION_DATA::from(made.creation_data).parentName);
    if told.map_err(|e| TpmError::of("TPM2_Create", e))?.value() != parent.name {
        return Err(TpmError::Malformed { command: "TPM2_Create", reason: "what was made has another parent" });
    }
    KeyBlob::new(&made.out_public, &made.out_private, parent.name.clone())
}
