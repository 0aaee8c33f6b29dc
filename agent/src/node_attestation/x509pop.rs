//! `NodeAttestor "x509pop"`: a certificate that the device was given, with its key, in files as SPIRE's agent has them.

use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use ironroot_attest::node::x509pop::{ATTESTATION_TYPE, Holder, HolderError, NONCE_BYTES};
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;
use ironroot_text::pem::{self, PemError};
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use ironroot_text::{FileError, HumanFile, TextError, decode};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use zeroize::Zeroizing;

/// The attestation type.
pub(super) const TYPE: &str = ATTESTATION_TYPE;

/// Largest file accepted, bytes: a few certificates with what openssl writes above them, or a key.
const MAX_FILE_BYTES: usize = 256 * 1024;

/// Where the device's certificate and its key are. Read at each attestation: whatever renews them needs no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM: PKCS#8, PKCS#1 or SEC 1.
    pub private_key: PathBuf,
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
        /// The file of its key.
        private_key: PathBuf,
        /// What is wrong.
        #[source]
        source: HolderError,
    },
    /// The answer to the server's challenge could not be made.
    #[error("the server's challenge cannot be answered")]
    Challenge(#[source] HolderError),
}

/// Reads the keys that `NodeAttestor "x509pop"` has.
pub(super) fn read(data: &Section<'_>) -> Option<CertificateFiles> {
    data.not_supported("ironroot-agent", &["spiffe_endpoint_socket"]);
    let required = |key, hint| data.required(key, data.path(key), hint);
    let private_key = required("private_key_path", "give the PEM file of the key of the device's certificate");
    let certificate = required("certificate_path", "give the PEM file of the device's certificate");
    let intermediates = data.path("intermediates_path");
    let files = CertificateFiles { private_key: private_key?, certificate: certificate?, intermediates };
    data.look("certificate_path", || files.holder().map(drop).map_err(|error| describe(&error)));
    Some(files)
}

impl CertificateFiles {
    fn holder(&self) -> Result<Holder, X509PopFailure> {
        let mut certificates = read_certificates(&self.certificate)?;
        if let Some(intermediates) = &self.intermediates {
            certificates.extend(read_certificates(intermediates)?);
        }
        let key = read_key(&self.private_key)?;
        Holder::new(certificates, &key).map_err(|source| X509PopFailure::Holder {
            certificate: self.certificate.clone(),
            private_key: self.private_key.clone(),
            source,
        })
    }

    /// Reads the files.
    pub(super) async fn prover(&self) -> Result<Prover, X509PopFailure> {
        let files = self.clone();
        let read = tokio::task::spawn_blocking(move || files.holder()).await;
        read.expect("reading files does not panic").map(Prover)
    }
}

/// Proves that this device has the key of its certificate.
pub(super) struct Prover(Holder);

impl Prover {
    /// The first message.
    pub(super) fn evidence(&self) -> Vec<u8> {
        self.0.evidence()
    }

    /// The answer to a challenge.
    pub(super) fn respond(&self, challenge: &[u8]) -> Result<Vec<u8>, X509PopFailure> {
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).expect("the kernel's random source does not fail once it has been seeded");
        self.0.respond(challenge, nonce).map_err(X509PopFailure::Challenge)
    }
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
    fn files(directory: &Path) -> CertificateFiles {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::default();
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        let files = CertificateFiles {
            private_key: directory.join("device.key"),
            certificate: directory.join("device.pem"),
            intermediates: None,
        };
        fs::write(&files.certificate, params.self_signed(&key).expect("signed").pem()).expect("written");
        write_key(&files.private_key, &key.serialize_pem());
        files
    }

    fn write_key(path: &Path, pem: &str) {
        fs::write(path, pem).expect("written");
        fs::set_permissions(path, Permissions::from_mode(0o600)).expect("ours");
    }

    fn failure(files: &CertificateFiles) -> String {
        files.holder().map(drop).map_err(|error| describe(&error)).expect_err("refused")
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said_with_their_names() {
        let directory = tempfile::tempdir().expect("directory");
        let good = files(directory.path());
        good.holder().expect("a certificate and its key");
        let both = CertificateFiles { intermediates: Some(good.certificate.clone()), ..good.clone() };
        both.holder().expect("with an intermediate");

        for open in [0o644, 0o602, 0o601] {
            fs::set_permissions(&good.private_key, Permissions::from_mode(open)).expect("ours");
            assert!(failure(&good).contains("chmod o="), "{open:o}: {}", failure(&good));
        }
        write_key(&good.private_key, &rcgen::KeyPair::generate().expect("key").serialize_pem());
        assert!(failure(&good).contains("is not that of the certificate"), "{}", failure(&good));
        write_key(&good.private_key, "no key");
        assert!(failure(&good).contains("device.key holds no private key"), "{}", failure(&good));
        fs::write(&good.certificate, "no certificate").expect("written");
        assert!(failure(&good).contains("device.pem holds no usable certificates"), "{}", failure(&good));
        fs::remove_file(&good.certificate).expect("ours");
        assert!(failure(&good).contains("device.pem"), "{}", failure(&good));
    }
}
