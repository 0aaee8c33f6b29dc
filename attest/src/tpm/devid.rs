//! A DevID key: a signing key of the device that an authority certifies (TCG TPM 2.0 Keys for Device Identity and Attestation).
//!
//! Its blob is kept as SPIRE's agent wants it: two files, without the name of the parent. The parent is the storage root key of
//! the same algorithm, made from the template with an empty `unique` (H-1 or H-2), as in SPIRE.

use aws_lc_rs::digest::{SHA256, digest};
use thiserror::Error;
use tss_esapi::handles::ObjectHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Data, Digest, HashcheckTicket, MaxBuffer, Signature, SignatureScheme};

use super::chip::Chip;
use super::connection::{Connection, NO_SESSION};
use super::error::TpmError;
use super::key_blob::{KeyBlob, marshal};
use super::loaded::Loaded;
use super::objects::child;
use super::primary::Primary;
use super::sessions::Encrypted;
use super::settings::HierarchyPassword;
use super::signing_key::{check_attestation, ecdsa_der, no_ticket};
use super::templates;
use crate::structures::{Attributes, Hash, Public, PublicError, PublicKey};

/// What a DevID key signs with. The hash is SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DevIdAlgorithm {
    /// ECDSA on P-256. Ten times faster on real chips.
    P256,
    /// RSASSA (PKCS #1 v1.5) with 2048 bits.
    Rsa2048,
}

/// Why two files hold no DevID key that an agent can use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DevIdKeyError {
    /// The public part is none of a TPM's.
    #[error("its public part is not a TPMT_PUBLIC that can be used: {0}")]
    Public(PublicError),
    /// It cannot sign.
    #[error("it is not a signing key (attributes {0:#010x})")]
    NotSigning(u32),
    /// It has no fixed hash, or another one.
    #[error("it does not sign with SHA-256, which tpm_devid demands")]
    Hash,
    /// The private part is empty or longer than a TPM's.
    #[error("its private part is not a TPM2B_PRIVATE")]
    Private,
}

/// A DevID key outside the chip, wrapped by it, with its password.
#[derive(Clone, Debug)]
pub struct DevIdKey {
    blob: KeyBlob,
    public: Public,
    password: HierarchyPassword,
}

impl DevIdKey {
    /// From the content of its two files: TPMT_PUBLIC and the content of TPM2B_PRIVATE, with or without their two bytes of size
    /// (SPIRE's have none, those of tpm2-tools have).
    pub fn new(public: &[u8], private: &[u8], password: HierarchyPassword) -> Result<Self, DevIdKeyError> {
        // Its parent is looked for by the kind of the key.
        let (public, private) = (without_size(public).to_vec(), without_size(private).to_vec());
        let blob = KeyBlob { public, private, parent: Vec::new() };
        let public = Public::parse(&blob.public).map_err(DevIdKeyError::Public)?;
        if !public.attributes().are(Attributes::SIGN, 0) {
            return Err(DevIdKeyError::NotSigning(public.attributes().bits()));
        }
        if public.scheme().is_none_or(|scheme| scheme.hash() != Hash::Sha256) {
            return Err(DevIdKeyError::Hash);
        }
        if blob.private.is_empty() || blob.esys_private().is_err() {
            return Err(DevIdKeyError::Private);
        }
        Ok(Self { blob, public, password })
    }

    /// TPMT_PUBLIC, without size.
    pub fn public(&self) -> &[u8] {
        &self.blob.public
    }

    /// Content of TPM2B_PRIVATE, without size.
    pub fn private(&self) -> &[u8] {
        &self.blob.private
    }

    /// The key itself.
    pub fn key(&self) -> &PublicKey {
        self.public.key()
    }

    fn root(&self) -> Primary {
        if self.key().is_rsa() { Primary::RsaStorageRoot } else { Primary::StorageRoot }
    }
}

