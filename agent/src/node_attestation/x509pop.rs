//! `NodeAttestor "x509pop"`: a certificate that the device was given, in files as SPIRE's agent has them; its key in a file, in a
//! PKCS#11 token or in the TPM.

mod key_source;

use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use ironroot_attest::node::x509pop::{ATTESTATION_TYPE, Holder, HolderError, NONCE_BYTES, Shown};
use ironroot_attest::tpm::TpmError;
use ironroot_hsm::KeyName;
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;
use ironroot_text::pem::{self, PemError};
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use ironroot_text::{FileError, HumanFile, TextError, decode};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use zeroize::Zeroizing;

use super::Device;
use crate::config::TpmKeys;
use crate::token::TokenFailure;
use key_source::HardwareKey;
pub use key_source::KeySource;

/// The attestation type.
pub(super) const TYPE: &str = ATTESTATION_TYPE;

/// Largest file accepted, bytes: a few certificates with what openssl writes above them, or a key.
const MAX_FILE_BYTES: usize = 256 * 1024;

/// Where the device's certificate and its key are. Read at each attestation: whatever renews them needs no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSource<Chip> {
    /// Of the device's certificate.
    pub key: KeySource<Chip>,
    /// PEM: the device's certificate, and intermediates behind it or not.
    pub certificate: PathBuf,
    /// PEM: further intermediates.
    pub intermediates: Option<PathBuf>,
}

