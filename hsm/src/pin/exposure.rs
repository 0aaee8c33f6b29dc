//! Who could read or change the file with a PIN besides this user and root.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, fstatvfs};

/// Where a service finds what `LoadCredential=` gave it. Source: systemd.exec(5), CREDENTIALS.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Who may read or change a file, as far as it tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileFacts {
    is_file: bool,
    mode: u32,
    owner: u32,
    /// It lies where only root can put anything: below systemd's credentials, or on a read-only file system. There the group's
    /// rights are the mask of an access list that names the service's user.
    is_handed_over: bool,
}

/// Why others could read or change a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exposure {
    NotAFile,
    OtherOwner(u32),
    OpenMode { mode: u32, owner: u32 },
}

impl FileFacts {
    pub(super) fn of(file: &File) -> std::io::Result<Self> {
        let facts = file.metadata()?;
        let is_handed_over = is_credential(file) || fstatvfs(file)?.flags().contains(FsFlags::ST_RDONLY);
        Ok(Self { is_file: facts.is_file(), mode: facts.mode() & 0o7777, owner: facts.uid(), is_handed_over })
    }

    /// What is wrong with it for `user`.
    pub(super) fn exposure(self, user: u32) -> Option<Exposure> {
        let Self { is_file, mode, owner, is_handed_over } = self;
        // systemd gives a service with User= its credentials as root's, 0440, with an access list.
        let open = if owner == 0 && is_handed_over { 0o037 } else { 0o077 };
        if !is_file {
            Some(Exposure::NotAFile)
        } else if owner != 0 && owner != user {
            Some(Exposure::OtherOwner(owner))
        } else if mode & open != 0 {
            Some(Exposure::OpenMode { mode, owner })
        } else {
            None
        }
    }
}

impl Exposure {
    pub(super) fn problem(self) -> String {
        match self {
            Self::NotAFile => "is not a regular file".to_owned(),
            Self::OtherOwner(owner) => format!("belongs to user {owner}"),
            Self::OpenMode { mode, .. } => format!("has mode {mode:04o} and is open to other users"),
        }
    }

    pub(super) fn advice(self, path: &Path, user: u32) -> String {
        match self {
            Self::NotAFile => "name the file that holds the PIN".to_owned(),
            Self::OpenMode { owner, .. } if owner == user => format!("run: chmod 0600 {}", path.display()),
            // After chmod 0600 alone a file of root's could not be read any more.
            // Who administers a server of another user's would lock it out of its own file.
            Self::OtherOwner(owner) if user == 0 => {
                format!(
                    "if the daemon runs as user {owner}, run this as that user; if it runs as root, {}",
                    hand_over(path, user)
                )
            }
            Self::OtherOwner(_) | Self::OpenMode { .. } => hand_over(path, user),
        }
    }
}

pub(super) fn hand_over(path: &Path, user: u32) -> String {
    let path = path.display();
    format!(
        "run as root: chown {user} {path} && chmod 0400 {path}, or let systemd hand it over: LoadCredential=pin:{path} in the \
         unit and pin_credential = \"pin\""
    )
}

/// Whether the open file is below the directory that systemd made for this service.
fn is_credential(file: &File) -> bool {
    let Some(directory) = credentials_directory() else { return false };
    let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let directory = directory.canonicalize();
    matches!((opened, directory), (Ok(opened), Ok(directory)) if opened.starts_with(&directory))
}

/// The directory that systemd made for this service's credentials, if it made one.
pub(super) fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os(CREDENTIALS_VARIABLE).filter(|directory| !directory.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_systemd_hands_over_and_nothing_else_that_a_group_may_read() {
        let facts = |mode, owner, is_handed_over| FileFacts { is_file: true, mode, owner, is_handed_over };
        let open = |mode, owner| Some(Exposure::OpenMode { mode, owner });
        for (facts, expected) in [
            (facts(0o440, 0, true), None),
            (facts(0o400, 0, true), None),
            (facts(0o440, 1200, true), open(0o440, 1200)),
            (facts(0o460, 0, true), open(0o460, 0)),
            (facts(0o444, 0, true), open(0o444, 0)),
            (facts(0o440, 0, false), open(0o440, 0)),
            (facts(0o400, 0, false), None),
            (facts(0o600, 1200, false), None),
            (facts(0o600, 1201, true), Some(Exposure::OtherOwner(1201))),
            (FileFacts { is_file: false, ..facts(0o400, 0, true) }, Some(Exposure::NotAFile)),
        ] {
            assert_eq!(facts.exposure(1200), expected, "{facts:?}");
        }
    }

    #[test]
    fn advice_can_be_followed_by_whoever_reads_it() {
        let path = Path::new("/etc/pin");
        let ours = Exposure::OpenMode { mode: 0o644, owner: 1200 };
        assert_eq!(ours.advice(path, 1200), "run: chmod 0600 /etc/pin");
        for other in [Exposure::OpenMode { mode: 0o440, owner: 0 }, Exposure::OtherOwner(1201)] {
            let advice = other.advice(path, 1200);
            assert!(advice.starts_with("run as root: chown 1200 /etc/pin && chmod 0400 /etc/pin, or"), "{advice}");
        }
        let advice = Exposure::OtherOwner(1201).advice(path, 0);
        assert!(advice.starts_with("if the daemon runs as user 1201, run this as that user; if it runs as root, run"));
    }
}
