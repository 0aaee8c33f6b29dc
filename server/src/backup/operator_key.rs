//! The operator's key: who has its private half opens what is sealed to its public half. X25519, in the files that OpenSSL writes.
//!
//! Source of the forms: RFC 8410 §4, §7. Each has one length and one beginning, so they are compared rather than parsed.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::digest::{SHA256, digest};
use ironroot_text::hex::hex;
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use ironroot_text::{FileError, HumanFile};
use rustls::crypto::hpke::{HpkePrivateKey, HpkePublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use thiserror::Error;
use zeroize::Zeroizing;

/// Longest key file accepted, bytes: one key in PEM has some 120.
const MAX_KEY_FILE_BYTES: usize = 4096;
/// What stands before the 32 bytes of a public key.
const SPKI_BEGINNING: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00];
/// What stands before the 32 bytes of a private key.
const PKCS8_BEGINNING: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20];

/// Why a key file is not used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum OperatorKeyError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    #[error(
        "{0} holds no public X25519 key in PEM; make a pair with: openssl genpkey -algorithm X25519 -out operator.key; openssl pkey -in \
         operator.key -pubout -out operator.pub"
    )]
    NoPublicKey(PathBuf),
    #[error("{0} holds no private X25519 key in PEM, as openssl genpkey -algorithm X25519 writes it")]
    NoPrivateKey(PathBuf),
}

/// What backups are sealed to.
#[derive(Clone, PartialEq, Eq)]
pub struct OperatorPublicKey([u8; 32]);

/// What opens them.
pub struct OperatorKey {
    secret: Zeroizing<[u8; 32]>,
    public: OperatorPublicKey,
}

impl OperatorPublicKey {
    /// Reads a PEM file with a SubjectPublicKeyInfo.
    pub fn read(path: &Path) -> Result<Self, OperatorKeyError> {
        let file = HumanFile::regular(path, MAX_KEY_FILE_BYTES)?;
        let no_key = || OperatorKeyError::NoPublicKey(path.to_owned());
        let der = SubjectPublicKeyInfoDer::from_pem_slice(file.text().as_bytes()).map_err(|_| no_key())?;
        raw(&der, &SPKI_BEGINNING).map(Self).ok_or_else(no_key)
    }

    /// What tells it from others: the SHA-256 of its 32 bytes.
    pub fn fingerprint(&self) -> [u8; 32] {
        digest(&SHA256, &self.0).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    pub(super) fn hpke(&self) -> HpkePublicKey {
        HpkePublicKey(self.0.to_vec())
    }
}

impl fmt::Debug for OperatorPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorPublicKey({})", hex(&self.fingerprint()))
    }
}

impl OperatorKey {
    /// Reads a PEM file with a PKCS#8 key that nobody but its owner has rights to.
    pub fn read(path: &Path) -> Result<Self, OperatorKeyError> {
        let bytes = secret_file::read(path, MAX_KEY_FILE_BYTES, Readers::Owner)?;
        let no_key = || OperatorKeyError::NoPrivateKey(path.to_owned());
        let der = PrivatePkcs8KeyDer::from_pem_slice(&bytes).map_err(|_| no_key())?;
        let secret = raw(der.secret_pkcs8_der(), &PKCS8_BEGINNING).map(Zeroizing::new).ok_or_else(no_key)?;
        let key = PrivateKey::from_private_key(&X25519, &*secret).map_err(|_| no_key())?;
        let public = key.compute_public_key().map_err(|_| no_key())?;
        let public = OperatorPublicKey(public.as_ref().try_into().map_err(|_| no_key())?);
        Ok(Self { secret, public })
    }

    /// Its public half.
    pub fn public(&self) -> &OperatorPublicKey {
        &self.public
    }

    pub(super) fn hpke(&self) -> HpkePrivateKey {
        HpkePrivateKey::from(self.secret.to_vec())
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorKey({})", hex(&self.public.fingerprint()))
    }
}

/// What follows `beginning`, if those are the 32 bytes of a key and nothing else.
fn raw(der: &[u8], beginning: &[u8]) -> Option<[u8; 32]> {
    der.strip_prefix(beginning)?.try_into().ok()
}
