//! Which file does the process run, and may its path be believed?
//!
//! `/proc/PID/exe` reads as a path of the *process's* mount namespace, which its owner may have arranged. So the path
//! counts only if the process is in our namespaces and the same path leads us to the same file. The hash needs no path:
//! it is taken of the open file. Where users can forge the link itself, see [`super::link`].

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use ironroot_text::hex::hex;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use thiserror::Error;

use super::digests::{Digests, FileVersion};
use super::namespaces::{Kind, Namespaces};
use super::process::Process;
use super::systemd::UnitUntold;
use super::witnessed::{SecondWrite, Silence};
use crate::Selector;

/// Answered from the kernel's cache: a file system that hangs (FUSE, NFS) cannot hold us.
const CACHED: AtFlags = AtFlags::from_bits_retain(libc::AT_STATX_DONT_SYNC);

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    dev: u64,
    ino: u64,
}

impl FileId {
    /// What `process` runs now; `None` if that is not ours to see.
    fn running(process: &Process) -> Option<Self> {
        fstatat(process.directory(), "exe", CACHED).ok().as_ref().map(Self::of)
    }

    fn of(stat: &FileStat) -> Self {
        Self { dev: stat.st_dev, ino: stat.st_ino }
    }
}

/// What a process ran when its connection was accepted. While it is held, no other file can get its inode.
#[derive(Debug)]
pub(super) struct Noted {
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
}

/// Where the agent is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ours {
    pub namespaces: Namespaces,
    /// Whether another mount namespace than ours is as good: only root can make one without a user namespace.
    pub any_mounts: bool,
}

/// Why a selector is left out. The caller keeps its other selectors: fewer never mean more rights.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum Withheld {
    /// For want of privilege.
    #[error(
        "the agent may not look at the executable: it needs CAP_SYS_PTRACE (and CAP_DAC_READ_SEARCH for unreadable ones)"
    )]
    NotAllowed(#[source] nix::Error),
    /// The connection did not show that what runs now is what asked.
    #[error(transparent)]
    Silent(#[from] Silence),
    /// Its user is root there.
    #[error(
        "the process is in another {0} namespace than the agent, where its user may have arranged what it seems to run"
    )]
    OtherNamespace(Kind),
    /// Of a container, or of a service that systemd confines.
    #[error(
        "the process has another mount namespace than the agent (a container, or PrivateTmp= or ProtectSystem= in its unit or the \
         agent's); executable_in_other_mounts = true tells all the same"
    )]
    OtherMounts,
    /// For want of descriptors, or the process was just ending.
    #[error("what the process ran when it connected could not be noted: let it connect again")]
    NotNoted,
    /// It became another program.
    #[error("the process runs another executable than when it connected")]
    Replaced,
    /// Nobody could say which file it was.
    #[error(
        "the executable has no name any more (deleted or replaced by an upgrade, or only in memory): restart the workload"
    )]
    Unlinked,
    /// A mount over it, or another file moved there.
    #[error("{0:?} is another file for the agent than for the process (replaced by an upgrade: restart the workload)")]
    OtherFile(PathBuf),
    /// Not UTF-8, too long or with control characters.
    #[error("{0:?} cannot be a selector")]
    Unspeakable(PathBuf),
    /// By configuration.
    #[error("the executable has {size} bytes, more than workload_size_limit allows")]
    TooLarge { size: i64 },
    /// A large file or a slow disk.
    #[error("the executable could not be hashed in time")]
    TooSlow,
    /// Somebody wrote to it.
    #[error("the executable changed while it was hashed")]
    Changed,
    /// The system refused.
    #[error("the executable cannot be read")]
    Read(#[source] std::io::Error),
    /// Not worth the work again yet.
    #[error("the executable could not be hashed a while ago and has not changed since")]
    FailedBefore,
    /// One user's programs take a share of the time only.
    #[error("hashing the programs of this user has taken more than its share of time; it is tried again later")]
    OverBudget,
    /// Of `systemd:id` and `systemd:fragment_path`.
    #[error(transparent)]
    Unit(#[from] UnitUntold),
}

/// Where a path leads now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDisk {
    /// To the file that runs.
    Same,
    /// Elsewhere, since an upgrade or removal: the path was proven earlier on this connection.
    Replaced,
}

/// The executable of a process, held open.
pub(super) struct Executable<'a> {
    noted: &'a Noted,
    file: File,
    stat: FileStat,
    path: PathBuf,
}

impl<'a> Executable<'a> {
    /// Opens what `process` runs, if it is what was `noted` when its connection was accepted, and its process, where we
    /// are (`ours`), has written since.
    pub fn open(
        noted: Option<&'a Noted>,
        process: &Process,
        ours: Ours,
        _heard: SecondWrite,
    ) -> Result<Self, Withheld> {
        match Namespaces::of(process).map_err(Withheld::NotAllowed)?.difference(&ours.namespaces) {
            Some(Kind::Mount) if ours.any_mounts => {}
            Some(Kind::Mount) => return Err(Withheld::OtherMounts),
            Some(kind) => return Err(Withheld::OtherNamespace(kind)),
            None => {}
        }
        let path = readlinkat(process.directory(), "exe").map_err(Withheld::NotAllowed)?;
        // FUSE and NFS: only what is known to be the noted file is opened.
        let noted = noted.ok_or(Withheld::NotNoted)?;
        if FileId::running(process) != Some(noted.id) {
            return Err(Withheld::Replaced);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = openat(process.directory(), "exe", flags, Mode::empty()).map_err(Withheld::NotAllowed)?;
        let stat = fstat(&file).map_err(Withheld::NotAllowed)?;
        match noted.id == FileId::of(&stat) {
            true => Ok(Self { noted, file: file.into(), stat, path: path.into() }),
            false => Err(Withheld::Replaced),
        }
    }

    /// Whether `process` still runs it: what was found of it in between is of this process.
    pub fn still_runs(&self, process: &Process) -> Result<(), Withheld> {
        if FileId::running(process) == Some(self.noted.id) { Ok(()) } else { Err(Withheld::Replaced) }
    }

    /// `unix:path:…`, if the path means the same file to us, or did earlier on this connection: the process and its
    /// executable are the same ones, and what an upgrade puts in its place on disk does not change what runs.
    pub fn path(&self) -> Result<(Selector, OnDisk), Withheld> {
        match (self.path_on_disk(), self.noted.path.get()) {
            (Ok(path), _) => {
                self.noted.path.get_or_init(|| path.clone());
                Ok((path, OnDisk::Same))
            }
            (Err(Withheld::Unlinked | Withheld::OtherFile(_)), Some(proven)) => Ok((proven.clone(), OnDisk::Replaced)),
            (Err(why), _) => Err(why),
        }
    }

    fn path_on_disk(&self) -> Result<Selector, Withheld> {
        if self.stat.st_nlink == 0 {
            return Err(Withheld::Unlinked);
        }
        let here = fstatat(AT_FDCWD, &self.path, AtFlags::AT_SYMLINK_NOFOLLOW);
        if !here.is_ok_and(|here| FileId::of(&here) == FileId::of(&self.stat)) {
            return Err(Withheld::OtherFile(self.path.clone()));
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
        selector("sha256", Path::new(&hex(&digest))).map(Some)
    }
}

fn selector(name: &str, value: &Path) -> Result<Selector, Withheld> {
    let unspeakable = || Withheld::Unspeakable(value.to_owned());
    let text = std::str::from_utf8(value.as_os_str().as_bytes()).map_err(|_| unspeakable())?;
    Selector::new("unix", &format!("{name}:{text}")).map_err(|_| unspeakable())
}
