//! Which file does the process run, and may its path be believed?
//!
//! `/proc/PID/exe` reads as a path of the *process's* mount namespace, which its owner may have arranged. So the path
//! counts only if the process is in our namespaces and the same path leads us to the same file. The hash needs no path:
//! it is taken of the open file. Where users can forge the link itself, see [`super::link`].

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ironroot_text::hex::hex;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use rustix::fs::{AtFlags as StatxFlag, StatxAttributes, StatxFlags, statx};

use super::digests::{DigestDemand, Digests, FileVersion};
use super::namespaces::{Kind, Namespaces};
use super::noted::{FileId, Noted};
use super::process::Process;
use super::wide::wide;
use super::withheld::Withheld;
use super::witnessed::SecondWrite;
use crate::Selector;

/// The agent's own namespaces, which a process must share for its path to mean what it says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ours {
    pub namespaces: Namespaces,
    /// Whether another mount namespace than ours is as good: only root can make one without a user namespace.
    pub any_mounts: bool,
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
        //= FLT-A13 agent faults: "no path is told"
        match Namespaces::of(process).map_err(Withheld::NotAllowed)?.difference(&ours.namespaces) {
            Some(Kind::Mount) if ours.any_mounts => {}
            Some(Kind::Mount) => return Err(Withheld::OtherMounts),
            Some(kind) => return Err(Withheld::OtherNamespace(kind)),
            None => {}
        }
        let path = readlinkat(process.directory(), "exe").map_err(Withheld::NotAllowed)?;
        // FUSE and NFS: only what is known to be the noted file is opened.
        let noted = noted.ok_or(Withheld::NotNoted)?;
        //= FLT-A14 agent faults: "nothing of the other program is told"
        if FileId::running(process) != Some(noted.id()) {
            return Err(Withheld::Replaced);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = openat(process.directory(), "exe", flags, Mode::empty()).map_err(Withheld::NotAllowed)?;
        let stat = fstat(&file).map_err(Withheld::NotAllowed)?;
        match noted.id() == FileId::of(&stat) {
            true => Ok(Self { noted, file: file.into(), stat, path: path.into() }),
            false => Err(Withheld::Replaced),
        }
    }

    /// Whether `process` still runs it: what was found of it in between is of this process.
    pub fn still_runs(&self, process: &Process) -> Result<(), Withheld> {
        if FileId::running(process) == Some(self.noted.id()) { Ok(()) } else { Err(Withheld::Replaced) }
    }

    /// `unix:path:…`, if the path means the same file to us, or did earlier on this connection: the process and its
    /// executable are the same ones, and what an upgrade puts in its place on disk does not change what runs.
    pub fn path(&self) -> Result<(Selector, OnDisk), Withheld> {
        match (self.path_on_disk(), self.noted.proven_path()) {
            (Ok(path), _) => {
                self.noted.prove_path(&path);
                Ok((path, OnDisk::Same))
            }
            (Err(Withheld::Unlinked | Withheld::OtherFile(_)), Some(proven)) => Ok((proven.clone(), OnDisk::Replaced)),
            (Err(why), _) => Err(why),
        }
    }

    fn path_on_disk(&self) -> Result<Selector, Withheld> {
        //= FLT-A15 agent faults: "no path is told"
        if self.stat.st_nlink == 0 {
            return Err(Withheld::Unlinked);
        }
        let here = fstatat(AT_FDCWD, &self.path, AtFlags::AT_SYMLINK_NOFOLLOW);
        if !here.is_ok_and(|here| FileId::of(&here) == FileId::of(&self.stat)) {
            return Err(Withheld::OtherFile(self.path.clone()));
        }
        selector("path", &self.path)
    }

    /// Whether the kernel compares all that is read of it with its Merkle tree, and lets nobody write to it. That never ends, so it is
    /// asked before the content is read. Source: statx(2), STATX_ATTR_VERITY; Linux, Documentation/filesystems/fsverity.rst.
    pub fn is_guarded(&self) -> Result<(), Withheld> {
        let told = statx(&self.file, c"", StatxFlag::EMPTY_PATH, StatxFlags::empty());
        let told = told.map_err(|errno| Withheld::Read(errno.into()))?;
        //= FLT-A30 agent faults: "that digest is not told"
        match says_verity(told.stx_attributes, told.stx_attributes_mask) {
            true => Ok(()),
            false => Err(Withheld::Unguarded),
        }
    }

    /// `unix:sha256:…` and `unix:fs_verity:sha256:…`, as far as they are `wanted`; `limit` in bytes, 0: any size.
    ///
    /// The work is booked on `uid`.
    pub fn digests(
        &self,
        uid: u32,
        wanted: DigestDemand,
        limit: i64,
        digests: &Digests,
        deadline: Instant,
    ) -> Result<Vec<Selector>, Withheld> {
        let size: i64 = wide(self.stat.st_size);
        if limit > 0 && size > limit {
            return Err(Withheld::TooLarge { size });
        }
        let made = digests.of(uid, &self.file, FileVersion::of(&self.stat), wanted, deadline)?;
        // What was made for somebody else's entry is not told: nobody looked whether this file is guarded.
        let sha256 = made.sha256.filter(|_| wanted.sha256).map(|hash| ("sha256", hash));
        let fs_verity = made.fs_verity.filter(|_| wanted.fs_verity).map(|hash| ("fs_verity:sha256", hash));
        let told = sha256.into_iter().chain(fs_verity);
        told.map(|(name, hash)| selector(name, Path::new(&hex(&hash)))).collect()
    }
}

/// A file system that does not know the attribute says nothing about it.
fn says_verity(attributes: StatxAttributes, known: StatxAttributes) -> bool {
    attributes.intersection(known).contains(StatxAttributes::VERITY)
}

fn selector(name: &str, value: &Path) -> Result<Selector, Withheld> {
    let unspeakable = || Withheld::Unspeakable(value.to_owned());
    let text = std::str::from_utf8(value.as_os_str().as_bytes()).map_err(|_| unspeakable())?;
    Selector::new("unix", &format!("{name}:{text}")).map_err(|_| unspeakable())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_guarded_only_where_its_file_system_knows_the_attribute_and_has_set_it() {
        // STATX_ATTR_VERITY. Source: Linux, include/uapi/linux/stat.h.
        let (verity, others) =
            (StatxAttributes::from_bits_retain(0x10_0000), StatxAttributes::from_bits_retain(0x20_3874));
        for (attributes, known, guarded) in [
            (verity, verity, true),
            (verity | others, verity | others, true),
            (others, verity | others, false),
            (verity, others, false),
            (others, others, false),
            (StatxAttributes::empty(), StatxAttributes::empty(), false),
        ] {
            assert_eq!(says_verity(attributes, known), guarded, "{attributes:?} of {known:?}");
        }
    }
}
