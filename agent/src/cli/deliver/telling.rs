//! Telling software that its files have changed.

use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use ironroot_shell::command_line::CommandError;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::named_process::NamedProcess;

/// Longest a command may take. Reloads are asked for, not waited for.
const LONGEST_COMMAND: Duration = Duration::from_secs(60);
/// How long it, and what it has started, has to end when it is asked to.
const GRACE: Duration = Duration::from_secs(5);

/// Who hears of a change.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// A program and its arguments; none if empty.
    pub(super) command: Vec<String>,
    pub(super) signal: Option<(Signal, PathBuf)>,
}

impl Telling {
    /// Runs the command to its end, then sends the signal.
    pub(super) async fn tell(&self) -> Result<(), CommandError> {
        if let Some((program, arguments)) = self.command.split_first() {
            run(program, arguments, LONGEST_COMMAND, GRACE).await?;
        }
        match &self.signal {
            Some((signal, pid_file)) => NamedProcess::of(pid_file).and_then(|it| it.send(*signal)).map_err(not_told),
            None => Ok(()),
        }
    }
}

/// In a process group of its own: what it has started is ended with it if it hangs.
async fn run(program: &str, arguments: &[String], longest: Duration, grace: Duration) -> Result<(), CommandError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    let starts = |source| CommandError::File { doing: "run", path: program.into(), source };
    let mut child = command.spawn().map_err(starts)?;
    let mut group = Group::of(&child);
    let Ok(ended) = tokio::time::timeout(longest, child.wait()).await else {
        group.end(grace).await;
        return Err(not_told(format!("{program} was ended after {} seconds", longest.as_secs())));
    };
    group.is_over();
    let ended = ended.map_err(starts)?;
    match ended.success() {
        true => Ok(()),
        false => Err(not_told(format!("{program} failed ({ended})"))),
    }
}

/// The processes of a command that has not ended; killed with this, as when the deliverer ends. Its leader is not waited for until then, so
/// the number is nobody else's.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// The command has ended by itself: what it leaves running is meant to run.
    fn is_over(&mut self) {
        self.0 = None;
    }

    async fn end(&mut self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        tokio::time::sleep(grace).await;
        self.signal(Signal::SIGKILL);
        self.0 = None;
    }

    fn signal(&self, signal: Signal) {
        // Whoever is gone needs no end.
        if let Some(group) = self.0 {
            let _ = killpg(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

fn not_told(why: String) -> CommandError {
    CommandError::Malformed(format!("the files are there, but nobody was told: {why}"))
}

/// `HUP`, `SIGHUP`, `usr1`.
pub(super) fn parse_signal(text: &str) -> Result<Signal, String> {
    let name = text.to_ascii_uppercase();
    let full = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    Signal::from_str(&full).map_err(|_| "not the name of a signal: give it as in HUP or SIGUSR1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_as_people_name_them() {
        for name in ["HUP", "SIGHUP", "hup"] {
            assert_eq!(parse_signal(name), Ok(Signal::SIGHUP), "{name}");
        }
        assert!(parse_signal("1").is_err() && parse_signal("").is_err());
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_ended_with_all_that_it_has_started() {
        let directory = tempfile::tempdir().expect("directory");
        let noted = directory.path().join("pid");
        let script = format!("trap '' TERM; sleep 600 & echo $! > {}; wait", noted.display());
        let arguments = ["-c".to_owned(), script];
        let error = run("sh", &arguments, Duration::from_secs(3), Duration::from_millis(50)).await;
        let error = error.expect_err("it hangs").message();
        assert!(error.contains("sh was ended after 3 seconds"), "{error}");
        let pid = std::fs::read_to_string(&noted).expect("it began").trim().to_owned();
        let runs = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
        };
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while runs() {
            assert!(std::time::Instant::now() < end, "{pid} goes on");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_command_that_fails_or_is_not_there_is_named() {
        let said = async |command: &[&str]| {
            let command = command.iter().map(|&word| word.to_owned()).collect();
            let told = Telling { command, signal: None }.tell().await;
            told.err().map(|error| error.message())
        };
        assert_eq!(said(&["true"]).await, None);
        let failed = said(&["sh", "-c", "exit 3"]).await.expect("it fails");
        assert!(failed.contains("sh failed (exit status: 3)"), "{failed}");
        let absent = said(&["no-such-program"]).await.expect("it is not there");
        assert!(absent.starts_with("cannot run no-such-program: "), "{absent}");
    }
}
