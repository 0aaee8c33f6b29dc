//! The sessions that authorise and protect the use of objects.
//!
//! Sessions are salted to a key whose name is known, so that what is encrypted in them stays secret on the bus. The TSS
//! library's own convenience sessions are not: they "encrypt" without any secret.

use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::SessionHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::SymmetricDefinition;

use super::connection::{Connection, NO_SESSION};
use super::error::TpmError;
use super::loaded::Loaded;

/// Which parameters of a command are encrypted in a session.
#[derive(Clone, Copy)]
pub enum Encrypted {
    /// What we send.
    Command,
    /// What the TPM answers.
    Response,
}

impl Connection {
    /// An HMAC session salted to `key`, for authorizations by empty auth value.
    pub fn hmac_session(&mut self, key: &Loaded, encrypted: Encrypted) -> Result<AuthSession, TpmError> {
        let session = self.start_session(Some(key), SessionType::Hmac, HashingAlgorithm::Sha256)?;
        self.encrypt(session, encrypted)?;
        Ok(session)
    }

    /// A policy session salted to `key`.
    pub fn policy_session(&mut self, key: &Loaded, encrypted: Encrypted) -> Result<AuthSession, TpmError> {
        self.policy_session_with(key, encrypted, HashingAlgorithm::Sha256)
    }

    /// As [`policy_session`](Connection::policy_session), with the hash of the key's policy.
    pub fn policy_session_with(
        &mut self,
        key: &Loaded,
        encrypted: Encrypted,
        hash: HashingAlgorithm,
    ) -> Result<AuthSession, TpmError> {
        let session = self.start_session(Some(key), SessionType::Policy, hash)?;
        self.encrypt(session, encrypted)?;
        Ok(session)
    }

    /// A session that only computes a policy digest.
    pub fn trial_session(&mut self) -> Result<AuthSession, TpmError> {
        self.start_session(None, SessionType::Trial, HashingAlgorithm::Sha256)
    }

    /// An HMAC session that only proves a password, salted to `key` if there is one.
    pub fn password_session(&mut self, key: Option<&Loaded>) -> Result<AuthSession, TpmError> {
        self.start_session(key, SessionType::Hmac, HashingAlgorithm::Sha256)
    }

    /// Ends a session before its task does.
    pub fn end_session(&mut self, session: AuthSession) -> Result<(), TpmError> {
        self.flush(SessionHandle::from(session).into())
    }

    fn start_session(
        &mut self,
        salted_to: Option<&Loaded>,
        kind: SessionType,
        hash: HashingAlgorithm,
    ) -> Result<AuthSession, TpmError> {
        let session = self
            .command("TPM2_StartAuthSession", NO_SESSION, |esys| {
                //= TPM-13 TPM 2.0 Part 1, Session-based Encryption: "sessions are salted to a key of the chip"
                let salt = salted_to.map(|key| key.handle);
                esys.start_auth_session(salt, None, None, kind, SymmetricDefinition::AES_128_CFB, hash)
            })?
            .ok_or(TpmError::Malformed { command: "TPM2_StartAuthSession", reason: "no session handle" })?;
        self.keep(SessionHandle::from(session).into());
        Ok(session)
    }

    fn encrypt(&mut self, session: AuthSession, encrypted: Encrypted) -> Result<(), TpmError> {
        // "decrypt" is what the TPM does with the command's first parameter, "encrypt" with the response's.
        let (attributes, mask) = SessionAttributesBuilder::new()
            .with_decrypt(matches!(encrypted, Encrypted::Command))
            .with_encrypt(matches!(encrypted, Encrypted::Response))
            .build();
        self.command("Esys_TRSess_SetAttributes", NO_SESSION, |esys| {
            esys.tr_sess_set_attributes(session, attributes, mask)
        })
    }
}

/// `session` as the policy commands take it.
pub fn policy(session: AuthSession) -> Result<PolicySession, TpmError> {
    PolicySession::try_from(session).map_err(|e| TpmError::of("Esys_StartAuthSession", e))
}
