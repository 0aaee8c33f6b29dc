//! The user PIN: from a file or an environment variable, zeroised, never printed.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cryptoki::types::AuthPin;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use thiserror::Error;
use zeroize::Zeroizing;

/// Longest PIN accepted, bytes. PKCS#11 tokens report their own limits; none known exceeds this.
pub const MAX_PIN_BYTES: usize = 255;

/// Why there is no PIN.
#[derive(Debug, Error)]
pub enum PinError {
    /// The file cannot be read.
    #[error("cannot read PIN file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Others could read or replace the PIN.
    #[error("PIN file {} {problem}; run: chmod 0600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The environment variable is not set.
    #[error("environment variable {0} with the PIN is not set")]
    NotSet(String),
    /// Empty, too long, or not text.
    #[error("PIN from {0} must be 1 to {MAX_PIN_BYTES} bytes of UTF-8 on one line")]
    Malformed(String),
}

/// A user PIN. Its memory is wiped on drop; it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin(Zeroizing<String>);

impl Pin {
    /// Reads the PIN from the first line of `path`, which only its owner (this user or root) may access.
    pub fn from_file(path: &Path) -> Result<Self, PinError> {
        let read = |source| PinError::Read { path: path.to_owned(), source };
        // The checks are made on the open file, so it cannot be exchanged in between.
        // Without O_NONBLOCK, opening a pipe would wait for its writer.
        let nonblocking = OFlag::O_NONBLOCK.bits();
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(read)?;
        let facts = file.metadata().map_err(read)?;
        if let Some(problem) = exposure(facts.is_file(), facts.mode(), facts.uid()) {
            return Err(PinError::Exposed { path: path.to_owned(), problem });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PIN_BYTES + 2));
        file.take(MAX_PIN_BYTES as u64 + 2).read_to_end(&mut bytes).map_err(read)?;
        Self::parse(&bytes, &path.display().to_string())
    }

    /// Reads the PIN from the environment variable `name`.
    pub fn from_env(name: &str) -> Result<Self, PinError> {
        let value = std::env::var_os(name).ok_or_else(|| PinError::NotSet(name.to_owned()))?;
        let bytes = Zeroizing::new(value.into_encoded_bytes());
        Self::parse(&bytes, name)
    }

    fn parse(bytes: &[u8], source: &str) -> Result<Self, PinError> {
        let malformed = || PinError::Malformed(source.to_owned());
        let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() || text.len() > MAX_PIN_BYTES || text.contains(['\n', '\r', '\0']) {
            return Err(malformed());
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    pub(crate) fn to_auth_pin(&self) -> AuthPin {
        AuthPin::from(self.0.as_str())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(redacted)")
    }
}

/// What is wrong with a PIN file of this kind, mode and owner.
fn exposure(is_file: bool, mode: u32, owner: u32) -> Option<String> {
    if !is_file {
        return Some("is not a regular file".to_owned());
    }
    if mode & 0o077 != 0 {
        return Some(format!("has mode {:04o} and is open to other users", mode & 0o7777));
    }
    (owner != 0 && owner != geteuid().as_raw()).then(|| format!("belongs to user {owner}"))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn pin_file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        write(&path, content).unwrap();
        set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn refuses_a_file_that_others_may_touch() {
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
            let (_dir, path) = pin_file(b"1234\n", mode);
            assert!(matches!(Pin::from_file(&path), Err(PinError::Exposed { .. })), "{mode:o}");
        }
        for mode in [0o600, 0o400] {
            let (_dir, path) = pin_file(b"1234\n", mode);
            assert!(Pin::from_file(&path).is_ok(), "{mode:o}");
        }
        assert!(matches!(Pin::from_file(Path::new("/")), Err(PinError::Exposed { .. })));
        assert!(exposure(true, 0o600, geteuid().as_raw() + 1).is_some());
        assert!(matches!(Pin::from_file(Path::new("/nowhere")), Err(PinError::Read { .. })));
    }

    #[test]
    fn takes_one_line_of_text() {
        for (content, good) in [
            (&b"1234"[..], true),
            (b"1234\n", true),
            (b"1234\r\n", true),
            (b"a b\n", true),
            (b"", false),
            (b"\n", false),
            (b"12\n34\n", false),
            (b"12\0", false),
            (b"\xff\xfe", false),
            (&[b'1'; 255], true),
            (&[b'1'; 256], false),
        ] {
            let (_dir, path) = pin_file(content, 0o600);
            assert_eq!(Pin::from_file(&path).is_ok(), good, "{content:?}");
        }
    }

    #[test]
    fn never_prints_the_pin() {
        let (_dir, path) = pin_file(b"secret-pin\n", 0o600);
        assert_eq!(format!("{:?}", Pin::from_file(&path).unwrap()), "Pin(redacted)");
    }

    #[test]
    fn an_unset_variable_is_named() {
        let error = Pin::from_env("IRONROOT_NO_SUCH_PIN").unwrap_err();
        assert_eq!(error.to_string(), "environment variable IRONROOT_NO_SUCH_PIN with the PIN is not set");
    }
}
