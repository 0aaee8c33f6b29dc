//! Files of certificates.

use std::path::Path;

use ironroot_api::certificate::Certificate;
use ironroot_text::HumanFile;

use super::CertificateFileError;

/// Largest file accepted, bytes: more certificates than there may be.
const MAX_FILE_BYTES: usize = 1024 * 1024;

/// The certificates of a PEM file, at least one.
pub(in crate::ca::upstream) fn certificates(path: &Path) -> Result<Vec<Certificate>, CertificateFileError> {
    let file = HumanFile::regular(path, MAX_FILE_BYTES)?;
    Certificate::parse_pem(file.text()).map_err(|error| CertificateFileError::Content(file.name().to_owned(), error))
}
