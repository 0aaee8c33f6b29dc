//! A certificate of the web's in files that somebody else renews: taken in when they change; a bad new one changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ironroot_api::tls::{SvidResolver, provider};
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use ironroot_text::{FileError, HumanFile};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::time::MissedTickBehavior;
use zeroize::Zeroizing;

/// A certificate and its key in PEM files, which somebody else renews.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// How often they are looked at.
    pub sync_interval: Duration,
}

/// Largest file read, bytes: a chain is a few kB.
const MAX_FILE_BYTES: usize = 256 * 1024;

/// Why the files hold no certificate that can be shown. Each message names the file.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum ServingCertificateError {
    #[error(transparent)]
    Certificate(#[from] FileError),
    #[error(transparent)]
    Key(#[from] SecretFileError),
    #[error("{} holds no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} holds no private key in PEM without a password", .0.display())]
    NoKey(PathBuf),
    #[error("the private key in {} is not that of the first certificate in {}, or of no kind that is known", key.display(), certificate.display())]
    OtherKey {
        certificate: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
}

/// A certificate from files, shown by [`resolver`](Self::resolver).
#[derive(Debug)]
pub struct ServingCertificate {
    files: CertificateFiles,
    resolver: Arc<SvidResolver>,
    /// What was tried last, good or bad: the same is not tried twice.
    tried: Contents,
}

/// The bytes of both files, or which of them could not be read; the key's are wiped.
#[derive(PartialEq)]
struct Contents {
    certificate: Option<Vec<u8>>,
    key: Option<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contents(..)")
    }
}

impl ServingCertificate {
    /// Reads both files. Blocks.
    pub fn load(files: CertificateFiles) -> Result<Self, ServingCertificateError> {
        let (tried, certified) = read(&files);
        Ok(Self { files, resolver: SvidResolver::new(certified?), tried })
    }

    /// What TLS shows.
    pub fn resolver(&self) -> Arc<SvidResolver> {
        self.resolver.clone()
    }

    /// Of the certificate's file.
    pub fn path(&self) -> &Path {
        &self.files.certificate
    }

    /// Looks at the files now and then, for ever.
    pub async fn keep_current(mut self) {
        let mut tick = tokio::time::interval(self.files.sync_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let files = self.files.clone();
            let Ok((found, certified)) = tokio::task::spawn_blocking(move || read(&files)).await else { continue };
            self.take(found, certified);
        }
    }

    /// Looks at the files now. Blocks.
    pub(crate) fn look(&mut self) {
        let (found, certified) = read(&self.files);
        self.take(found, certified);
    }

    /// Shows what was found, if it is new and good.
    fn take(&mut self, found: Contents, certified: Result<CertifiedKey, ServingCertificateError>) {
        if found == self.tried {
            return;
        }
        self.tried = found;
        let path = self.files.certificate.display();
        match certified {
            Ok(certified) => {
                self.resolver.replace(certified);
                tracing::info!(%path, "serving certificate replaced");
            }
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "the new serving certificate cannot be used; the one from before stays"
            ),
        }
    }
}

fn read(files: &CertificateFiles) -> (Contents, Result<CertifiedKey, ServingCertificateError>) {
    let (certificate, key) = (read_chain(&files.certificate), read_key(&files.key));
    let contents = Contents { certificate: certificate.as_ref().ok().cloned(), key: key.as_ref().ok().cloned() };
    let certified = certificate.and_then(|certificate| certified(files, &certificate, &key?));
    (contents, certified)
}

/// As text, whatever mark or line ends it has.
fn read_chain(path: &Path) -> Result<Vec<u8>, ServingCertificateError> {
    Ok(HumanFile::regular(path, MAX_FILE_BYTES)?.into_text().into_bytes())
}

fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, ServingCertificateError> {
    Ok(secret_file::read(path, MAX_FILE_BYTES, Readers::OwnerAndGroup)?)
}

