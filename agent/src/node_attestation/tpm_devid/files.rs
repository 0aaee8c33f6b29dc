//! The files that a DevID is in, and what SPIRE's configuration says of them.

use std::path::{Path, PathBuf};

use ironroot_attest::node::tpm_devid::MAX_CERTIFICATES;
use ironroot_attest::structures::PublicKey;
use ironroot_attest::tpm::{DevIdKey, DevIdKeyError};
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;
use ironroot_text::pem::{self, PemError};
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use ironroot_text::{FileError, HumanFile};
use thiserror::Error;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use crate::config::{PasswordError, PasswordSource, TpmKeys, read_password};

/// Largest file of certificates accepted, bytes: a few certificates with what openssl writes above them.
const MAX_CERTIFICATE_FILE_BYTES: usize = 256 * 1024;
/// Largest file of a key's part accepted, bytes: one of RSA takes 600.
const MAX_KEY_FILE_BYTES: usize = 4096;

/// Where a DevID is. Read at each attestation: whatever renews the certificate needs no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevIdFiles {
    /// PEM: the DevID certificate, and intermediates behind it or not.
    pub certificate: PathBuf,
    /// TPMT_PUBLIC of its key.
    pub public: PathBuf,
    /// Content of TPM2B_PRIVATE: wrapped by the chip, of use in it alone.
    pub private: PathBuf,
    /// What authorizes the key's use.
    pub password: PasswordSource,
}

/// Why a DevID's files cannot be used. Each message names the file.
#[derive(Debug, Error)]
pub enum DevIdFileError {
    /// It cannot be read, or is no text.
    #[error(transparent)]
    File(#[from] FileError),
    /// A part of the key cannot be read, or everybody may.
    #[error("a part of the DevID key is not used")]
    KeyFile(#[from] SecretFileError),
    /// There is no password, or none that a TPM takes.
    #[error("the password of the DevID key is not used")]
    Password(#[from] PasswordError),
    /// There is something else in it than certificates.
    #[error("{0} holds no usable certificates")]
    Certificates(String, #[source] PemError),
    /// More than a server takes.
    #[error("{0} holds {1} certificates, servers take at most {MAX_CERTIFICATES}: leave out the root")]
    TooMany(String, usize),
    /// The two parts are no key that could attest.
    #[error("the DevID key of {public} and {private} cannot attest")]
    Key {
        /// The file of the public part.
        public: PathBuf,
        /// The file of the private part.
        private: PathBuf,
        /// What is wrong.
        #[source]
        source: DevIdKeyError,
    },
    /// A mix-up of files, or a renewed key without its certificate.
    #[error("the certificate {certificate} is for another key than {public}")]
    OtherKey {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the public part.
        public: PathBuf,
    },
}

/// What is in the files.
pub(super) struct DevId {
    /// The DevID certificate, then intermediates, DER.
    pub(super) certificates: Vec<Vec<u8>>,
    pub(super) key: DevIdKey,
}

/// Reads the keys that `NodeAttestor "tpm_devid"` has.
pub(in super::super) fn read(data: &Section<'_>) -> (Option<DevIdFiles>, TpmKeys) {
    let required = |key, hint| data.required(key, data.path(key), hint);
    let certificate = required("devid_cert_path", "give the PEM file of the DevID certificate");
    let private =
        required("devid_priv_path", "give the file with the private part of the DevID key, wrapped by the TPM");
    let public = required("devid_pub_path", "give the file with the public part of the DevID key");
    let password = read_password(data, "devid_password").unwrap_or_default();
    let tpm = TpmKeys::read_of_rsa(data);
    let (Some(certificate), Some(private), Some(public)) = (certificate, private, public) else { return (None, tpm) };
    let files = DevIdFiles { certificate, public, private, password };
    data.look("devid_cert_path", || files.load().map(drop).map_err(|error| describe(&error)));
    (Some(files), tpm)
}

impl DevIdFiles {
    /// Reads all three, which must be of one another.
    pub(super) fn load(&self) -> Result<DevId, DevIdFileError> {
        let certificates = read_certificates(&self.certificate)?;
        let public = secret_file::read(&self.public, MAX_KEY_FILE_BYTES, Readers::Everybody)?;
        let private = secret_file::read(&self.private, MAX_KEY_FILE_BYTES, Readers::Everybody)?;
        let key = DevIdKey::new(&public, &private, self.password.read()?).map_err(|source| DevIdFileError::Key {
            public: self.public.clone(),
            private: self.private.clone(),
            source,
        })?;
        if certificates.first().and_then(|der| key_of(der)).as_ref() != Some(key.key()) {
            let (certificate, public) = (self.certificate.clone(), self.public.clone());
            return Err(DevIdFileError::OtherKey { certificate, public });
        }
        Ok(DevId { certificates, key })
    }
}

fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, DevIdFileError> {
    let file = HumanFile::regular(path, MAX_CERTIFICATE_FILE_BYTES)?;
    let certificates = pem::certificates(file.text());
    let certificates = certificates.map_err(|error| DevIdFileError::Certificates(file.name().to_owned(), error))?;
    if certificates.len() > MAX_CERTIFICATES {
        return Err(DevIdFileError::TooMany(file.name().to_owned(), certificates.len()));
    }
    Ok(certificates.iter().map(|certificate| certificate.to_vec()).collect())
}

fn key_of(der: &[u8]) -> Option<PublicKey> {
    let certificate = Certificate::from_der(der).ok()?;
    let spki = certificate.tbs_certificate().subject_public_key_info().to_der().ok()?;
    PublicKey::from_spki_der(&spki).ok()
}
