//! Is a process where we are? In namespaces of its own its user is root and arranges what we would look at.
//!
//! Source: namespaces(7): two processes are in one namespace if their links have the same device and inode.

use std::fmt;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;

use super::process::Process;
use super::wide::wide;

/// Which namespaces a process is in. `None`: the kernel has no such namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Namespaces([Option<(u64, u64)>; KINDS.len()]);

/// A kind of namespace, by what a difference would mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Another user may be root there.
    User,
    /// Its numbers of processes mean others here.
    Pid,
    /// Its paths lead to other files.
    Mount,
}

/// The weightiest first.
const KINDS: [(Kind, &str); 3] = [(Kind::User, "ns/user"), (Kind::Pid, "ns/pid"), (Kind::Mount, "ns/mnt")];

impl Namespaces {
    /// As they are now. `Err` if they are not ours to see.
    pub fn of(process: &Process) -> nix::Result<Self> {
        let mut found = [None; KINDS.len()];
        for (slot, (_, link)) in found.iter_mut().zip(KINDS) {
            *slot = match fstatat(process.directory(), link, AtFlags::empty()) {
                Ok(stat) => Some((stat.st_dev, wide(stat.st_ino))),
                Err(Errno::ENOENT) => None,
                Err(errno) => return Err(errno),
            };
        }
        Ok(Self(found))
    }

    /// The first kind in which they differ.
    pub fn difference(&self, other: &Self) -> Option<Kind> {
        let differs = |index: &usize| self.0[*index] != other.0[*index];
        (0..KINDS.len()).find(differs).map(|index| KINDS[index].0)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Pid => "PID",
            Self::Mount => "mount",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_where_we_are_and_the_kind_that_differs_is_named() {
        let ours = Process::open(std::process::id() as i32).expect("opens");
        let ours = Namespaces::of(&ours).expect("reads");
        assert_eq!(ours.difference(&ours), None);
        for (index, (kind, _)) in KINDS.iter().enumerate() {
            let mut other = ours;
            other.0[index] = Some((0, 0));
            assert_eq!(ours.difference(&other), Some(*kind));
        }
    }
}
