//! Where the password of a TPM hierarchy comes from.

use std::path::{Path, PathBuf};

use ironroot_attest::tpm::{HierarchyPassword, TpmError};
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use thiserror::Error;
use zeroize::Zeroizing;

/// Largest password file accepted, bytes: the longest password and a line end.
const MAX_FILE_BYTES: usize = 128;
/// Where systemd puts the files of `LoadCredential=` and its like (systemd.exec(5)).
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Where a password comes from; read when the TPM is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PasswordSource {
    /// The hierarchy has no password, as in most chips.
    #[default]
    Empty,
    /// The configuration file itself, as SPIRE has it.
    Given(HierarchyPassword),
    /// A file; one line end at its end is not part of the password.
    File(PathBuf),
    /// An environment variable, by name.
    Environment(String),
    /// A credential of the service, by name.
    Credential(String),
}

/// Why there is no password.
#[derive(Debug, Error)]
pub enum PasswordError {
    /// The file cannot be read, or others can.
    #[error("the file with the TPM password is not used")]
    File(#[from] SecretFileError),
    /// Longer than a password can be.
    #[error("the TPM password in {0} is longer than a TPM takes")]
    TooLong(String),
    /// The variable is not set.
    #[error("the environment variable {0} with the TPM password is not set")]
    Environment(String),
    /// Not started by systemd, or without credentials.
    #[error(
        "there is no credential {0:?}: $CREDENTIALS_DIRECTORY is not set; name it with LoadCredential= in the service's unit"
    )]
    NoCredentials(String),
}

impl PasswordSource {
    /// Reads it from there, at most 64 bytes; what was read is wiped when it is dropped.
    pub fn read(&self) -> Result<HierarchyPassword, PasswordError> {
        match self {
            Self::Empty => Ok(HierarchyPassword::default()),
            Self::Given(password) => Ok(password.clone()),
            Self::File(path) => from_file(path),
            Self::Environment(name) => {
                let value = std::env::var(name).map_err(|_| PasswordError::Environment(name.clone()))?;
                password(Zeroizing::new(value.into_bytes()), name)
            }
            Self::Credential(name) => {
                let directory = std::env::var_os(CREDENTIALS_DIRECTORY);
                let directory = directory.ok_or_else(|| PasswordError::NoCredentials(name.clone()))?;
                from_file(&Path::new(&directory).join(name))
            }
        }
    }
}

fn from_file(path: &Path) -> Result<HierarchyPassword, PasswordError> {
    let mut bytes = secret_file::read(path, MAX_FILE_BYTES, Readers::OwnerAndGroup)?;
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    password(bytes, &path.display().to_string())
}

fn password(bytes: Zeroizing<Vec<u8>>, place: &str) -> Result<HierarchyPassword, PasswordError> {
    HierarchyPassword::new(bytes).map_err(|_: TpmError| PasswordError::TooLong(place.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), content).expect("written");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("mode");
        file
    }

    fn expected(text: &[u8]) -> HierarchyPassword {
        HierarchyPassword::new(Zeroizing::new(text.to_vec())).expect("short")
    }

    #[test]
    fn a_files_line_end_is_no_part_of_the_password() {
        for content in [b"secret".as_slice(), b"secret\n", b"secret\r\n"] {
            // Mode 0440 with an access list is what systemd's LoadCredential= gives.
            for mode in [0o600, 0o440, 0o400] {
                let file = file(content, mode);
                let read = PasswordSource::File(file.path().to_owned()).read().expect("read");
                assert_eq!(read, expected(b"secret"));
            }
        }
    }

    #[test]
    fn refuses_what_everybody_reads_and_what_is_no_password() {
        let open = file(b"secret", 0o644);
        let read = PasswordSource::File(open.path().to_owned()).read();
        assert!(matches!(read, Err(PasswordError::File(SecretFileError::Open(_)))));
        let longer = file(&[b'x'; 200], 0o600);
        let read = PasswordSource::File(longer.path().to_owned()).read();
        assert!(matches!(read, Err(PasswordError::File(SecretFileError::TooLarge { .. }))));
        let long = file(&[b'x'; 100], 0o600);
        assert!(matches!(PasswordSource::File(long.path().to_owned()).read(), Err(PasswordError::TooLong(_))));
        let missing = PasswordSource::File("/nonexistent/password".into()).read();
        assert!(matches!(missing, Err(PasswordError::File(SecretFileError::Io { .. }))));
        let unset = PasswordSource::Environment("IRONROOT_NO_SUCH_VARIABLE".into()).read();
        assert!(matches!(unset, Err(PasswordError::Environment(_))));
    }
}
