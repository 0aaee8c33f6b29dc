//! The process at the other end of a unix socket, held so that its PID cannot come to mean another process.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::kept::Said;
use super::noted::Noted;
use super::process::Process;
use super::refusal::WorkloadRefusal;

/// Who is on the other end of a socket, as the kernel recorded it at `connect`. Source: unix(7), SO_PEERCRED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process ID in our PID namespace; 0 if the process is not visible in it.
    pid: i32,
    /// Effective user ID.
    uid: u32,
    /// Effective group ID.
    gid: u32,
}

impl Credentials {
    /// Asks the kernel. Does not block.
    pub fn of(stream: &impl AsFd) -> Result<Self, WorkloadRefusal> {
        let found = getsockopt(stream, sockopt::PeerCredentials).map_err(WorkloadRefusal::Credentials)?;
        Ok(Self { pid: found.pid(), uid: found.uid(), gid: found.gid() })
    }

    /// The effective user ID.
    pub fn uid(&self) -> u32 {
        self.uid
    }
}

/// Who connected, as the kernel recorded it at `connect`, and what ran there when we accepted.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Facts>);

#[derive(Debug)]
struct Facts {
    pid: i32,
    uid: u32,
    gid: u32,
    anchor: Anchor,
    executable: Option<Noted>,
    /// What counts on while who said it cannot be asked.
    said: Said,
}

/// What ties us to that very process.
#[derive(Debug)]
enum Anchor {
    /// The kernel's own reference: from SO_PEERPIDFD (Linux 6.5), taken at `connect`, or from pidfd_open (Linux 5.3).
    Pidfd(Arc<OwnedFd>),
    /// Older kernels: the directory opened, and the start time read, at accept. Does not see a process that exited, and
    /// whose PID was given to another one, between its `connect` and our accept.
    StartTime { process: Process, ticks: u64 },
}

impl Peer {
    /// Asks the kernel who is on the other end of `stream`, which has just been accepted and whose `credentials` have been asked
    /// for; with `looks`, notes what the process runs now too, which holds one more descriptor. Does not block.
    pub fn of(stream: &impl AsFd, credentials: Credentials, looks: bool) -> Result<Self, WorkloadRefusal> {
        Self::noting(stream, credentials, if looks { Noted::of } else { |_| None })
    }

    fn noting(
        stream: &impl AsFd,
        Credentials { pid, uid, gid }: Credentials,
        note: fn(&Process) -> Option<Noted>,
    ) -> Result<Self, WorkloadRefusal> {
        if pid == 0 {
            //= FLT-A18 agent faults: "refused, and the cause is named"
            return Err(WorkloadRefusal::OtherPidNamespace { uid });
        }
        let anchor = match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(pidfd) => Anchor::Pidfd(Arc::new(pidfd)),
            Err(Errno::ENOPROTOOPT) => Anchor::start_time(pid)?,
            // Before Linux 6.16 there is none for a process that has been reaped.
            Err(Errno::ESRCH | Errno::EINVAL) => return Err(WorkloadRefusal::Exited { pid }),
            Err(errno) => return Err(WorkloadRefusal::Credentials(errno)),
        };
        let executable = Process::open(pid).ok().and_then(|process| note(&process));
        let peer = Self(Arc::new(Facts { pid, uid, gid, anchor, executable, said: Said::default() }));
        if peer.still_alive() { Ok(peer) } else { Err(WorkloadRefusal::Exited { pid }) }
    }

    /// The process that has the number `pid` now, for somebody who may name processes by it. Whether it still is the one that was
    /// meant, only who named it can tell; from here on it is this very process. Blocks on procfs.
    pub fn numbered(pid: i32) -> Result<Self, WorkloadRefusal> {
        let anchor = Anchor::of_number(pid)?;
        let owner = Process::open(pid).map_err(|_| WorkloadRefusal::Exited { pid })?.owner()?;
        let (uid, gid, said) = (owner.euid, owner.egid, Said::default());
        let peer = Self(Arc::new(Facts { pid, uid, gid, anchor, executable: None, said }));
        if peer.still_alive() { Ok(peer) } else { Err(WorkloadRefusal::Exited { pid }) }
    }

    /// Its PID in our namespace. Means it only while [`Peer::still_alive`].
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    /// Its effective user ID at `connect`.
    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// Its effective group ID at `connect`.
    pub fn gid(&self) -> u32 {
        self.0.gid
    }

    /// Whether the process that connected still runs. A zombie does not.
    pub fn still_alive(&self) -> bool {
        match &self.0.anchor {
            // Readable means exited. Source: pidfd_open(2).
            Anchor::Pidfd(pidfd) => {
                let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
            }
            //= FLT-A12 agent faults: "the newcomer is nobody"
            Anchor::StartTime { process, ticks } => process.start_time().is_ok_and(|now| now == Some(*ticks)),
        }
    }

    /// A descriptor that becomes readable when the process exits; `None` where the kernel gives none.
    pub fn exit_event(&self) -> Option<Arc<OwnedFd>> {
        match &self.0.anchor {
            Anchor::Pidfd(pidfd) => Some(pidfd.clone()),
            Anchor::StartTime { .. } => None,
        }
    }

    /// What the process ran at accept; `None` if we did not look or were not allowed to see.
    pub(super) fn executable(&self) -> Option<&Noted> {
        self.0.executable.as_ref()
    }

    /// What others have said of it on this connection.
    pub(super) fn said(&self) -> &Said {
        &self.0.said
    }

    /// Opens /proc/PID, certainly the directory of the process that connected.
    pub(super) fn process(&self) -> Result<Process, WorkloadRefusal> {
        let pid = self.0.pid;
        let opened = Process::open(pid);
        match (opened, self.still_alive()) {
            (_, false) => Err(WorkloadRefusal::Exited { pid }),
            (Ok(process), true) => Ok(process),
            (Err(Errno::ENOENT), true) => Err(WorkloadRefusal::Hidden { pid }),
            (Err(errno), true) => Err(WorkloadRefusal::Unreadable { pid, file: ".", source: errno.into() }),
        }
    }
}

