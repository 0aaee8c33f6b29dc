//! A disk that can be full or read-only, for one test alone.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

/// Its size, bytes: an agent's files have some thousand.
const BYTES: usize = 256 * 1024;

/// Runs `test` on a thread that sees what is at `path` as on a disk that is read-only; nothing on it may be open for writing.
///
/// # Panics
/// If `test` does, or if this process may not mount: tests run as root.
pub fn read_only(path: &Path, test: impl FnOnce() + Send) {
    let run = || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("tests run as root");
        mount(&["--make-rprivate"], Path::new("/"));
        mount(&["--bind", path.to_str().expect("the lab's paths are UTF-8")], path);
        mount(&["-o", "remount,bind,ro"], path);
        test();
    };
    std::thread::scope(|threads| threads.spawn(run).join().expect("the test on the read-only disk passes"));
}

/// A small tmpfs. Only the thread of the test sees it, and what that thread starts.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Runs `test` on a thread that sees such a disk at `path`; the directory is made if it is missing.
    ///
    /// # Panics
    /// If `test` does, or if this process may not mount: tests run as root.
    pub fn at(path: &Path, test: impl FnOnce(&Self) + Send) {
        fs::create_dir_all(path).expect("the disk's directory");
        let run = || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("tests run as root");
            mount(&["--make-rprivate"], Path::new("/"));
            mount(&["-t", "tmpfs", "-o", &format!("size={BYTES},mode=0750"), "tmpfs"], path);
            test(&Self(path.to_owned()));
        };
        std::thread::scope(|threads| threads.spawn(run).join().expect("the test on the small disk passes"));
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let refused = fs::write(self.filler(), vec![0; BYTES + 1]).expect_err("more than there is");
        assert_eq!(refused.kind(), ErrorKind::StorageFull);
    }

    /// Takes all the room but so many bytes.
    pub fn fill_but(&self, bytes: usize) {
        fs::write(self.filler(), vec![0; BYTES - bytes]).expect("room for it");
    }

    /// Gives it back.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).expect("filled before");
    }

    /// From now on nothing can be written; nobody may have a file open for it.
    pub fn make_read_only(&self) {
        mount(&["-o", "remount,ro"], &self.0);
    }

    fn filler(&self) -> PathBuf {
        self.0.join("others' files")
    }
}

fn mount(arguments: &[&str], path: &Path) {
    let status = Command::new("mount").args(arguments).arg(path).status().expect("mount(8) is there");
    assert!(status.success(), "mount {arguments:?} {}", path.display());
}
