//! Files of TPM makers' CAs.

use std::path::Path;

use ironroot_attest::ek_certificate::{EkCertificateError, ManufacturerRoots};
use ironroot_text::{FileError, HumanFile};
use thiserror::Error;

/// Largest file accepted, bytes: all makers' CAs together are some hundred kB.
const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;

/// Why such a file cannot be used. Each message names the file.
#[derive(Debug, Error)]
pub enum ManufacturerFileError {
    /// It cannot be read, or is no text.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is something else in it than certificates.
    #[error("{0} holds no usable roots")]
    Roots(String, #[source] EkCertificateError),
}

/// The roots in the file at `path`. Each file is read by itself: a frame that one leaves open must not swallow the first
/// certificate of the next.
pub fn read_manufacturer_roots(path: &Path) -> Result<ManufacturerRoots, ManufacturerFileError> {
    let file = HumanFile::regular(path, MAX_FILE_BYTES)?;
    ManufacturerRoots::from_pem(file.text())
        .map_err(|error| ManufacturerFileError::Roots(file.name().to_owned(), error))
}

#[cfg(test)]
mod tests {
    use ironroot_shell::command_line::describe;

    use super::*;

    #[test]
    fn every_root_counts_and_what_is_wrong_names_the_file() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("makers.pem");
        let root = || {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
            let mut root = rcgen::CertificateParams::default();
            root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            root.self_signed(&key).expect("root").pem()
        };
        std::fs::write(&path, format!("\u{feff}{}\u{feff}{}", root(), root())).expect("written");
        read_manufacturer_roots(&path).expect("roots");
        std::fs::write(&path, format!("{}----BEGIN CERTIFICATE-----\n", root())).expect("written");
        let error = describe(&read_manufacturer_roots(&path).expect_err("refused"));
        assert!(error.starts_with(&path.display().to_string()) && error.contains("is nearly a PEM line"), "{error}");
        std::fs::write(&path, b"\x30\x82\x01\x01\x30").expect("written");
        let error = describe(&read_manufacturer_roots(&path).expect_err("refused"));
        assert!(error.contains("it is DER: convert it with: openssl x509"), "{error}");
    }
}
