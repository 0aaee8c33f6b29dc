//! The process that a daemon's file names, and whether the file's word counts.
//!
//! Whoever may write the file, or put another in its place, says who is signalled, with this process's rights: root's, often. So that is
//! root, us, or the user whose process it is, who may signal it anyhow.

use std::fs::{self, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ironroot_shell::command_line::describe;
use ironroot_text::HumanFile;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getegid, geteuid};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

/// Longest file with a process's ID, bytes: the first line counts, and PostgreSQL's postmaster.pid has paths below it.
const MAX_PID_FILE_BYTES: usize = 16 * 1024;
const ROOT: u32 = 0;
const STICKY: u32 = 0o1000;
const GROUP_WRITABLE: u32 = 0o020;
const WORLD_WRITABLE: u32 = 0o002;

/// One process, and not all of a group or of the machine.
#[derive(Debug)]
pub(super) struct NamedProcess {
    pid: Pid,
    /// The process itself: another one that gets its number hears nothing. None on a kernel that has no such thing (before 5.3).
    pinned: Option<OwnedFd>,
    pid_file: PathBuf,
}

impl NamedProcess {
    /// The one whose number is on the first line of `pid_file`; why not, in words.
    pub(super) fn of(pid_file: &Path) -> Result<Self, String> {
        let read = HumanFile::regular_with_facts(pid_file, MAX_PID_FILE_BYTES);
        let (file, facts) = read.map_err(|error| describe(&error))?;
        let nobody = || format!("{} does not hold a process's ID on its first line", pid_file.display());
        if first_line(file.text()) == "1" {
            return Err(format!("{} names process 1, which is never signalled", pid_file.display()));
        }
        let pid = number_in(file.text()).ok_or_else(nobody)?;
        let gone = |why: &str| format!("process {pid} of {} is not there: {why}", pid_file.display());
        let number = rustix::process::Pid::from_raw(pid.as_raw()).ok_or_else(nobody)?;
        // Pinned before it is asked whose it is.
        let pinned = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(pinned) => Some(pinned),
            Err(Errno::NOSYS) => None,
            Err(errno) => return Err(gone(&errno.to_string())),
        };
        let user = user_of(pid).ok_or_else(|| gone("the kernel does not tell whose it is"))?;
        match others_place(pid_file, &facts, user) {
            Some(place) => Err(format!(
                "{} may be written by another user than root, us and that of process {pid}, who would be signalled in its word",
                place.display()
            )),
            None => Ok(Self { pid, pinned, pid_file: pid_file.to_owned() }),
        }
    }

    /// Sends it a signal; why that did not work, in words.
    pub(super) fn send(&self, signal: Signal) -> Result<(), String> {
        let sent = match (&self.pinned, rustix::process::Signal::from_named_raw(signal as i32)) {
            (Some(pinned), Some(signal)) => pidfd_send_signal(pinned, signal).map_err(|errno| errno.to_string()),
            _ => kill(self.pid, signal).map_err(|errno| errno.desc().to_owned()),
        };
        let (pid, file) = (self.pid, self.pid_file.display());
        sent.map_err(|why| format!("{signal} cannot be sent to process {pid} of {file}: {why}"))
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim()
}

fn number_in(text: &str) -> Option<Pid> {
    first_line(text).parse().ok().filter(|pid| *pid > 1).map(Pid::from_raw)
}

/// Whose process it is: root's, unless each of its user IDs (real, effective, saved, of files) is the same other one. None if it is gone.
fn user_of(pid: Pid) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let uids: Vec<u32> = line.split_whitespace().filter_map(|uid| uid.parse().ok()).collect();
    let first = *uids.first()?;
    Some(if uids.iter().all(|uid| *uid == first) { first } else { ROOT })
}

