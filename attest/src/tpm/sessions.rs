//! Loaded objects and the sessions that authorise and protect their use.
//!
//! Sessions are salted to a key whose name is known, so that what is encrypted in them stays secret on the bus. The TSS
//! library's own convenience sessions are not: they "encrypt" without any secret.

use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{AuthHandle, KeyHandle, ObjectHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Digest, Nonce, Public, SensitiveData, SymmetricDefinition};

use super::connection::{Connection, EMPTY_PASSWORD, NO_SESSION};
use super::{KeyBlob, TpmError};

/// An object in one of the TPM's slots.
pub struct Loaded {
    pub handle: KeyHandle,
    pub public: Public,
    /// Its Name (Part 1 §16): algorithm and digest of the public area, as the library computed it from `public`.
    pub name: Vec<u8>,
}

/// Which parameters of a command are encrypted in a session.
#[derive(Clone, Copy)]
pub enum Encrypted {
    /// What we send.
    Command,
    /// What the TPM answers.
    Response,
    /// Both.
    Both,
}

impl Connection {
    /// TPM2_CreatePrimary. The same template always gives the same key until the hierarchy is cleared.
    pub fn create_primary(&mut self, hierarchy: Hierarchy, template: &Public) -> Result<Loaded, TpmError> {
        let made = self.command("TPM2_CreatePrimary", EMPTY_PASSWORD, |esys| {
            esys.create_primary(hierarchy, template.clone(), None, None, None, None)
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
        KeyBlob::new(&made.out_public, &made.out_private, parent.name.clone())
    }

    /// TPM2_Load: `blob` into a slot.
    pub fn load(&mut self, parent: &Loaded, session: AuthSession, blob: &KeyBlob) -> Result<Loaded, TpmError> {
        let (public, private) = (blob.esys_public()?, blob.esys_private()?);
        let handle = self.command("TPM2_Load", (Some(session), None, None), |esys| {
            esys.load(parent.handle, private.clone(), public.clone())
        })?;
        self.loaded(handle, public)
    }

    /// An HMAC session salted to `key`, for authorizations by empty auth value.
    pub fn hmac_session(&mut self, key: &Loaded, encrypted: Encrypted) -> Result<AuthSession, TpmError> {
        self.start_session(Some(key), SessionType::Hmac, Some(encrypted))
    }

    /// A policy session salted to `key`.
    pub fn policy_session(&mut self, key: &Loaded, encrypted: Encrypted) -> Result<AuthSession, TpmError> {
        self.start_session(Some(key), SessionType::Policy, Some(encrypted))
    }

    /// A session that only computes a policy digest.
    pub fn trial_session(&mut self) -> Result<AuthSession, TpmError> {
        self.start_session(None, SessionType::Trial, None)
    }

    /// TPM2_PolicySecret(TPM_RH_ENDORSEMENT): what the EK's policy asks for, before each use of the EK.
    pub fn authorize_endorsement(&mut self, session: AuthSession) -> Result<(), TpmError> {
        let policy = policy(session)?;
        self.command("TPM2_PolicySecret", EMPTY_PASSWORD, |esys| {
            esys.policy_secret(
                policy,
                AuthHandle::Endorsement,
                Nonce::default(),
                Digest::default(),
                Nonce::default(),
                None,
            )
        })?;
        Ok(())
    }

    /// Ends a session before its task does.
    pub fn end_session(&mut self, session: AuthSession) -> Result<(), TpmError> {
        self.flush(SessionHandle::from(session).into())
    }

    fn start_session(
        &mut self,
        salted_to: Option<&Loaded>,
        kind: SessionType,
        encrypted: Option<Encrypted>,
    ) -> Result<AuthSession, TpmError> {
        let session = self
            .command("TPM2_StartAuthSession", NO_SESSION, |esys| {
                esys.start_auth_session(
                    salted_to.map(|key| key.handle),
                    None,
                    None,
                    kind,
                    SymmetricDefinition::AES_128_CFB,
                    HashingAlgorithm::Sha256,
                )
            })?
            .ok_or(TpmError::Malformed { command: "TPM2_StartAuthSession", reason: "no session handle" })?;
        self.keep(SessionHandle::from(session).into());
        if let Some(encrypted) = encrypted {
            self.encrypt(session, encrypted)?;
        }
        Ok(session)
    }

    fn encrypt(&mut self, session: AuthSession, encrypted: Encrypted) -> Result<(), TpmError> {
        // "decrypt" is what the TPM does with the command's first parameter, "encrypt" with the response's.
        let (attributes, mask) = SessionAttributesBuilder::new()
            .with_decrypt(matches!(encrypted, Encrypted::Command | Encrypted::Both))
            .with_encrypt(matches!(encrypted, Encrypted::Response | Encrypted::Both))
            .build();
        self.command("Esys_TRSess_SetAttributes", NO_SESSION, |esys| {
            esys.tr_sess_set_attributes(session, attributes, mask)
        })
    }

    fn loaded(&mut self, handle: KeyHandle, public: Public) -> Result<Loaded, TpmError> {
        self.keep(handle.into());
        let name = self.command("Esys_TR_GetName", NO_SESSION, |esys| esys.tr_get_name(ObjectHandle::from(handle)))?;
        Ok(Loaded { handle, public, name: name.value().to_vec() })
    }
}

/// `session` as the policy commands take it.
pub fn policy(session: AuthSession) -> Result<PolicySession, TpmError> {
    PolicySession::try_from(session).map_err(|e| TpmError::of("Esys_StartAuthSession", e))
}
