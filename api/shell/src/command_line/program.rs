//! A whole command line: Go's flags, SPIRE's exit codes, one answer.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgAction, Parser};

use super::{EXIT_NO_COMMAND, go_flags};

/// A daemon's command line.
pub trait Program: Parser {
    /// Does what it says.
    fn execute(self) -> ExitCode;

    /// Parses a command line with Go's flags: one dash or two, `-node` or `-node=true`.
    fn parse_go(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let switches = switches(&Self::command());
        Self::try_parse_from(go_flags(arguments, &switches))
    }

    /// Runs the command that the process was started with.
    fn main() -> ExitCode {
        match Self::parse_go(std::env::args_os()) {
            Ok(program) => program.execute(),
            Err(error) => told(&error, &Self::command(), std::env::args_os().nth(1)),
        }
    }
}

/// The long flags of `command` and its subcommands that take no value.
fn switches(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter(|argument| matches!(argument.get_action(), ArgAction::SetTrue));
    let own = own.filter_map(|argument| argument.get_long().map(str::to_owned));
    own.chain(command.get_subcommands().flat_map(switches)).collect()
}

/// Prints help, the version, or what is wrong with the command line. The version goes to standard error, as SPIRE's does.
fn told(error: &clap::Error, command: &clap::Command, first_word: Option<OsString>) -> ExitCode {
    if error.kind() == ErrorKind::DisplayVersion {
        eprintln!("{}", command.get_version().unwrap_or("unknown"));
        return ExitCode::SUCCESS;
    }
    let _ = error.print();
    match (error.use_stderr(), is_command(command, first_word)) {
        (false, _) => ExitCode::SUCCESS,
        (true, true) => ExitCode::FAILURE,
        (true, false) => ExitCode::from(EXIT_NO_COMMAND),
    }
}

/// Whether the first word of the command line is a command, or a flag such as -help.
fn is_command(command: &clap::Command, first_word: Option<OsString>) -> bool {
    let Some(word) = first_word else { return false };
    let is_it = |command: &clap::Command| word == command.get_name();
    word.as_encoded_bytes().starts_with(b"-") || command.get_subcommands().any(is_it)
}
