//! Telling software that its files have changed.

use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use ironroot_shell::command_line::CommandError;
use nix::sys::signal::Signal;
use tokio::process::Command;

use super::named_process::NamedProcess;

/// Longest a command may take. Reloads are asked for, not waited for.
const LONGEST_COMMAND: Duration = Duration::from_secs(60);

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
            Some((signal, pid_file)) => NamedProcess::of(pid_file).and_then(|it| it.send(*signal)).map_err(not_told),
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
