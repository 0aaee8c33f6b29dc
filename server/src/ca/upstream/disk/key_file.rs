//! The file with the key of an authority.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ironroot_api::MlDsa;
use ironroot_hsm::KeyKind;
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use ironroot_text::{TextError, decode};
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use zeroize::Zeroizing;

/// Largest file accepted, bytes: an RSA-8192 key has about 6 kB.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// How each kind of key signs. Source: Go's x509.CreateCertificate, which takes the hash that fits the curve; RFC 9881.
const SCHEMES: [(SignatureScheme, KeyKind); 6] = [
    (SignatureScheme::ECDSA_NISTP256_SHA256, KeyKind::EcP256),
    (SignatureScheme::ECDSA_NISTP384_SHA384, KeyKind::EcP384),
    // RSA signs alike with a modulus of any length.
    (SignatureScheme::RSA_PKCS1_SHA256, KeyKind::Rsa2048),
    (SignatureScheme::ML_DSA_44, KeyKind::MlDsa(MlDsa::MlDsa44)),
    (SignatureScheme::ML_DSA_65, KeyKind::MlDsa(MlDsa::MlDsa65)),
    (SignatureScheme::ML_DSA_87, KeyKind::MlDsa(MlDsa::MlDsa87)),
];

/// Why a key cannot be used. No message has anything of what is in the file.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read, or every user has rights to it.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// Not text, or in an encoding that is not read.
    #[error("{0} is not text that can be read")]
    Text(String, #[source] TextError),
    /// None that can be read, or several.
    #[error(
        "{0} holds {1} private keys that can be read, not one; one with a passphrase cannot: openssl pkey -in {0} takes it away"
    )]
    NotOne(String, usize),
    /// Of another kind.
    #[error("the key in {0} is none of EC P-256, EC P-384, RSA of 2048 bits or more, and ML-DSA")]
    Kind(String),
    /// It does not sign.
    #[error("the upstream CA's key does not sign")]
    Sign(#[source] rustls::Error),
}

/// A key that was read from a file; gone with this value.
pub(super) struct FileKey {
    key: Arc<dyn SigningKey>,
    scheme: SignatureScheme,
    kind: KeyKind,
}

impl FileKey {
    pub(super) fn read(path: &Path) -> Result<Self, KeyFileError> {
        let name = path.display().to_string();
        let bytes = secret_file::read(path, MAX_FILE_BYTES, Readers::OwnerAndGroup)?;
        match decode(&bytes).map_err(|error| KeyFileError::Text(name.clone(), error))? {
            Cow::Owned(text) => Self::parse(&Zeroizing::new(text), name),
            Cow::Borrowed(text) => Self::parse(text, name),
        }
    }

    fn parse(pem: &str, name: String) -> Result<Self, KeyFileError> {
        let keys: Vec<_> = PrivateKeyDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect();
        let [der] = &keys[..] else { return Err(KeyFileError::NotOne(name, keys.len())) };
        let Ok(key) = any_supported_type(der) else { return Err(KeyFileError::Kind(name)) };
        let fits = |(scheme, _): &&(SignatureScheme, KeyKind)| key.choose_scheme(&[*scheme]).is_some();
        let Some(&(scheme, kind)) = SCHEMES.iter().find(fits) else { return Err(KeyFileError::Kind(name)) };
        Ok(Self { key, scheme, kind })
    }

    pub(super) fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Whether its public half is this one, DER SubjectPublicKeyInfo.
    pub(super) fn is_of(&self, spki_der: &[u8]) -> bool {
        self.key.public_key().is_some_and(|public| public.as_ref() == spki_der)
    }

    /// The signature as X.509 has it: DER `ECDSA-Sig-Value`, PKCS #1 v1.5, or ML-DSA's bytes.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyFileError> {
        let signer = self.key.choose_scheme(&[self.scheme]);
        let no_scheme = || KeyFileError::Sign(rustls::Error::General("it offers its scheme no more".to_owned()));
        signer.ok_or_else(no_scheme)?.sign(message).map_err(KeyFileError::Sign)
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKey({:?})", self.kind)
    }
}
