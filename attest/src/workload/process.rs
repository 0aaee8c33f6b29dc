//! One process, read through a directory of /proc that stays its own.
//!
//! The directory is opened once; if the process exits, reads through it fail even when its PID is given away again.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use procfs::process::{Stat, StatFlags};
use procfs::{FromBufRead, FromRead, ProcessCGroups};

use super::owner::{Owner, has_one_number};
use super::refusal::WorkloadRefusal;

/// Longest /proc/PID/status read, bytes: 65,536 groups of eleven characters, and the rest.
const MAX_STATUS_BYTES: u64 = 1 << 20;
/// Longest /proc/PID/cgroup read, bytes: two dozen paths of the longest kind.
const MAX_CGROUP_BYTES: u64 = 128 << 10;
/// Longest /proc/PID/stat read, bytes.
const MAX_STAT_BYTES: u64 = 16 << 10;
/// What /proc/PID/status mostly has, bytes, with room: read at once.
const STATUS_BYTES: usize = 4 << 10;

/// A process by its open /proc directory. Says nothing about whether it still runs.
#[derive(Debug)]
pub(super) struct Process {
    pub pid: i32,
    directory: OwnedFd,
}

impl Process {
    /// Opens /proc/PID as it is now. `Err` is the system's word: ENOENT for no such (visible) process.
    pub fn open(pid: i32) -> nix::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = open(format!("/proc/{pid}").as_str(), flags, Mode::empty())?;
        Ok(Self { pid, directory })
    }

    pub fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Whose it is now.
    pub fn owner(&self) -> Result<Owner, WorkloadRefusal> {
        self.read("status", |file| {
            let text = status(file)?;
            let incomplete = || procfs::ProcError::Other("no complete Uid, Gid and Groups".to_owned());
            Owner::parse(&text).ok_or_else(incomplete)
        })
    }

    /// Whether it is in the PID namespace that /proc shows, which is ours.
    pub fn has_one_number(&self) -> Result<bool, WorkloadRefusal> {
        self.read("status", |file| Ok(has_one_number(&status(file)?)))
    }

    /// When the process started, in clock ticks since boot: a PID and its start time name a process once. `None` for a
    /// zombie. Source: proc_pid_stat(5), field 22.
    pub fn start_time(&self) -> Result<Option<u64>, WorkloadRefusal> {
        let stat = self.stat()?;
        Ok((!matches!(stat.state, 'Z' | 'X' | 'x')).then_some(stat.starttime))
    }

    /// Whether it is about to end, or has: its first thread leaves its control groups before a pidfd tells of the end, which waits for
    /// the others. Also true of a process that goes on without its first thread. Source: proc_pid_stat(5), field 9.
    pub fn is_ending(&self) -> bool {
        match self.stat() {
            Ok(stat) => stat.flags & StatFlags::PF_EXITING.bits() != 0,
            Err(refusal) => matches!(refusal, WorkloadRefusal::Exited { .. }),
        }
    }

    fn stat(&self) -> Result<Stat, WorkloadRefusal> {
        self.read("stat", |file| Stat::from_read(file.take(MAX_STAT_BYTES)))
    }

    /// The lines of `/proc/PID/cgroup`, one for each hierarchy; at most [`MAX_CGROUP_BYTES`] are read.
    pub fn control_groups(&self) -> Result<ProcessCGroups, WorkloadRefusal> {
        self.read("cgroup", |file| ProcessCGroups::from_buf_read(BufReader::new(file.take(MAX_CGROUP_BYTES))))
    }

    fn read<T>(
        &self,
        file: &'static str,
        parse: impl FnOnce(File) -> procfs::ProcResult<T>,
    ) -> Result<T, WorkloadRefusal> {
        let pid = self.pid;
        let opened = openat(&self.directory, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let opened = opened.map_err(|errno| match errno {
            Errno::ESRCH => WorkloadRefusal::Exited { pid },
            // hidepid=2 and hidepid=1; the former is also the answer for a process that is gone.
            Errno::ENOENT | Errno::EPERM | Errno::EACCES => WorkloadRefusal::Hidden { pid },
            errno => WorkloadRefusal::Unreadable { pid, file, source: errno.into() },
        })?;
        parse(File::from(opened)).map_err(|error| match error {
            procfs::ProcError::Io(error, _) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {
                WorkloadRefusal::Exited { pid }
            }
            error => WorkloadRefusal::Unreadable { pid, file, source: io::Error::other(error) },
        })
    }
}

fn status(file: File) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(STATUS_BYTES);
    file.take(MAX_STATUS_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    //= FLT-A17
    #[test]
    fn a_name_like_a_stat_line_does_not_confuse_the_start_time() {
        let line = |name: &str| {
            format!("7 ({name}) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 1 1 18446744073709551615")
                + &" 0".repeat(27)
        };
        for name in ["plain", "a) R 1 (", ") ) Z 1 2 3", "(", "a\nb"] {
            let stat = Stat::from_read(line(name).as_bytes()).expect("parses");
            assert_eq!((stat.pid, stat.state, stat.starttime), (7, 'S', 4711), "{name:?}");
        }
    }

    #[test]
    fn reads_our_own_process() {
        let us = Process::open(std::process::id() as i32).expect("opens");
        assert_eq!(us.owner().expect("reads").euid, nix::unistd::geteuid().as_raw());
        assert!(us.start_time().expect("reads").is_some());
        assert!(!us.is_ending());
    }

    #[test]
    fn a_zombie_and_who_was_reaped_are_ending() {
        let mut child = std::process::Command::new("true").spawn().expect("runs");
        let process = Process::open(child.id() as i32).expect("there until it is reaped");
        while process.start_time().expect("a zombie is shown").is_some() {
            std::thread::yield_now();
        }
        assert!(process.is_ending());
        child.wait().expect("reaps");
        assert!(process.is_ending());
    }
}