impl Chip {
    /// Makes a DevID key, never to leave this chip.
    pub fn create_devid_key(
        &mut self,
        algorithm: DevIdAlgorithm,
        password: &HierarchyPassword,
    ) -> Result<DevIdKey, TpmError> {
        let (root, template) = match algorithm {
            DevIdAlgorithm::P256 => (Primary::StorageRoot, templates::signing_key()?),
            DevIdAlgorithm::Rsa2048 => (Primary::RsaStorageRoot, templates::rsa_signing_key()?),
        };
        let blob = self.task(|tpm| {
            // As every program makes it anew: a persistent one may have been made with another `unique`.
            let root = tpm.made(root)?;
            tpm.create_with_password(&root, &template, password)
        })?;
        DevIdKey::new(&blob.public, &blob.private, password.clone())
            .map_err(|_| TpmError::Malformed { command: "TPM2_Create", reason: "not the DevID key that was asked for" })
    }

    /// Whether this chip has made `key`, and can load it.
    pub fn takes_devid(&mut self, key: &DevIdKey) -> Result<(), TpmError> {
        self.task(|tpm| tpm.load_devid(key).map(drop))
    }

    /// Signs `message` with SHA-256: PKCS #1 v1.5, or DER ECDSA-Sig-Value.
    pub fn sign_with_devid(&mut self, key: &DevIdKey, message: &[u8]) -> Result<Vec<u8>, TpmError> {
        match &self.devid_signature(key, message)? {
            Signature::RsaSsa(signature) => Ok(signature.signature().value().to_vec()),
            other => ecdsa_der("TPM2_Sign", other),
        }
    }

    /// The same as TPMT_SIGNATURE.
    pub fn sign_with_devid_as_tpm(&mut self, key: &DevIdKey, message: &[u8]) -> Result<Vec<u8>, TpmError> {
        marshal("TPM2_Sign", &self.devid_signature(key, message)?)
    }

    fn devid_signature(&mut self, key: &DevIdKey, message: &[u8]) -> Result<Signature, TpmError> {
        self.task(|tpm| {
            let loaded = tpm.load_devid(key)?;
            let (digest, ticket) = tpm.digest_for(key, message)?;
            let session = tpm.authorized_for(ObjectHandle::from(loaded.handle), &key.password)?;
            tpm.command("TPM2_Sign", (Some(session), None, None), |esys| {
                esys.sign(loaded.handle, digest.clone(), SignatureScheme::Null, ticket.clone())
            })
        })
    }

    /// Certifies that `key` is in this chip by `ak`, without qualifying data. Returns TPMS_ATTEST and TPMT_SIGNATURE.
    pub fn certify_devid(&mut self, key: &DevIdKey, ak: &KeyBlob) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let kind = self.endorsement_kind()?;
        self.task(|tpm| {
            let signer = tpm.load_alone(kind, ak)?;
            let object = ObjectHandle::from(tpm.load_devid(key)?.handle);
            let session = tpm.authorized_for(object, &key.password)?;
            let sessions = (Some(session), Some(AuthSession::Password), None);
            let (attest, signature) = tpm.command("TPM2_Certify", sessions, |esys| {
                esys.certify(object, signer.handle, Data::default(), SignatureScheme::Null)
            })?;
            let attest = marshal("TPM2_Certify", &attest)?;
            check_attestation("TPM2_Certify", ak, &attest, &signature)?;
            Ok((attest, marshal("TPM2_Certify", &signature)?))
        })
    }
}

impl Connection {
    /// Loads a DevID key, and its parent no longer than for that. A persistent storage root key saves making one, where it is the
    /// right one.
    fn load_devid(&mut self, key: &DevIdKey) -> Result<Loaded, TpmError> {
        let root = key.root();
        if let Some(persistent) = self.persistent(root)? {
            match self.load(&persistent, AuthSession::Password, &key.blob) {
                Err(TpmError::ForeignKey(_)) => {}
                loaded => {
                    self.note_use(root);
                    return loaded;
                }
            }
        }
        let made = self.made(root)?;
        let loaded = self.load(&made, AuthSession::Password, &key.blob)?;
        self.release(&made)?;
        Ok(loaded)
    }

