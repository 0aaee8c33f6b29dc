//! Which file does the process run, and may its path be believed?
//!
//! `/proc/PID/exe` reads as a path of the *process's* mount namespace, which its owner may have arranged. So the path
//! counts only if the same path leads us to the same file. The hash needs no path: it is taken of the open file.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use thiserror::Error;

use super::digests::{Digests, FileVersion};
use super::peer::Peer;
use super::process::Process;
use crate::Selector;

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    dev: u64,
    ino: u64,
}

impl FileId {
    /// What `process` runs now; `None` if that is not ours to see.
    ///
    /// Answered from the kernel's cache: a file system that hangs (FUSE, NFS) cannot hold us here.
    pub fn running(process: &Process) -> Option<Self> {
        let cached = AtFlags::from_bits_retain(libc::AT_STATX_DONT_SYNC);
        fstatat(process.directory(), "exe", cached).ok().as_ref().map(Self::of)
    }

    pub fn of(stat: &FileStat) -> Self {
        Self { dev: stat.st_dev, ino: stat.st_ino }
    }
}

/// Why a `path` or `sha256` selector is left out. The caller keeps its other selectors: fewer never mean more rights.
#[derive(Debug, Error)]
pub(super) enum Withheld {
    #[error(
        "the agent may not look at the executable: it needs CAP_SYS_PTRACE (and CAP_DAC_READ_SEARCH for unreadable ones)"
    )]
    NotAllowed(#[source] nix::Error),
    #[error("the process runs another executable than when it connected")]
    Replaced,
    #[error("the executable has no name any more (deleted, or only in memory)")]
    Unlinked,
    #[error("{0:?} is another file for the agent than for the process (its mount namespace differs)")]
    OtherNamespace(PathBuf),
    #[error("{0:?} cannot be a selector")]
    Unspeakable(PathBuf),
    #[error("the executable has {size} bytes, more than workload_size_limit allows")]
    TooLarge { size: i64 },
    #[error("the executable could not be hashed in time")]
    TooSlow,
    #[error("the executable changed while it was hashed")]
    Changed,
    #[error("the executable cannot be read")]
    Read(#[source] std::io::Error),
    #[error("the executable could not be hashed a while ago and has not changed since")]
    FailedBefore,
    #[error("hashing the programs of this user has taken more than its share of time; it is tried again later")]
    OverBudget,
}

/// The executable of a process, held open.
pub(super) struct Executable {
    file: File,
    stat: FileStat,
    path: PathBuf,
}

impl Executable {
    /// Opens what `process` runs, if it is what `peer` ran when it was accepted.
    pub fn open(peer: &Peer, process: &Process) -> Result<Self, Withheld> {
        if FileId::running(process).is_none() || peer.executable() != FileId::running(process) {
            return Err(Self::why_not(process));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let path = readlinkat(process.directory(), "exe").map_err(Withheld::NotAllowed)?;
        let file = openat(process.directory(), "exe", flags, Mode::empty()).map_err(Withheld::NotAllowed)?;
        let stat = fstat(&file).map_err(Withheld::NotAllowed)?;
        match peer.executable() == Some(FileId::of(&stat)) {
            true => Ok(Self { file: file.into(), stat, path: path.into() }),
            false => Err(Withheld::Replaced),
        }
    }

    fn why_not(process: &Process) -> Withheld {
        match readlinkat(process.directory(), "exe") {
            Ok(_) => Withheld::Replaced,
            Err(errno) => Withheld::NotAllowed(errno),
        }
    }

    /// `unix:path:…`, if the path means the same file to us.
    pub fn path(&self) -> Result<Selector, Withheld> {
        if self.stat.st_nlink == 0 {
            return Err(Withheld::Unlinked);
        }
        let here = fstatat(AT_FDCWD, &self.path, AtFlags::AT_SYMLINK_NOFOLLOW);
        if !here.is_ok_and(|here| FileId::of(&here) == FileId::of(&self.stat)) {
            return Err(Withheld::OtherNamespace(self.path.clone()));
        }
        selector("path", &self.path)
    }

    /// `unix:sha256:…`; `limit` as in SPIRE: 0 any size, below 0 never (`None`), else bytes.
    ///
    /// The work is booked on `uid`.
    pub fn sha256(
        &self,
        uid: u32,
        limit: i64,
        digests: &Digests,
        deadline: Instant,
    ) -> Result<Option<Selector>, Withheld> {
        if limit < 0 {
            return Ok(None);
        }
        if limit > 0 && self.stat.st_size > limit {
            return Err(Withheld::TooLarge { size: self.stat.st_size });
        }
        let digest = digests.of(uid, &self.file, FileVersion::of(&self.stat), deadline)?;
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        selector("sha256", Path::new(&hex)).map(Some)
    }
}

fn selector(name: &str, value: &Path) -> Result<Selector, Withheld> {
    let unspeakable = || Withheld::Unspeakable(value.to_owned());
    let text = std::str::from_utf8(value.as_os_str().as_bytes()).map_err(|_| unspeakable())?;
    Selector::new("unix", &format!("{name}:{text}")).map_err(|_| unspeakable())
}
