//! Loaded objects and the sessions that authorise and protect their use.
//!
//! Sessions are salted to a key whose name is known, so that what is encrypted in them stays secret on the bus. The TSS
//! library's own convenience sessions are not: they "encrypt" without any secret.

use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{AuthHandle, KeyHandle, ObjectHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Digest, DigestList, Nonce, Public, SensitiveData, SymmetricDefinition};

use super::connection::{Connection, NO_SESSION};
use super::{EndorsementKind, KeyBlob, KeyHierarchy, TpmError};

/// An object in one of the TPM's slots.
pub struct Loaded {
    pub handle: KeyHandle,
    pub public: Public,
    /// Its Name (Part 1 §16): algorithm and digest of the public area, as the library computed it from `public`.
    pub name: Vec<u8>,
    /// Whether it takes a slot, which a persistent key does not.
    pub in_slot: bool,
}

/// Which parameters of a command are encrypted in a session.
#[derive(Clone, Copy)]
pub enum Encrypted {
    /// What we send.
    Command,
    /// What the TPM answers.
    Response,
}

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

    /// Frees the slot of a key before its task ends, if it takes one.
    pub fn release(&mut self, key: &Loaded) -> Result<(), TpmError> {
        if key.in_slot { self.flush(key.handle.into()) } else { Ok(()) }
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
        let session = self.start_session(Some(key), SessionType::Hmac, HashingAlgorithm::Sha256)?;
        self.encrypt(session, encrypted)?;
        Ok(session)
    }

    /// A policy session salted to `key`.
    pub fn policy_session(&mut self, key: &Loaded, encrypted: Encrypted) -> Result<AuthSession, TpmError> {
        let session = self.start_session(Some(key), SessionType::Policy, HashingAlgorithm::Sha256)?;
        self.encrypt(session, encrypted)?;
        Ok(session)
    }

    /// A policy session salted to the endorsement key `ek`, for its use. Answers are encrypted, commands are not: what is
    /// sent to an endorsement key is public or encrypted already, and one implementation cannot decrypt commands.
    pub fn endorsement_session(&mut self, ek: &Loaded, kind: EndorsementKind) -> Result<AuthSession, TpmError> {
        let hash = if kind.has_policy_b() { HashingAlgorithm::Sha384 } else { HashingAlgorithm::Sha256 };
        let session = self.start_session(Some(ek), SessionType::Policy, hash)?;
        self.encrypt(session, Encrypted::Response)?;
        self.satisfy_endorsement_policy(session, kind)?;
        Ok(session)
    }

    /// Makes a session that the endorsement key was used with ready for its next use. The policy is started over: a TPM resets
    /// it after each use by itself, but not every implementation does.
    pub fn renew_endorsement_policy(&mut self, session: AuthSession, kind: EndorsementKind) -> Result<(), TpmError> {
        let restarted = policy(session)?;
        self.command("TPM2_PolicyRestart", NO_SESSION, |esys| esys.policy_restart(restarted))?;
        self.satisfy_endorsement_policy(session, kind)
    }

    /// A session that only computes a policy digest.
    pub fn trial_session(&mut self) -> Result<AuthSession, TpmError> {
        self.start_session(None, SessionType::Trial, HashingAlgorithm::Sha256)
    }

    /// An HMAC session that only proves a password.
    pub fn unsalted_session(&mut self) -> Result<AuthSession, TpmError> {
        self.start_session(None, SessionType::Hmac, HashingAlgorithm::Sha256)
    }

    /// What the EK's policy asks for before each use: TPM2_PolicySecret(TPM_RH_ENDORSEMENT), and for PolicyB that this is one
    /// of its two branches (EK Credential Profile §B.6).
    fn satisfy_endorsement_policy(&mut self, session: AuthSession, kind: EndorsementKind) -> Result<(), TpmError> {
        let policy = policy(session)?;
        self.authorized_by(KeyHierarchy::Endorsement, |tpm, authorization| {
            tpm.command("TPM2_PolicySecret", (Some(authorization), None, None), |esys| {
                esys.policy_secret(
                    policy,
                    AuthHandle::Endorsement,
                    Nonce::default(),
                    Digest::default(),
                    Nonce::default(),
                    None,
                )
            })
        })?;
        if kind.has_policy_b() {
            let branches = policy_b_branches()?;
            self.command("TPM2_PolicyOR", NO_SESSION, |esys| esys.policy_or(policy, branches.clone()))?;
        }
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

    fn loaded(&mut self, handle: KeyHandle, public: Public) -> Result<Loaded, TpmError> {
        self.keep(handle.into());
        let name = self.command("Esys_TR_GetName", NO_SESSION, |esys| esys.tr_get_name(ObjectHandle::from(handle)))?;
        Ok(Loaded { handle, public, name: name.value().to_vec(), in_slot: true })
    }
}