impl Anchor {
    /// Of whatever process, and no thread of one, has the number now.
    fn of_number(pid: i32) -> Result<Self, WorkloadRefusal> {
        let exited = WorkloadRefusal::Exited { pid };
        let Some(number) = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw) else { return Err(exited) };
        match pidfd_open(number, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self::Pidfd(Arc::new(pidfd))),
            Err(rustix::io::Errno::NOSYS) => Self::start_time(pid),
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Err(exited),
            Err(errno) => Err(WorkloadRefusal::Unreadable { pid, file: ".", source: errno.into() }),
        }
    }

    fn start_time(pid: i32) -> Result<Self, WorkloadRefusal> {
        let process = Process::open(pid).map_err(|_| WorkloadRefusal::Exited { pid })?;
        let ticks = process.start_time()?.ok_or(WorkloadRefusal::Exited { pid })?;
        Ok(Self::StartTime { process, ticks })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep runs")
    }

    /// The peer that a kernel without SO_PEERPIDFD would give.
    fn peer_by_start_time(pid: i32) -> Peer {
        let anchor = Anchor::start_time(pid).expect("runs");
        Peer(Arc::new(Facts { pid, uid: 0, gid: 0, anchor, executable: None, said: Said::default() }))
    }

    #[test]
    fn without_pidfd_a_running_process_is_alive_and_a_zombie_or_reaped_one_is_not() {
        let mut child = sleeper();
        let peer = peer_by_start_time(child.id() as i32);
        assert!(peer.still_alive() && peer.process().is_ok());
        child.kill().expect("kills");
        while peer.still_alive() {
            std::thread::yield_now();
        }
        assert!(std::fs::exists(format!("/proc/{}", child.id())).expect("looks"), "not reaped: a zombie");
        assert!(matches!(peer.process(), Err(WorkloadRefusal::Exited { .. })));
        child.wait().expect("reaps");
        assert!(!peer.still_alive());
    }

    #[test]
    fn a_process_that_is_named_by_its_number_is_that_process_as_long_as_it_runs() {
        let mut child = sleeper();
        let peer = Peer::numbered(child.id() as i32).expect("runs");
        assert_eq!((peer.pid(), peer.uid()), (child.id() as i32, nix::unistd::geteuid().as_raw()));
        child.kill().and_then(|()| child.wait()).expect("ends");
        assert!(!peer.still_alive());
        for nobody in [child.id() as i32, 0, -1, i32::MIN, i32::MAX] {
            assert!(matches!(Peer::numbered(nobody), Err(WorkloadRefusal::Exited { .. })), "{nobody}");
        }
    }

    #[test]
    fn a_thread_is_no_process() {
        let (says, said) = std::sync::mpsc::channel();
        let (ends, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            says.send(nix::unistd::gettid().as_raw()).expect("listens");
            let _ = ended.recv();
        });
        let number = said.recv().expect("says it");
        assert!(std::fs::exists(format!("/proc/{number}")).expect("looks"), "it has a place there");
        assert!(matches!(Peer::numbered(number), Err(WorkloadRefusal::Exited { .. })));
        drop(ends);
        thread.join().expect("ends");
    }

    //= FLT-A12
    #[test]
    fn without_pidfd_another_start_time_is_another_process() {
        let mut child = sleeper();
        let process = Process::open(child.id() as i32).expect("runs");
        let ticks = process.start_time().expect("reads").expect("runs") - 1;
        let anchor = Anchor::StartTime { process, ticks };
        let (pid, said) = (child.id() as i32, Said::default());
        let peer = Peer(Arc::new(Facts { pid, uid: 0, gid: 0, anchor, executable: None, said }));
        assert!(!peer.still_alive());
        child.kill().and_then(|()| child.wait()).expect("ends");
    }
}
