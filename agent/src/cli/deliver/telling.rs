//! Telling software that its files have changed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use ironroot_shell::command_line::CommandError;
use ironroot_text::HumanFile;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

/// Longest a command may take. Reloads are asked for, not waited for.
const LONGEST_COMMAND: Duration = Duration::from_secs(60);
/// Longest file with a process's ID, bytes: the first line counts, and PostgreSQL's postmaster.pid has paths below it.
const MAX_PID_FILE_BYTES: usize = 16 * 1024;

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
            run(program, arguments).await?;
        }
        match &self.signal {
            Some((signal, pid_file)) => send(*signal, pid_file),
            None => Ok(()),
        }
    }
}

async fn run(program: &str, arguments: &[String]) -> Result<(), CommandError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let starts = |source| CommandError::File { doing: "run", path: program.into(), source };
    let ended = match tokio::time::timeout(LONGEST_COMMAND, command.status()).await {
        Ok(ended) => ended.map_err(starts)?,
        Err(_) => return Err(not_told(format!("{program} was ended after {} seconds", LONGEST_COMMAND.as_secs()))),
    };
    match ended.success() {
        true => Ok(()),
        false => Err(not_told(format!("{program} failed ({ended})"))),
    }
}

fn send(signal: Signal, pid_file: &Path) -> Result<(), CommandError> {
    let pid = process_of(pid_file)?;
    kill(pid, signal).map_err(|errno| {
        not_told(format!("{signal} cannot be sent to process {pid} of {}: {}", pid_file.display(), errno.desc()))
    })
}

/// The process that a daemon's file names: one, and not all of a group or of the machine.
fn process_of(pid_file: &Path) -> Result<Pid, CommandError> {
    let file = HumanFile::regular(pid_file, MAX_PID_FILE_BYTES)?;
    let first = file.text().lines().next().unwrap_or_default();
    let pid = first.trim().parse().ok().filter(|pid| *pid > 1);
    let nobody = || not_told(format!("{} does not hold a process's ID on its first line", pid_file.display()));
    pid.map(Pid::from_raw).ok_or_else(nobody)
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

    #[test]
    fn a_file_that_names_no_single_process_reaches_nobody() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("daemon.pid");
        assert!(matches!(process_of(&path), Err(CommandError::Input(_))), "it is not there");
        let long = format!("77\n{}", "x".repeat(MAX_PID_FILE_BYTES));
        for content in ["", "0", "1", "-1", "-77", "12 13", "nginx", "\n77", "1\n77", &long] {
            std::fs::write(&path, content).expect("written");
            assert!(process_of(&path).is_err(), "{content:?}");
        }
        // The last as PostgreSQL writes it.
        for content in ["77", " 77\n", "77\r\n", "77\n/var/lib/postgresql/15/main\n1764349871\n5432\n/run/postgresql\n"]
        {
            std::fs::write(&path, content).expect("written");
            assert_eq!(process_of(&path).expect("a process"), Pid::from_raw(77), "{content:?}");
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