/// Why the device's certificate did not attest. Each message names the file.
#[derive(Debug, Error)]
pub enum X509PopFailure {
    /// It cannot be read, or is no text.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key cannot be read, or every user of the machine could attest as this device.
    #[error("the file with the device's private key is not used")]
    KeyFile(#[from] SecretFileError),
    /// The key is no text.
    #[error("the private key {0} is no text")]
    KeyText(PathBuf, #[source] TextError),
    /// There is something else in it than certificates.
    #[error("{0} holds no usable certificates")]
    Certificates(String, #[source] PemError),
    /// No key that we know the form of.
    #[error("{0} holds no private key in PEM without a password: PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY")]
    NoKey(PathBuf),
    /// They are not of one another, or cannot be used.
    #[error("the certificate {certificate} with the key {private_key} cannot attest")]
    Holder {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file, token or handle of its key.
        private_key: String,
        /// What is wrong.
        #[source]
        source: HolderError,
    },
    /// The token with the key is away, or does not sign.
    #[error("the token with the private key of the device's certificate cannot be used")]
    Token(#[from] TokenFailure),
    /// It has no such key.
    #[error("the token has no key with {0}: correct private_key_uri")]
    NoTokenKey(KeyName),
    /// Tokens are asked for keys of a few kinds.
    #[error(
        "the certificate's key is of a kind that is not looked for in a token: use P-256, P-384, or RSA of 2048 or 4096 bits"
    )]
    TokenKeyKind,
    /// The chip with the key is away, or does not sign.
    #[error("the TPM cannot sign with the key at handle {handle:#x}")]
    Chip {
        /// As private_key_uri names it.
        handle: u32,
        /// Why.
        #[source]
        source: TpmError,
    },
    /// The answer to the server's challenge could not be made.
    #[error("the server's challenge cannot be answered")]
    Challenge(#[source] HolderError),
}

impl X509PopFailure {
    fn is_of_the_key_alone(&self) -> bool {
        matches!(self, Self::KeyFile(_) | Self::KeyText(..) | Self::NoKey(_))
    }
}

/// Reads the keys that `NodeAttestor "x509pop"` has, with what they say of the TPM.
pub(super) fn read(data: &Section<'_>) -> Option<(CertificateSource<()>, TpmKeys)> {
    data.not_supported("ironroot-agent", &["spiffe_endpoint_socket"]);
    let key = key_source::read(data);
    let hint = "give the PEM file of the device's certificate";
    let certificate = data.required("certificate_path", data.path("certificate_path"), hint);
    let intermediates = data.path("intermediates_path");
    let (key, tpm) = key?;
    let source = CertificateSource { key, certificate: certificate?, intermediates };
    if let KeySource::File(path) = &source.key {
        data.look("private_key_path", || read_key(path).map(drop).map_err(|error| describe(&error)));
    }
    data.look("certificate_path", || match source.look() {
        Err(error) if !error.is_of_the_key_alone() => Err(describe(&error)),
        _ => Ok(()),
    });
    Some((source, tpm))
}

impl<Chip> CertificateSource<Chip> {
    /// The same with what is known of the chip by now.
    pub(super) fn on<More>(self, chip: impl FnOnce(Chip) -> More) -> CertificateSource<More> {
        let Self { key, certificate, intermediates } = self;
        CertificateSource { key: key.on(chip), certificate, intermediates }
    }

    /// The TPM, if the key is in one.
    pub(super) fn chip(&self) -> Option<&Chip> {
        match &self.key {
            KeySource::Chip { chip, .. } => Some(chip),
            KeySource::File(_) | KeySource::Token { .. } => None,
        }
    }

    /// What can be looked at without opening a token or a chip.
    fn look(&self) -> Result<(), X509PopFailure> {
        match &self.key {
            KeySource::File(path) => self.holder(path).map(drop),
            KeySource::Token { .. } | KeySource::Chip { .. } => self.shown().map(drop),
        }
    }

    fn holder(&self, path: &Path) -> Result<Holder, X509PopFailure> {
        let (certificates, key) = (self.certificates()?, read_key(path)?);
        Holder::new(certificates, &key).map_err(|source| self.misfit(source))
    }

    fn shown(&self) -> Result<Shown, X509PopFailure> {
        Shown::new(self.certificates()?).map_err(|source| self.misfit(source))
    }

    fn certificates(&self) -> Result<Vec<Vec<u8>>, X509PopFailure> {
        let mut certificates = read_certificates(&self.certificate)?;
        if let Some(intermediates) = &self.intermediates {
            certificates.extend(read_certificates(intermediates)?);
        }
        Ok(certificates)
    }

    fn misfit(&self, source: HolderError) -> X509PopFailure {
        X509PopFailure::Holder { certificate: self.certificate.clone(), private_key: self.key.to_string(), source }
    }
}

impl CertificateSource<Device> {
    /// Reads the files, and looks for the key where it is.
    pub(super) async fn prover(&self) -> Result<Prover, X509PopFailure> {
        let source = self.clone();
        if let KeySource::File(path) = &self.key {
            let path = path.clone();
            return reading(move || source.holder(&path)).await.map(|holder| Prover::Software(Box::new(holder)));
        }
        let shown = reading(move || source.shown()).await?;
        let key = HardwareKey::find(&self.key, shown.key()).await?;
        // A mix-up is told here, with its names, and not by the server.
        let trial = shown.trial(fresh_nonce());
        trial.answer(key.sign(&trial).await?).map_err(|source| self.misfit(source))?;
        Ok(Prover::Hardware(shown, key))
    }
}

/// Proves that this device has the key of its certificate.
pub(super) enum Prover {
    Software(Box<Holder>),
    Hardware(Shown, HardwareKey),
}

impl Prover {
    /// The first message.
    pub(super) fn evidence(&self) -> Vec<u8> {
        match self {
            Self::Software(holder) => holder.evidence(),
            Self::Hardware(shown, _) => shown.evidence(),
        }
    }

    /// The answer to a challenge.
    pub(super) async fn respond(&self, challenge: &[u8]) -> Result<Vec<u8>, X509PopFailure> {
        let nonce = fresh_nonce();
        match self {
            Self::Software(holder) => holder.respond(challenge, nonce),
            Self::Hardware(shown, key) => match shown.question(challenge, nonce) {
                Ok(question) => question.answer(key.sign(&question).await?),
                Err(error) => Err(error),
            },
        }
        .map_err(X509PopFailure::Challenge)
    }
}

async fn reading<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, X509PopFailure> + Send + 'static,
) -> Result<T, X509PopFailure> {
    tokio::task::spawn_blocking(read).await.expect("reading files does not panic")
}

fn fresh_nonce() -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    rand::fill(&mut nonce).expect("the kernel's random source does not fail once it has been seeded");
    nonce
}

fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, X509PopFailure> {
    let file = HumanFile::regular(path, MAX_FILE_BYTES)?;
    let certificates = pem::certificates(file.text());
    let certificates = certificates.map_err(|error| X509PopFailure::Certificates(file.name().to_owned(), error))?;
    Ok(certificates.iter().map(|certificate| certificate.to_vec()).collect())
}

fn read_key(path: &Path) -> Result<Zeroizing<PrivateKeyDer<'static>>, X509PopFailure> {
    let bytes = secret_file::read(path, MAX_FILE_BYTES, Readers::OwnerAndGroup)?;
    let text = decode(&bytes).map_err(|error| X509PopFailure::KeyText(path.to_owned(), error))?;
    let text = Zeroizing::new(text.into_owned());
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes());
    key.map(Zeroizing::new).map_err(|_| X509PopFailure::NoKey(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Files of a device in a directory of its own.
    fn files(directory: &Path) -> CertificateSource<()> {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::default();
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        let path = directory.join("device.key");
        let files = CertificateSource {
            key: KeySource::File(path.clone()),
            certificate: directory.join("device.pem"),
            intermediates: None,
        };
        fs::write(&files.certificate, params.self_signed(&key).expect("signed").pem()).expect("written");
        write_key(&path, &key.serialize_pem());
        files
    }

    fn write_key(path: &Path, pem: &str) {
        fs::write(path, pem).expect("written");
        fs::set_permissions(path, Permissions::from_mode(0o600)).expect("ours");
    }

    fn failure(files: &CertificateSource<()>) -> String {
        files.look().map_err(|error| describe(&error)).expect_err("refused")
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said_with_their_names() {
        let directory = tempfile::tempdir().expect("directory");
        let (good, key) = (files(directory.path()), directory.path().join("device.key"));
        good.look().expect("a certificate and its key");
        let both = CertificateSource { intermediates: Some(good.certificate.clone()), ..good.clone() };
        both.look().expect("with an intermediate");

        for open in [0o644, 0o602, 0o601] {
            fs::set_permissions(&key, Permissions::from_mode(open)).expect("ours");
            assert!(failure(&good).contains("chmod o="), "{open:o}: {}", failure(&good));
        }
        write_key(&key, &rcgen::KeyPair::generate().expect("key").serialize_pem());
        assert!(failure(&good).contains("is not that of the certificate"), "{}", failure(&good));
        write_key(&key, "no key");
        assert!(failure(&good).contains("device.key holds no private key"), "{}", failure(&good));
        fs::write(&good.certificate, "no certificate").expect("written");
        assert!(failure(&good).contains("device.pem holds no usable certificates"), "{}", failure(&good));
        fs::remove_file(&good.certificate).expect("ours");
        assert!(failure(&good).contains("device.pem"), "{}", failure(&good));
    }
}