fn certified(
    files: &CertificateFiles,
    certificate: &[u8],
    key: &[u8],
) -> Result<CertifiedKey, ServingCertificateError> {
    let none = || ServingCertificateError::NoCertificate(files.certificate.clone());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|_| none())?;
    if chain.is_empty() {
        return Err(none());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| ServingCertificateError::NoKey(files.key.clone()))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|source| ServingCertificateError::OtherKey {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use ironroot_text::FileProblem;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    struct Fixture {
        _directory: tempfile::TempDir,
        files: CertificateFiles,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("directory");
            let at = |name: &str| directory.path().join(name);
            let files =
                CertificateFiles { certificate: at("c.pem"), key: at("k.pem"), sync_interval: Duration::from_secs(1) };
            Self { files, _directory: directory }
        }

        fn write(&self, certificate: &str, key: &str) {
            fs::write(&self.files.certificate, certificate).expect("written");
            fs::write(&self.files.key, key).expect("written");
            fs::set_permissions(&self.files.key, fs::Permissions::from_mode(0o600)).expect("set");
        }
    }

    fn identity() -> (String, String) {
        let key = KeyPair::generate().expect("key");
        let params = CertificateParams::new(vec!["bundle.example".to_owned()]).expect("legal");
        (params.self_signed(&key).expect("signed").pem(), key.serialize_pem())
    }

    #[test]
    fn each_thing_that_is_wrong_with_the_files_is_told_by_its_name() {
        let fixture = Fixture::new();
        let refused = || ServingCertificate::load(fixture.files.clone()).expect_err("refused");
        assert!(
            matches!(refused(), ServingCertificateError::Certificate(error) if error.name == fixture.files.certificate.display().to_string())
        );
        let ((certificate, key), (_, other)) = (identity(), identity());
        fixture.write("", &key);
        assert!(matches!(refused(), ServingCertificateError::NoCertificate(_)));
        fixture.write(&certificate, "");
        assert!(matches!(refused(), ServingCertificateError::NoKey(_)));
        fixture.write(&certificate, &other);
        assert!(matches!(refused(), ServingCertificateError::OtherKey { .. }));
        fixture.write(&"x".repeat(300_000), &key);
        let too_large = |error: &FileError| matches!(error.problem, FileProblem::TooLarge(MAX_FILE_BYTES));
        assert!(matches!(refused(), ServingCertificateError::Certificate(error) if too_large(&error)));
        fixture.write(&certificate, &key);
        assert!(ServingCertificate::load(fixture.files.clone()).is_ok());
        fs::set_permissions(&fixture.files.key, fs::Permissions::from_mode(0o644)).expect("set");
        assert!(matches!(refused(), ServingCertificateError::Key(SecretFileError::Open(_))));
        fs::remove_file(&fixture.files.key).expect("removed");
        nix::unistd::mkfifo(&fixture.files.key, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert!(matches!(refused(), ServingCertificateError::Key(SecretFileError::NotRegular(_))), "and does not wait");
    }

    #[test]
    fn a_good_new_file_is_shown_and_a_bad_one_changes_nothing() {
        let fixture = Fixture::new();
        let (first, second) = (identity(), identity());
        fixture.write(&first.0, &first.1);
        let mut shown = ServingCertificate::load(fixture.files.clone()).expect("loads");
        let resolver = shown.resolver();
        let look = |shown: &mut ServingCertificate| {
            shown.look();
            resolver.chain()
        };
        let before = look(&mut shown);
        // Half renewed: the certificate is new, its key is not there yet.
        fixture.write(&second.0, &first.1);
        assert_eq!(look(&mut shown), before);
        fixture.write(&second.0, &second.1);
        assert_ne!(look(&mut shown), before);
        fixture.write("", "");
        assert_eq!(look(&mut shown), resolver.chain());
        fs::remove_file(&fixture.files.key).expect("removed");
        assert_eq!(look(&mut shown).len(), 1);
    }
}
