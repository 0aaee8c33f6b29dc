//! Where the account's key and what a CA issued are kept: a directory for each CA, files for their owner alone, each replaced as a whole.

use std::io;
use std::path::{Path, PathBuf};

use ironroot_api::directory::{DirectoryError, prepare_ours};
use ironroot_shell::durable_file;
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use rcgen::KeyPair;
use thiserror::Error;
use zeroize::Zeroizing;

use super::certificate::WebCertificate;
use super::error::AcmeError;
use crate::facts::federation::EndpointUrl;

/// Nobody else's.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Largest file read, bytes: a key and what [`Courier`](super::courier) reads of an answer at the most.
const MAX_FILE_BYTES: usize = 160 * 1024;
/// No DNS name has a plus in it. Source of the name: Go's autocert, so SPIRE.
const ACCOUNT: &str = "acme_account+key";

/// Why a folder, or a file in it, cannot be used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum FolderError {
    #[error("cannot use the directory of ACME certificates")]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    #[error("cannot write {path}", path = .0.display())]
    Write(PathBuf, #[source] io::Error),
}

/// What is kept of one CA.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it if it is missing, below `base`. What one CA issued is not shown as another's. Blocks, as all of this does.
    pub(super) fn open(base: &Path, ca: &EndpointUrl) -> Result<Self, FolderError> {
        let named = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
        let host: String = ca.host().chars().map(named).collect();
        let folder = base.join(format!("{host}_{}", ca.port()));
        prepare_ours(base, DIRECTORY_MODE)?;
        prepare_ours(&folder, DIRECTORY_MODE)?;
        Ok(Self(folder))
    }

    /// The account's key: what is kept, or a new one, which is kept before it is used.
    pub(super) fn account_key(&self) -> Result<KeyPair, AcmeError> {
        if let Some(kept) = self.read(ACCOUNT)? {
            let key = str::from_utf8(&kept).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
            match key {
                Some(key) => return Ok(key),
                None => {
                    tracing::warn!(path = %self.0.join(ACCOUNT).display(), "the key of the ACME account cannot be read; a new one is made")
                }
            }
        }
        let key = KeyPair::generate()?;
        self.write(ACCOUNT, Zeroizing::new(key.serialize_pem()).as_bytes())?;
        Ok(key)
    }

    /// What is kept for `name`, if it can still be shown at `now`.
    pub(super) fn certificate(&self, name: &str, now: i64) -> Result<Option<WebCertificate>, FolderError> {
        let Some(kept) = self.read(&certificate_file(name))? else { return Ok(None) };
        match WebCertificate::judge(kept, name, now) {
            Ok(certificate) => Ok(Some(certificate)),
            Err(refusal) => {
                tracing::info!(
                    name,
                    error = &refusal as &dyn std::error::Error,
                    "the certificate that was kept cannot be shown"
                );
                Ok(None)
            }
        }
    }

    /// Keeps what was issued for `name`.
    pub(super) fn keep(&self, name: &str, certificate: &WebCertificate) -> Result<(), FolderError> {
        self.write(&certificate_file(name), &certificate.pem)
    }

    fn read(&self, file: &str) -> Result<Option<Zeroizing<Vec<u8>>>, FolderError> {
        match secret_file::read(&self.0.join(file), MAX_FILE_BYTES, Readers::Owner) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(SecretFileError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&self, file: &str, content: &[u8]) -> Result<(), FolderError> {
        let path = self.0.join(file);
        durable_file::replace(&path, content, FILE_MODE).map_err(|error| FolderError::Write(path, error))
    }
}

/// Names of the configuration are DNS names: no slash, no plus.
fn certificate_file(name: &str) -> String {
    format!("{name}.pem")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use rcgen::CertificateParams;

    use super::*;

    const NAME: &str = "bundle.example";

    fn folder(base: &Path, ca: &str) -> Folder {
        Folder::open(base, &EndpointUrl::parse(ca).expect("a URL")).expect("made")
    }

    fn certificate() -> WebCertificate {
        let key = KeyPair::generate().expect("key");
        let chain = CertificateParams::new(vec![NAME.to_owned()]).expect("legal").self_signed(&key).expect("signed");
        let pem = format!("{}{}", key.serialize_pem(), chain.pem());
        WebCertificate::judge(Zeroizing::new(pem.into_bytes()), NAME, 0).expect("good")
    }

    #[test]
    fn account_and_certificates_are_kept_for_their_owner_alone_each_cas_apart() {
        let base = tempfile::tempdir().expect("directory");
        let ours = folder(base.path(), "https://ca.example/dir");
        let key = ours.account_key().expect("made").serialize_der();
        assert_eq!(ours.account_key().expect("kept").serialize_der(), key);
        assert!(ours.certificate(NAME, 0).expect("looked").is_none());
        ours.keep(NAME, &certificate()).expect("kept");
        assert!(ours.certificate(NAME, 0).expect("looked").is_some());
        assert!(ours.certificate(NAME, i64::MAX).expect("looked").is_none(), "it has ended");
        for file in [ACCOUNT, "bundle.example.pem"] {
            let mode = fs::metadata(ours.0.join(file)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        assert_eq!(fs::metadata(&ours.0).expect("there").permissions().mode() & 0o777, 0o700);
        let other = folder(base.path(), "https://staging.ca.example/dir");
        assert!(other.certificate(NAME, 0).expect("looked").is_none());
        assert_ne!(other.account_key().expect("made").serialize_der(), key);
    }

    #[test]
    fn files_that_others_may_read_are_refused_and_damaged_ones_are_made_anew() {
        let base = tempfile::tempdir().expect("directory");
        let folder = folder(base.path(), "https://ca.example/dir");
        let key = folder.account_key().expect("made").serialize_der();
        let path = folder.0.join(ACCOUNT);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("set");
        let refused = folder.account_key().expect_err("the group may read it");
        assert!(matches!(refused, AcmeError::Folder(FolderError::Secret(SecretFileError::Shared(_)))), "{refused}");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("set");
        fs::write(&path, "half").expect("written");
        assert_ne!(folder.account_key().expect("made anew").serialize_der(), key);
        folder.keep(NAME, &certificate()).expect("kept");
        fs::write(folder.0.join("bundle.example.pem"), "half").expect("written");
        assert!(folder.certificate(NAME, 0).expect("looked").is_none());
    }
}
