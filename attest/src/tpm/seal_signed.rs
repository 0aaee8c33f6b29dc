//! Secrets that this chip gives back in the state in which they were sealed, or in one that the operator has signed.

use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{DigestList, Name, Nonce, Public, Signature, VerifiedTicket};
use tss_esapi::traits::UnMarshall;
use tss_esapi::tss2_esys::TPMT_TK_VERIFIED;
use zeroize::Zeroizing;

use super::chip::Chip;
use super::connection::{Connection, NO_SESSION};
use super::error::TpmError;
use super::key_blob::KeyBlob;
use super::loaded::Loaded;
use super::seal::{digest_of, sealable};
use super::sessions::{Encrypted, policy};
use crate::node::tpm2::{PcrHash, PcrSelection};
use crate::pcr_policy::{AuthenticPolicy, Branches, Epoch, PolicyAuthority, PolicyDigest};
use crate::structures;

/// What opened something sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenedBy {
    /// The registers are as they were.
    SameState,
    /// The signed policy at this place of those that were given.
    Signed(usize),
}

impl Chip {
    /// The bank that is sealed to, as [`TpmSettings::sealing_bank`](super::TpmSettings::sealing_bank) or the chip says.
    pub fn bank_of_seals(&mut self, pcrs: PcrSelection) -> Result<PcrHash, TpmError> {
        self.task(|tpm| tpm.sealing_bank(pcrs))
    }

    /// Seals `secret` to this chip and to the present values of `pcrs`, or to any other values that `authority` has signed, or will,
    /// for an epoch from `first_epoch` on (see [`Epoch::open`]). `known` as in [`seal_beside`](Chip::seal_beside).
    ///
    /// [`PolicyKey`](TpmError::PolicyKey): the chip cannot verify with this key, which is found out now and not when it is needed.
    pub fn seal_signed(
        &mut self,
        secret: &[u8],
        pcrs: PcrSelection,
        authority: &PolicyAuthority,
        first_epoch: Epoch,
        known: Option<&KeyBlob>,
    ) -> Result<(KeyBlob, Branches), TpmError> {
        let (secret, area) = (sealable(secret)?, authority.public_area());
        self.task(|tpm| {
            let (loaded, key) = tpm.load_policy_key(&area)?;
            tpm.release(&loaded)?;
            let branches = Branches { present: tpm.present_pcr_policy(pcrs)?, first_epoch, key };
            Ok((tpm.seal_to(&branches.policy(), &secret, known)?, branches))
        })
    }

    /// Gives back what was sealed with the same `pcrs` and these `branches`: in the same state, or in one that a policy of `signed` is
    /// about; of several the one with the highest epoch.
    ///
    /// [`UnsignedState`](TpmError::UnsignedState): in neither.
    pub fn unseal_signed(
        &mut self,
        blob: &KeyBlob,
        pcrs: PcrSelection,
        branches: &Branches,
        signed: &[AuthenticPolicy],
    ) -> Result<(Zeroizing<Vec<u8>>, OpenedBy), TpmError> {
        self.task(|tpm| {
            let bank = tpm.sealing_bank(pcrs)?;
            let root = tpm.storage_root_of(blob)?;
            let session = tpm.policy_session(&root, Encrypted::Response)?;
            tpm.require_pcrs(session, bank, pcrs)?;
            let present = tpm.policy_so_far(session)?;
            let opened_by = match of_state(present, branches, signed) {
                Some(OpenedBy::Signed(place)) => {
                    tpm.authorize(session, &signed[place])?;
                    OpenedBy::Signed(place)
                }
                Some(OpenedBy::SameState) => OpenedBy::SameState,
                None => return Err(TpmError::UnsignedState { present }),
            };
            tpm.require_one_of(session, &branches.digests())?;
            let sealed = tpm.load(&root, AuthSession::Password, blob)?;
            Ok((tpm.unseal_in(session, &sealed)?, opened_by))
        })
    }
}

/// What is good for the state of now. A chip decides; this is to ask it for what it can grant.
fn of_state(present: PolicyDigest, branches: &Branches, signed: &[AuthenticPolicy]) -> Option<OpenedBy> {
    if present == branches.present {
        return Some(OpenedBy::SameState);
    }
    let about_it = signed.iter().enumerate().filter(|(_, policy)| policy.policy() == present);
    about_it.max_by_key(|(_, policy)| policy.epoch()).map(|(place, _)| OpenedBy::Signed(place))
}

impl Connection {
    /// TPM2_LoadExternal: the operator's key into a slot, and what the chip calls it.
    fn load_policy_key(&mut self, area: &[u8]) -> Result<(Loaded, structures::Name), TpmError> {
        let public = Public::unmarshall(area).map_err(|e| TpmError::of("TPMT_PUBLIC", e))?;
        let loaded = self.command("TPM2_LoadExternal", NO_SESSION, |esys| {
            // Not of the null hierarchy: its tickets are none for a policy that outlives a reset.
            esys.load_external_public(public.clone(), Hierarchy::Owner)
        });
        let loaded = self.loaded(loaded.map_err(of_policy_key)?, public)?;
        let name = structures::Name::parse(&loaded.name)
            .map_err(|_| TpmError::Malformed { command: "TPM2_LoadExternal", reason: "a Name of another hash" })?;
        Ok((loaded, name))
    }

    /// TPM2_PolicyAuthorize: what `session` asks for is what `signed` approves.
    fn authorize(&mut self, session: AuthSession, signed: &AuthenticPolicy) -> Result<(), TpmError> {
        let (key, _) = self.load_policy_key(signed.public_area())?;
        let ticket = self.verify(&key, signed)?;
        self.release(&key)?;
        let (session, approved) = (policy(session)?, digest_of(&signed.policy())?);
        let bad = |e| TpmError::of("TPM2_PolicyAuthorize", e);
        let reference = Nonce::try_from(signed.policy_ref()).map_err(bad)?;
        let name = Name::try_from(key.name.clone()).map_err(bad)?;
        self.command("TPM2_PolicyAuthorize", NO_SESSION, |esys| {
            let ticket = VerifiedTicket::try_from(ticket)?;
            esys.policy_authorize(session, approved.clone(), reference.clone(), &name, ticket)
        })
    }

    fn verify(&mut self, key: &Loaded, signed: &AuthenticPolicy) -> Result<TPMT_TK_VERIFIED, TpmError> {
        let signature = Signature::unmarshall(signed.tpm_signature()).map_err(|e| TpmError::of("TPMT_SIGNATURE", e))?;
        let digest = digest_of(&signed.signed_sha256())?;
        let verified = self.command("TPM2_VerifySignature", NO_SESSION, |esys| {
            esys.verify_signature(key.handle, digest.clone(), signature.clone())?.try_into()
        });
        verified.map_err(of_policy_key)
    }

    /// TPM2_PolicyOR.
    fn require_one_of(&mut self, session: AuthSession, branches: &[PolicyDigest]) -> Result<(), TpmError> {
        let session = policy(session)?;
        let mut list = DigestList::new();
        for branch in branches {
            list.add(digest_of(branch)?).map_err(|e| TpmError::of("TPM2_PolicyOR", e))?;
        }
        self.command("TPM2_PolicyOR", NO_SESSION, |esys| esys.policy_or(session, list.clone()))
    }
}

/// What a chip says of a key that it has no algorithm for, or not at that length: TPM_RC_VALUE, TPM_RC_KEY_SIZE and others.
fn of_policy_key(error: TpmError) -> TpmError {
    match error {
        TpmError::Unsupported(_) | TpmError::Refused(_) => TpmError::PolicyKey(Box::new(error)),
        other => other,
    }
}
