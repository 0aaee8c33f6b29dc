//! Keys that sign for the agent, and the shape of their signatures.

use der::Encode;
use der::asn1::UintRef;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, EccSignature, HashcheckTicket, Signature, SignatureScheme};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

use super::chip::Chip;
use super::connection::{Connection, EMPTY_PASSWORD};
use super::error::TpmError;
use super::key_blob::{KeyBlob, marshal};
use super::loaded::Loaded;
use super::primary::Primary;
use super::templates;
use crate::structures;

impl Chip {
    /// Makes a P-256 key for ECDSA with SHA-256, a child of the storage root key, never to leave this chip.
    pub fn create_signing_key(&mut self) -> Result<KeyBlob, TpmError> {
        self.task(|tpm| {
            let root = tpm.storage_root()?;
            tpm.create(&root, AuthSession::Password, &templates::signing_key()?, None)
        })
    }

    /// The persistent handle of the storage root key that `key` was made under; none if that is made anew from its template at each use.
    pub fn persistent_root_of(&mut self, key: &KeyBlob) -> Result<Option<u32>, TpmError> {
        let found = self.task(|tpm| tpm.persistent(Primary::StorageRoot))?;
        Ok(found.filter(|root| root.name == key.parent).map(|_| Primary::StorageRoot.persistent_handle()))
    }

    /// Signs a SHA-256 digest. Returns DER ECDSA-Sig-Value (RFC 3279 §2.2.3), as TLS and X.509 want it.
    pub fn sign_digest(&mut self, key: &KeyBlob, digest: &[u8; 32]) -> Result<Vec<u8>, TpmError> {
        let digest = Digest::try_from(digest.as_slice()).expect("TPM2B_DIGEST holds at least a SHA-512 digest");
        let ticket = no_ticket()?;
        self.task(|tpm| {
            let (_, loaded) = tpm.load_under_root(key)?;
            let signature = tpm.command("TPM2_Sign", EMPTY_PASSWORD, |esys| {
                esys.sign(loaded.handle, digest.clone(), SignatureScheme::Null, ticket.clone())
            })?;
            ecdsa_der("TPM2_Sign", &signature)
        })
    }
}

impl Connection {
    /// The storage root key that new keys are made under: the persistent one if its public part is our template's, which
    /// needs no password of the owner, else made from the template.
    pub fn storage_root(&mut self) -> Result<Loaded, TpmError> {
        match self.persistent(Primary::StorageRoot)? {
            Some(key) => {
                self.note_use(Primary::StorageRoot);
                Ok(key)
            }
            None => self.made(Primary::StorageRoot),
        }
    }

    /// The storage root key that `blob` was made under.
    pub fn storage_root_of(&mut self, blob: &KeyBlob) -> Result<Loaded, TpmError> {
        self.named(Primary::StorageRoot, &blob.parent)?.ok_or(TpmError::ForeignParent)
    }

    /// Loads `blob` under the storage root key.
    pub fn load_under_root(&mut self, blob: &KeyBlob) -> Result<(Loaded, Loaded), TpmError> {
        let root = self.storage_root_of(blob)?;
        let loaded = self.load(&root, AuthSession::Password, blob)?;
        Ok((root, loaded))
    }
}

/// Refuses an attestation that does not verify with its own AK.
///
/// The library parses TPMS_ATTEST and we marshal it again: should a chip encode something in a way that does not survive
/// this, the server would see a bad signature. Here it is named for what it is. Costs 0.1 ms.
pub fn check_attestation(
    command: &'static str,
    ak: &KeyBlob,
    attest: &[u8],
    signature: &Signature,
) -> Result<(), TpmError> {
    let signature = structures::Signature::parse(&marshal(command, signature)?);
    let signature =
        signature.map_err(|_| TpmError::Malformed { command, reason: "its signature is of no kind of ours" })?;
    let ak = structures::Public::parse(&ak.public)
        .map_err(|_| TpmError::Argument("the attestation key's public part is damaged"))?;
    if signature.is_by(ak.key(), attest) {
        return Ok(());
    }
    Err(TpmError::Malformed { command, reason: "the attestation key's signature does not verify" })
}

#[derive(der::Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

pub(super) fn ecdsa_der(command: &'static str, signature: &Signature) -> Result<Vec<u8>, TpmError> {
    let ecdsa = ecdsa(command, signature)?;
    let malformed = |_| TpmError::Malformed { command, reason: "a signature scalar is no integer" };
    let r = UintRef::new(ecdsa.signature_r().value()).map_err(malformed)?;
    let s = UintRef::new(ecdsa.signature_s().value()).map_err(malformed)?;
    EcdsaSigValue { r, s }.to_der().map_err(malformed)
}

fn ecdsa<'a>(command: &'static str, signature: &'a Signature) -> Result<&'a EccSignature, TpmError> {
    match signature {
        Signature::EcDsa(ecdsa) => Ok(ecdsa),
        _ => Err(TpmError::Malformed { command, reason: "not an ECDSA signature" }),
    }
}

/// The ticket of a digest that the TPM did not compute: good for unrestricted keys only (Part 3 §20.2).
pub fn no_ticket() -> Result<HashcheckTicket, TpmError> {
    HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: Default::default(),
    })
    .map_err(|e| TpmError::of("TPM2_Sign", e))
}
