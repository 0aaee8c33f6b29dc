//! Which file a process ran when its connection was accepted.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstatat};

use super::process::Process;
use super::wide::wide;
use crate::Selector;

/// Answered from the kernel's cache: a file system that hangs (FUSE, NFS) cannot hold us.
const CACHED: AtFlags = AtFlags::from_bits_retain(libc::AT_STATX_DONT_SYNC);

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    dev: u64,
    ino: u64,
}

impl FileId {
    /// What `process` runs now; `None` if that is not ours to see.
    pub fn running(process: &Process) -> Option<Self> {
        fstatat(process.directory(), "exe", CACHED).ok().as_ref().map(Self::of)
    }

    /// The file that `stat` is of.
    pub fn of(stat: &FileStat) -> Self {
        Self { dev: stat.st_dev, ino: wide(stat.st_ino) }
    }
}

/// What a process ran when its connection was accepted. While it is held, no other file can get its inode.
#[derive(Debug)]
pub struct Noted {
    id: FileId,
    _file: OwnedFd,
    /// The path that was proven first. It stays true of what runs when the file is replaced on disk.
    path: OnceLock<Selector>,
}

impl Noted {
    /// What `process` runs now; `None` if that is not ours to see.
    pub fn of(process: &Process) -> Option<Self> {
        let file = openat(process.directory(), "exe", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let id = FileId::of(&fstatat(&file, "", CACHED | AtFlags::AT_EMPTY_PATH).ok()?);
        Some(Self { id, _file: file, path: OnceLock::new() })
    }

    /// Device and inode of what it ran then.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// The path that was proven first, if one was.
    pub fn proven_path(&self) -> Option<&Selector> {
        self.path.get()
    }

    /// Notes `path` unless one was proven before.
    pub fn prove_path(&self, path: &Selector) {
        self.path.get_or_init(|| path.clone());
    }
}