/// The file or the directory on the way to it that others than root, us and `user` may write; none if nobody else may.
fn others_place(pid_file: &Path, facts: &Metadata, user: u32) -> Option<PathBuf> {
    if is_others(facts, user) {
        return Some(pid_file.to_owned());
    }
    let real = fs::canonicalize(pid_file).unwrap_or_else(|_| pid_file.to_owned());
    let given = std::path::absolute(pid_file).unwrap_or_else(|_| pid_file.to_owned());
    let places = given.ancestors().skip(1).chain(real.ancestors().skip(1));
    let of_others = |place: &&Path| fs::symlink_metadata(place).map_or(true, |facts| is_others(&facts, user));
    places.map(Path::to_owned).find(|place| of_others(&place.as_path()))
}

fn is_others(facts: &Metadata, user: u32) -> bool {
    let (owner, is_sticky) = (facts.uid(), facts.is_dir() && facts.mode() & STICKY != 0);
    let is_users = owner == user && user != ROOT;
    let is_ours = owner == ROOT || owner == geteuid().as_raw();
    let may = |bit| facts.mode() & bit != 0 && !is_sticky && !facts.is_symlink();
    // Whom a user lets write, that user answers for.
    let is_open_group = facts.gid() != ROOT && facts.gid() != getegid().as_raw() && !is_users;
    !(is_users || is_ours) || may(WORLD_WRITABLE) || (may(GROUP_WRITABLE) && is_open_group)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};

    use super::*;

    const ALICE: u32 = 60_001;
    const BOB: u32 = 60_002;

    fn sleeper(uid: u32) -> Child {
        Command::new("sleep").arg("600").uid(uid).spawn().expect("root starts a process of another user")
    }

    #[test]
    fn a_file_that_names_no_single_process_reaches_nobody() {
        for content in ["", "0", "1", "-1", "-77", "12 13", "nginx", "\n77", "1\n77"] {
            assert_eq!(number_in(content), None, "{content:?}");
        }
        // The last as PostgreSQL writes it.
        for content in ["77", " 77\n", "77\r\n", "77\n/var/lib/postgresql/15/main\n1764349871\n5432\n/run/postgresql\n"]
        {
            assert_eq!(number_in(content), Some(Pid::from_raw(77)), "{content:?}");
        }
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("daemon.pid");
        assert!(NamedProcess::of(&path).is_err(), "it is not there");
        fs::write(&path, "1\n").expect("written");
        let first = NamedProcess::of(&path).expect_err("the machine's, or the container's");
        assert!(first.contains("process 1, which is never signalled"), "{first}");
        fs::write(&path, format!("77\n{}", "x".repeat(MAX_PID_FILE_BYTES))).expect("written");
        assert!(NamedProcess::of(&path).is_err(), "it is too long");
    }

    #[test]
    fn the_word_of_a_file_counts_that_root_we_or_the_processs_own_user_has_written() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("daemon.pid");
        let (mut ours, mut alices) = (sleeper(geteuid().as_raw()), sleeper(ALICE));
        let taken = |child: &Child, owner: u32, mode: u32| {
            fs::write(&path, child.id().to_string()).expect("written");
            chown(&path, Some(owner), None).expect("root gives files away");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            NamedProcess::of(&path)
        };
        for (child, owner, mode, counts) in [
            (&ours, 0, 0o644, true),
            (&alices, 0, 0o644, true),
            (&alices, ALICE, 0o644, true),
            (&ours, ALICE, 0o644, false),
            (&alices, BOB, 0o644, false),
            (&ours, 0, 0o666, false),
            (&alices, ALICE, 0o646, false),
        ] {
            assert_eq!(taken(child, owner, mode).is_ok(), counts, "{owner} {mode:o}");
        }
        // Whose directory it is in may put another file there, also by a link to one of root's.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("set");
        chown(directory.path(), Some(ALICE), None).expect("given away");
        assert!(taken(&ours, 0, 0o644).is_err());
        assert!(taken(&alices, 0, 0o644).is_ok());
        let named = taken(&alices, ALICE, 0o644).expect("her own");
        named.send(Signal::SIGTERM).expect("sent");
        assert_eq!(alices.wait().expect("ends").signal(), Some(Signal::SIGTERM as i32));
        assert!(named.send(Signal::SIGTERM).is_err(), "it is gone, whoever has its number");
        ours.kill().expect("ends");
        ours.wait().expect("ended");
    }
}
