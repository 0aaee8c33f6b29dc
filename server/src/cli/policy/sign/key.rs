//! The operator's private key, in a file.

use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use ironroot_attest::pcr_policy::{AuthorityError, PolicyAuthority};
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;

/// Longest key file accepted, bytes: one of RSA-4096 has some 3300.
const MAX_KEY_FILE_BYTES: usize = 8 * 1024;

/// Why a key signs nothing.
#[derive(Debug, Error)]
pub(super) enum SigningKeyError {
    #[error(transparent)]
    File(#[from] SecretFileError),
    #[error(
        "{0} holds no private key of P-256 or RSA (2048 to 4096 bits) in PEM (PKCS #8); make one with: openssl genpkey -algorithm EC -pkeyopt \
         ec_paramgen_curve:P-256 -out policy.key"
    )]
    NoKey(PathBuf),
    #[error("{path}")]
    Unfit { path: PathBuf, source: AuthorityError },
    #[error("the crypto library could not sign")]
    Sign,
}

pub(super) struct SigningKey {
    pair: Pair,
    authority: PolicyAuthority,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// Reads a file that nobody but its owner has rights to.
    pub(super) fn read(path: &Path) -> Result<Self, SigningKeyError> {
        let bytes = secret_file::read(path, MAX_KEY_FILE_BYTES, Readers::Owner)?;
        let no_key = || SigningKeyError::NoKey(path.to_owned());
        let der = PrivatePkcs8KeyDer::from_pem_slice(&bytes).map_err(|_| no_key())?;
        let pair = Pair::from_pkcs8(der.secret_pkcs8_der()).ok_or_else(no_key)?;
        let spki = pair.spki_der().map_err(|_| no_key())?;
        let authority = PolicyAuthority::from_spki_der(&spki)
            .map_err(|source| SigningKeyError::Unfit { path: path.to_owned(), source })?;
        Ok(Self { pair, authority })
    }

    /// With SHA-256: ECDSA as DER, or PKCS #1 v1.5.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningKeyError> {
        let random = SystemRandom::new();
        let signed = match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map(|()| signature)
            }
        };
        signed.map_err(|_| SigningKeyError::Sign)
    }

    /// Its public half.
    pub(super) fn into_authority(self) -> PolicyAuthority {
        self.authority
    }
}

impl Pair {
    fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map(Self::Ec);
        ec.or_else(|_| RsaKeyPair::from_pkcs8(der).map(Self::Rsa)).ok()
    }

    fn spki_der(&self) -> Result<Vec<u8>, Unspecified> {
        Ok(match self {
            Self::Ec(pair) => pair.public_key().as_der()?.as_ref().to_vec(),
            Self::Rsa(pair) => pair.public_key().as_der()?.as_ref().to_vec(),
        })
    }
}