    /// The digest of `message`, with the chip's word that it may be signed if the key signs nothing else.
    fn digest_for(&mut self, key: &DevIdKey, message: &[u8]) -> Result<(Digest, HashcheckTicket), TpmError> {
        if !key.public.attributes().are(Attributes::RESTRICTED, 0) {
            let hash = digest(&SHA256, message);
            let hash = Digest::try_from(hash.as_ref()).expect("TPM2B_DIGEST holds at least a SHA-512 digest");
            return Ok((hash, no_ticket()?));
        }
        let message = MaxBuffer::try_from(message);
        let message = message.map_err(|_| TpmError::Argument("the message is too long for a restricted key"))?;
        self.command("TPM2_Hash", NO_SESSION, |esys| {
            esys.hash(message.clone(), HashingAlgorithm::Sha256, Hierarchy::Owner)
        })
    }

    /// TPM2_Create of a key that `password` is to authorize; the password crosses the bus encrypted.
    fn create_with_password(
        &mut self,
        parent: &Loaded,
        template: &tss_esapi::structures::Public,
        password: &HierarchyPassword,
    ) -> Result<KeyBlob, TpmError> {
        if password.is_empty() {
            return self.create(parent, AuthSession::Password, template, None);
        }
        let (session, auth) = (self.hmac_session(parent, Encrypted::Command)?, password.to_auth()?);
        let made = self.command("TPM2_Create", (Some(session), None, None), |esys| {
            esys.create(parent.handle, template.clone(), Some(auth.clone()), None, None, None)
        })?;
        child(parent, made)
    }
}

/// What a TPM2B holds, or the bytes themselves if they are none.
fn without_size(bytes: &[u8]) -> &[u8] {
    match bytes.split_first_chunk::<2>() {
        Some((size, rest)) if usize::from(u16::from_be_bytes(*size)) == rest.len() => rest,
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use tss_esapi::traits::Marshall;

    use super::*;

    #[test]
    fn a_size_in_front_of_a_file_is_no_part_of_it() {
        for (bytes, content) in [
            (&[0, 2, 7, 8][..], &[7, 8][..]),
            (&[0, 3, 7, 8], &[0, 3, 7, 8]),
            (&[7, 8], &[7, 8]),
            (&[0, 0], &[]),
            (&[], &[]),
        ] {
            assert_eq!(without_size(bytes), content, "{bytes:?}");
        }
    }

    /// A template is a public part like any other, but for its key.
    fn public(template: Result<tss_esapi::structures::Public, TpmError>) -> Vec<u8> {
        let mut public = template.expect("template").marshall().expect("marshals");
        public.truncate(public.len() - 4);
        let key = aws_lc_rs::agreement::PrivateKey::generate(&aws_lc_rs::agreement::ECDH_P256).expect("key");
        for coordinate in key.compute_public_key().expect("point").as_ref()[1..].chunks(32) {
            public.extend([0, 32]);
            public.extend_from_slice(coordinate);
        }
        public
    }

    #[test]
    fn refuses_what_cannot_attest_and_says_why() {
        let read =
            |public: &[u8], private: &[u8]| DevIdKey::new(public, private, HierarchyPassword::default()).map(drop);
        let good = public(templates::signing_key());
        assert_eq!(read(&good, &[1; 100]), Ok(()));
        assert!(matches!(read(&good[..20], &[1; 100]), Err(DevIdKeyError::Public(_))));
        let storage = public(templates::storage_root_key());
        assert_eq!(read(&storage, &[1; 100]), Err(DevIdKeyError::NotSigning(0x0003_0472)));
        let mut unbound = good.clone();
        // Scheme and hash stand behind type, nameAlg, attributes, policy and symmetric: TPM_ALG_NULL instead.
        unbound.splice(12..16, [0x00, 0x10]);
        assert_eq!(read(&unbound, &[1; 100]), Err(DevIdKeyError::Hash));
        for private in [&[][..], &[0, 0], &[1; 5000]] {
            assert_eq!(read(&good, private), Err(DevIdKeyError::Private));
        }
    }
}