/// `session` as the policy commands take it.
pub fn policy(session: AuthSession) -> Result<PolicySession, TpmError> {
    PolicySession::try_from(session).map_err(|e| TpmError::of("Esys_StartAuthSession", e))
}

/// PolicyA-SHA384 (the endorsement hierarchy's authorization) and PolicyC-SHA384 (what an NV index of the maker says), whose OR
/// is PolicyB-SHA384. Source: EK Credential Profile §B.6.3 to B.6.5.
fn policy_b_branches() -> Result<DigestList, TpmError> {
    const POLICY_A: [u8; 48] = [
        0x8b, 0xbf, 0x22, 0x66, 0x53, 0x7c, 0x17, 0x1c, 0xb5, 0x6e, 0x40, 0x3c, 0x4d, 0xc1, 0xd4, 0xb6, 0x4f, 0x43,
        0x26, 0x11, 0xdc, 0x38, 0x6e, 0x6f, 0x53, 0x20, 0x50, 0xc3, 0x27, 0x8c, 0x93, 0x0e, 0x14, 0x3e, 0x8b, 0xb1,
        0x13, 0x38, 0x24, 0xcc, 0xb4, 0x31, 0x05, 0x38, 0x71, 0xc6, 0xdb, 0x53,
    ];
    const POLICY_C: [u8; 48] = [
        0xd6, 0x03, 0x2c, 0xe6, 0x1f, 0x2f, 0xb3, 0xc2, 0x40, 0xeb, 0x3c, 0xf6, 0xa3, 0x32, 0x37, 0xef, 0x2b, 0x6a,
        0x16, 0xf4, 0x29, 0x3c, 0x22, 0xb4, 0x55, 0xe2, 0x61, 0xcf, 0xfd, 0x21, 0x7a, 0xd5, 0xb4, 0x94, 0x7c, 0x2d,
        0x73, 0xe6, 0x30, 0x05, 0xee, 0xd2, 0xdc, 0x2b, 0x35, 0x93, 0xd1, 0x65,
    ];
    let bad = |e| TpmError::of("TPM2_PolicyOR", e);
    let mut branches = DigestList::new();
    for digest in [POLICY_A, POLICY_C] {
        branches.add(Digest::try_from(digest.as_slice()).map_err(bad)?).map_err(bad)?;
    }
    Ok(branches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structures::Hash;

    /// PolicyB-SHA384, EK Credential Profile §B.6.5; TPM2_PolicyOR extends zeros with its command code and the branches
    /// (Part 3 §23.6).
    #[test]
    fn the_branches_are_those_of_the_template() {
        let branches = policy_b_branches().expect("branches");
        let [a, c] = branches.value() else { panic!("two branches") };
        let or = Hash::Sha384.digest(&[&[0; 48], &0x171u32.to_be_bytes(), a.value(), c.value()]);
        let hex: String = or.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert!(hex.starts_with("b26e7d28d11a50bc53d882bcf5fd3a1a"), "{hex}");
    }
}
