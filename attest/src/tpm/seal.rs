//! Secrets that this chip gives back only while its PCRs are what they were.

use tss_esapi::handles::ObjectHandle;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, SensitiveData};
use zeroize::Zeroizing;

use super::chip::Chip;
use super::connection::{Connection, NO_SESSION};
use super::error::TpmError;
use super::key_blob::KeyBlob;
use super::loaded::Loaded;
use super::pcr::selection_list;
use super::response_code as rc;
use super::sessions::{Encrypted, policy};
use super::templates;
use crate::node::tpm2::{PcrHash, PcrSelection};
use crate::pcr_policy::PolicyDigest;

/// Longest secret that a TPM seals, bytes (MAX_SYM_DATA, Part 2 §11.1.13). Seal a key and encrypt the data with it.
pub const MAX_SEALED_BYTES: usize = 128;

impl Chip {
    /// Seals `secret` to this chip and to the present values of `pcrs` (none: to the chip alone), in
    /// the bank that the [settings](super::TpmSettings::sealing_bank) say.
    ///
    /// On the way to the chip it is encrypted in a session salted to the storage root key.
    pub fn seal(&mut self, secret: &[u8], pcrs: PcrSelection) -> Result<KeyBlob, TpmError> {
        self.seal_beside(None, secret, pcrs)
    }

    /// As [`seal`](Chip::seal), under the storage root key that `known` was sealed under: whoever came onto the bus after that cannot have
    /// the secret encrypted to another key. Without it the chip's word is taken for which key that is.
    pub fn seal_beside(
        &mut self,
        known: Option<&KeyBlob>,
        secret: &[u8],
        pcrs: PcrSelection,
    ) -> Result<KeyBlob, TpmError> {
        let secret = sealable(secret)?;
        self.task(|tpm| {
            let policy = tpm.present_pcr_policy(pcrs)?;
            tpm.seal_to(&policy, &secret, known)
        })
    }

    /// Gives back what was sealed with the same `pcrs`. [`WrongPolicy`](TpmError::WrongPolicy): a PCR has another value
    /// now, such as after a firmware or kernel update.
    pub fn unseal(&mut self, blob: &KeyBlob, pcrs: PcrSelection) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.task(|tpm| {
            let root = tpm.storage_root_of(blob)?;
            let session = tpm.policy_session(&root, Encrypted::Response)?;
            tpm.unseal_under(&root, session, blob, pcrs)
        })
    }
}

impl Connection {
    /// Seals `secret` to `policy` and to this chip.
    pub fn seal_to(
        &mut self,
        policy: &PolicyDigest,
        secret: &SensitiveData,
        known: Option<&KeyBlob>,
    ) -> Result<KeyBlob, TpmError> {
        let root = match known {
            Some(known) => self.storage_root_of(known)?,
            None => self.storage_root()?,
        };
        let session = self.hmac_session(&root, Encrypted::Command)?;
        self.create(&root, session, &templates::sealed_object(digest_of(policy)?)?, Some(secret))
    }

    /// As [`Chip::unseal`], with the key that it was sealed under and a policy session that nothing was asked of.
    pub fn unseal_under(
        &mut self,
        root: &Loaded,
        session: AuthSession,
        blob: &KeyBlob,
        pcrs: PcrSelection,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let sealed = self.load(root, AuthSession::Password, blob)?;
        let likely = self.likely_sealing_bank();
        self.require_pcrs(session, likely, pcrs)?;
        let refused = match self.unseal_in(session, &sealed) {
            Err(refused @ TpmError::WrongPolicy(_)) if !refused.is(rc::PCR_CHANGED) => refused,
            other => return other,
        };
        let bank = self.sealing_bank(pcrs)?;
        if bank == likely {
            return Err(refused);
        }
        self.end_session(session)?;
        let session = self.policy_session(root, Encrypted::Response)?;
        self.require_pcrs(session, bank, pcrs)?;
        self.unseal_in(session, &sealed)
    }

    /// TPM2_Unseal, in a session whose policy is met.
    pub fn unseal_in(&mut self, session: AuthSession, sealed: &Loaded) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let object = ObjectHandle::from(sealed.handle);
        let secret = self.command("TPM2_Unseal", (Some(session), None, None), |esys| esys.unseal(object))?;
        Ok(Zeroizing::new(secret.value().to_vec()))
    }

    /// The policy digest of "PCRs `pcrs` have their present values".
    pub fn present_pcr_policy(&mut self, pcrs: PcrSelection) -> Result<PolicyDigest, TpmError> {
        let bank = self.sealing_bank(pcrs)?;
        // PolicyPCR takes an inactive bank without complaint: the secret would be sealed to nothing.
        self.read_pcrs(bank, pcrs)?;
        let session = self.trial_session()?;
        self.require_pcrs(session, bank, pcrs)?;
        let digest = self.policy_so_far(session)?;
        self.end_session(session)?;
        Ok(digest)
    }

    /// The policy digest of a session.
    pub fn policy_so_far(&mut self, session: AuthSession) -> Result<PolicyDigest, TpmError> {
        let (command, session) = ("TPM2_PolicyGetDigest", policy(session)?);
        let digest = self.command(command, NO_SESSION, |esys| esys.policy_get_digest(session))?;
        digest.value().try_into().map_err(|_| TpmError::Malformed { command, reason: "not a digest of SHA-256" })
    }

    /// The bank of most chips, without asking this one: a seal that was made to another one does not open with it.
    fn likely_sealing_bank(&self) -> PcrHash {
        self.settings().sealing_bank.unwrap_or_default()
    }

    /// The bank to seal to. The same chip, booted in the same way, always gives the same.
    pub fn sealing_bank(&mut self, pcrs: PcrSelection) -> Result<PcrHash, TpmError> {
        if let Some(bank) = self.settings().sealing_bank {
            return Ok(bank);
        }
        if pcrs.is_empty() {
            return Ok(PcrHash::default());
        }
        let active = self.active_banks()?;
        let usable = active.into_iter().find(|bank| *bank != PcrHash::Sha1);
        usable.ok_or_else(|| self.bank_missing(PcrHash::default(), pcrs))
    }

    /// TPM2_PolicyPCR without a digest: the TPM takes the present values into the policy.
    pub fn require_pcrs(&mut self, session: AuthSession, bank: PcrHash, pcrs: PcrSelection) -> Result<(), TpmError> {
        let (session, selection) = (policy(session)?, selection_list(bank, pcrs)?);
        self.command("TPM2_PolicyPCR", NO_SESSION, |esys| {
            esys.policy_pcr(session, Digest::default(), selection.clone())
        })
    }
}

/// A secret of a length that a TPM seals.
pub fn sealable(secret: &[u8]) -> Result<SensitiveData, TpmError> {
    if secret.is_empty() || secret.len() > MAX_SEALED_BYTES {
        return Err(TpmError::Argument("a sealed secret is 1 to 128 bytes long"));
    }
    SensitiveData::try_from(secret).map_err(|e| TpmError::of("TPM2_Create", e))
}

/// As the library takes it.
pub fn digest_of(digest: &PolicyDigest) -> Result<Digest, TpmError> {
    Digest::try_from(digest.as_slice()).map_err(|e| TpmError::of("TPM2B_DIGEST", e))
}
