//! Files with a secret that the configuration names: a key, a password.
//!
//! ```text
//!  path ─open, without waiting─► one handle ─fstat─► regular, and for nobody else ─► at most so many bytes ─► wiped when dropped
//! ```
//! What is checked is what is read: the file is opened once. PINs have rules of their own (`ironroot_hsm::Pin`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use thiserror::Error;
use zeroize::Zeroizing;

/// Who may have rights to a file with a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner.
    Owner,
    /// Its group too: systemd's credentials have mode 0440.
    OwnerAndGroup,
    /// Everybody: a key that a chip has wrapped is of use in that chip alone.
    Everybody,
}

impl Readers {
    /// The bits of a mode that give rights to anybody else.
    fn others(self) -> u32 {
        match self {
            Self::Owner => 0o077,
            Self::OwnerAndGroup => 0o007,
            Self::Everybody => 0,
        }
    }
}

/// Why a file with a secret is not used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum SecretFileError {
    /// It is not there, or not ours to read.
    #[error("cannot read {path}")]
    Io {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("{0} is not a regular file")]
    NotRegular(PathBuf),
    /// Every user of the machine can read it, or put another secret in its place.
    #[error("every user has rights to {0}: take them away with chmod o= {0}")]
    Open(PathBuf),
    /// Others than its owner have rights to it.
    #[error("others than its owner have rights to {0}: take them away with chmod 600 {0}")]
    Shared(PathBuf),
    /// Longer than such a secret can be.
    #[error("{path} has more than {max_bytes} bytes: is it the right file?")]
    TooLarge { path: PathBuf, max_bytes: usize },
}

/// Reads the file whole, at most `max_bytes`. Symbolic links are followed.
pub fn read(path: &Path, max_bytes: usize, readers: Readers) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let unreadable = |error| SecretFileError::Io { path: path.to_owned(), error };
    // Without O_NONBLOCK, opening a pipe would wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(unreadable)?;
    judge(&file.metadata().map_err(unreadable)?, path, readers)?;
    let bytes = read_bounded(file, max_bytes).map_err(unreadable)?;
    match bytes.len() > max_bytes {
        true => Err(SecretFileError::TooLarge { path: path.to_owned(), max_bytes }),
        false => Ok(bytes),
    }
}

fn judge(facts: &std::fs::Metadata, path: &Path, readers: Readers) -> Result<(), SecretFileError> {
    if !facts.is_file() {
        return Err(SecretFileError::NotRegular(path.to_owned()));
    }
    match (facts.permissions().mode() & readers.others(), readers) {
        (0, _) => Ok(()),
        (_, Readers::Owner) => Err(SecretFileError::Shared(path.to_owned())),
        (_, Readers::OwnerAndGroup | Readers::Everybody) => Err(SecretFileError::Open(path.to_owned())),
    }
}

/// One byte more than `max_bytes` at most, in memory that does not move: what moves leaves a copy behind.
fn read_bounded(file: File, max_bytes: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(max_bytes + 1));
    file.take(max_bytes as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::sys::stat::Mode;

    use super::*;

    const GROUP: Readers = Readers::OwnerAndGroup;

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("file");
        fs::write(file.path(), content).expect("written");
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).expect("mode");
        file
    }

    #[test]
    fn a_secret_that_others_have_any_right_to_is_refused() {
        for mode in [0o600, 0o400, 0o440, 0o640] {
            assert_eq!(read(file(b"secret", mode).path(), 6, GROUP).expect("ours").as_slice(), b"secret");
        }
        for mode in [0o604, 0o602, 0o601, 0o644, 0o666] {
            assert!(matches!(read(file(b"secret", mode).path(), 6, GROUP), Err(SecretFileError::Open(_))), "{mode:o}");
        }
    }

    #[test]
    fn what_is_its_owners_alone_is_refused_where_a_group_has_rights_too() {
        assert_eq!(read(file(b"secret", 0o600).path(), 6, Readers::Owner).expect("ours").as_slice(), b"secret");
        for mode in [0o640, 0o620, 0o610, 0o604] {
            let refused = read(file(b"secret", mode).path(), 6, Readers::Owner);
            assert!(matches!(refused, Err(SecretFileError::Shared(_))), "{mode:o}");
        }
    }

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read_and_nothing_is_waited_for() {
        let directory = tempfile::tempdir().expect("directory");
        let (pipe, link) = (directory.path().join("pipe"), directory.path().join("link"));
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).expect("pipe");
        assert!(matches!(read(&pipe, 6, GROUP), Err(SecretFileError::NotRegular(_))), "and does not wait");
        assert!(matches!(read(directory.path(), 6, GROUP), Err(SecretFileError::NotRegular(_))));
        let secret = file(b"secret", 0o600);
        assert!(matches!(read(secret.path(), 5, GROUP), Err(SecretFileError::TooLarge { max_bytes: 5, .. })));
        std::os::unix::fs::symlink(secret.path(), &link).expect("link");
        assert_eq!(read(&link, 6, GROUP).expect("its end is a file").as_slice(), b"secret");
        assert!(matches!(read(Path::new("/nonexistent/secret"), 6, GROUP), Err(SecretFileError::Io { .. })));
    }

    #[test]
    fn what_is_read_is_what_was_checked_though_another_file_gets_its_name_meanwhile() {
        let directory = tempfile::tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name);
        for (name, mode) in [("open", 0o604), ("closed", 0o600)] {
            fs::write(at(name), name).expect("written");
            fs::set_permissions(at(name), Permissions::from_mode(mode)).expect("mode");
        }
        let rename = |from: &str| {
            fs::hard_link(at(from), at("next")).and_then(|()| fs::rename(at("next"), at("secret"))).expect("renamed");
        };
        rename("closed");
        let enough = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    ["open", "closed"].into_iter().for_each(rename);
                }
            });
            for _ in 0..2000 {
                match read(&at("secret"), 6, GROUP) {
                    Ok(secret) => assert_eq!(secret.as_slice(), b"closed"),
                    Err(error) => assert!(matches!(error, SecretFileError::Open(_)), "{error}"),
                }
            }
            enough.store(true, Ordering::Relaxed);
        });
    }
}
