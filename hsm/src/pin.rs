//! The user PIN: from a file, from systemd's credentials or from an environment variable; zeroised, never printed.

mod exposure;

use std::borrow::Cow;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cryptoki::types::AuthPin;
use ironroot_text::{TextError, decode};
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use thiserror::Error;
use zeroize::Zeroizing;

use exposure::{FileFacts, credentials_directory, hand_over};

/// Longest PIN accepted, bytes. PKCS#11 tokens report their own limits; none known exceeds this.
pub const MAX_PIN_BYTES: usize = 255;
/// Why there is no PIN.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum PinError {
    /// The file cannot be read.
    #[error("cannot read PIN file {}; the PIN of the token's user belongs there, on one line", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file is there, but not for this user.
    #[error("user {user} may not read PIN file {}; {}", path.display(), hand_over(path, *user))]
    Forbidden { path: PathBuf, user: u32 },
    /// Others could read or replace the PIN.
    #[error("PIN file {} {problem}; {advice}", path.display())]
    Exposed {
        path: PathBuf,
        /// Whose file it is, or who may read it.
        problem: String,
        /// What to do about it.
        advice: String,
    },
    /// The environment variable is not set.
    #[error("environment variable {0} with the PIN is not set")]
    NotSet(String),
    /// systemd has handed over no credentials.
    #[error(
        "credential {0:?} with the PIN is not there: environment variable CREDENTIALS_DIRECTORY is not set; put \
         LoadCredential={0}:/path/of/the/pin into the service's unit"
    )]
    NoCredentials(String),
    /// A credential's name is one file's name.
    #[error("{0:?} is no name of a credential: give the name before the colon of LoadCredential=, without a path")]
    CredentialName(String),
    /// Empty, too long, or more than one line.
    #[error("PIN from {0} must be 1 to {MAX_PIN_BYTES} bytes of UTF-8 on one line")]
    Malformed(String),
    /// Not text, or in an encoding that is not read.
    #[error("PIN from {0} is not text that can be read")]
    NotText(String, #[source] TextError),
}

/// A user PIN. Its memory is wiped on drop; it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin(Zeroizing<String>);

impl Pin {
    /// Reads the PIN from the first line of `path`, which nobody but this user and root may read or change.
    pub fn from_file(path: &Path) -> Result<Self, PinError> {
        let user = geteuid().as_raw();
        let read = |source: std::io::Error| match source.kind() {
            ErrorKind::PermissionDenied => PinError::Forbidden { path: path.to_owned(), user },
            _ => PinError::Read { path: path.to_owned(), source },
        };
        // The checks are made on the open file, so it cannot be exchanged in between.
        // Without O_NONBLOCK, opening a pipe would wait for its writer.
        let nonblocking = OFlag::O_NONBLOCK.bits();
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(read)?;
        let facts = FileFacts::of(&file).map_err(read)?;
        if let Some(exposure) = facts.exposure(user) {
            let (problem, advice) = (exposure.problem(), exposure.advice(path, user));
            return Err(PinError::Exposed { path: path.to_owned(), problem, advice });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 1));
        file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(read)?;
        Self::parse(&bytes, &path.display().to_string())
    }

    /// Reads the PIN that systemd has handed over as `name` (`LoadCredential=name:/path`).
    pub fn from_credential(name: &str) -> Result<Self, PinError> {
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(PinError::CredentialName(name.to_owned()));
        }
        let directory = credentials_directory().ok_or_else(|| PinError::NoCredentials(name.to_owned()))?;
        Self::from_file(&directory.join(name))
    }

    /// Reads the PIN from the environment variable `name`.
    pub fn from_env(name: &str) -> Result<Self, PinError> {
        let value = std::env::var_os(name).ok_or_else(|| PinError::NotSet(name.to_owned()))?;
        let bytes = Zeroizing::new(value.into_encoded_bytes());
        Self::parse(&bytes, name)
    }

    /// One line of text, in the encodings and with the marks and line ends that files of people may have.
    pub(crate) fn parse(bytes: &[u8], source: &str) -> Result<Self, PinError> {
        let text = match decode(bytes).map_err(|error| PinError::NotText(source.to_owned(), error))? {
            Cow::Owned(text) => Zeroizing::new(text),
            Cow::Borrowed(text) => Zeroizing::new(text.to_owned()),
        };
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if line.is_empty() || line.len() > MAX_PIN_BYTES || line.contains(['\n', '\0']) {
            return Err(PinError::Malformed(source.to_owned()));
        }
        Ok(Self(Zeroizing::new(line.to_owned())))
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

/// Longest file that can hold a PIN, bytes: a mark, the PIN, CR and LF, two bytes each in UTF-16.
const MAX_FILE_BYTES: usize = 2 * (1 + MAX_PIN_BYTES + 2);

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

    //= FLT-S19
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
        assert!(matches!(Pin::from_file(Path::new("/nowhere")), Err(PinError::Read { .. })));
    }

    #[test]
    fn a_credential_is_a_name_and_not_a_path() {
        for name in ["", "..", "a/b", "/etc/pin"] {
            assert!(matches!(Pin::from_credential(name), Err(PinError::CredentialName(_))), "{name}");
        }
        let text = PinError::NoCredentials("pin".to_owned()).to_string();
        assert!(text.contains("put LoadCredential=pin:/path/of/the/pin into"), "{text}");
    }

    #[test]
    fn takes_one_line_of_text() {
        for (content, good) in [
            (&b"1234"[..], true),
            (b"1234\n", true),
            (b"1234\r\n", true),
            (b"\xef\xbb\xbf1234\r\n", true),
            (b"\xef\xbb\xbf", false),
            (b"a b\n", true),
            (b"", false),
            (b"\n", false),
            (b"12\n34\n", false),
            (b"12\0", false),
            (b"\xff\xfe", false),
            (&[b'1'; 255], true),
            (&[b'1'; 256], false),
            (&[b'1'; 600], false),
        ] {
            let (_dir, path) = pin_file(content, 0o600);
            assert_eq!(Pin::from_file(&path).is_ok(), good, "{content:?}");
        }
    }

    #[test]
    fn a_pin_file_is_read_as_every_file_of_people_is() {
        let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let longest = format!("\u{feff}{}\r\n", "1".repeat(MAX_PIN_BYTES));
        for (content, pin) in [
            (b"\xef\xbb\xbf12 34\r".to_vec(), "12 34"),
            (utf16("\u{feff}1234\r\n", u16::to_le_bytes), "1234"),
            (utf16("\u{feff}1234", u16::to_be_bytes), "1234"),
            (utf16(&longest, u16::to_le_bytes), longest.trim_matches(['\u{feff}', '\r', '\n'])),
        ] {
            let (_dir, path) = pin_file(&content, 0o600);
            assert_eq!(Pin::from_file(&path).unwrap().0.as_str(), pin, "{content:?}");
        }
        let (_dir, path) = pin_file(&utf16("1234\n", u16::to_le_bytes), 0o600);
        let error = Pin::from_file(&path).unwrap_err();
        assert!(matches!(error, PinError::NotText(..)), "{error}");
        assert_eq!(error.to_string(), format!("PIN from {} is not text that can be read", path.display()));
        let source = std::error::Error::source(&error).expect("a reason").to_string();
        assert_eq!(source, "it is UTF-16 without a mark: save it as UTF-8");
        let (_dir, path) = pin_file(b"1234\n", 0o644);
        assert!(matches!(Pin::from_file(&path), Err(PinError::Exposed { .. })), "who may read it counts as before");
    }

    //= FLT-S21
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
