//! A whole command line: Go's flags, SPIRE's exit codes, one answer.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use super::{EXIT_NO_COMMAND, GoFlags};

/// A daemon's command line.
pub trait Program: Parser {
    /// Does what it says.
    fn execute(self) -> ExitCode;

    /// Parses a command line with Go's flags: one dash or two, `-node` or `-node=true`, the last of several that have one value.
    fn parse_go(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = Self::command().args_override_self(true);
        let flags = GoFlags::of(&command);
        let matches = command.try_get_matches_from_mut(flags.rewritten(arguments))?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// Runs the command that the process was started with.
    fn main() -> ExitCode {
        match Self::parse_go(std::env::args_os()) {
            Ok(program) => program.execute(),
            Err(error) => told(&error, &Self::command(), std::env::args_os().nth(1)),
        }
    }
}

/// Prints help, the version, or what is wrong with the command line. The version goes to standard error, as SPIRE's does.
fn told(error: &clap::Error, command: &clap::Command, first_word: Option<OsString>) -> ExitCode {
    if error.kind() == ErrorKind::DisplayVersion {
        eprintln!("{}", command.get_version().unwrap_or("unknown"));
        return ExitCode::SUCCESS;
    }
    print_in_words_of_people(error);
    match (error.use_stderr(), is_command(command, first_word)) {
        (false, _) => ExitCode::SUCCESS,
        (true, true) => ExitCode::FAILURE,
        (true, false) => ExitCode::from(EXIT_NO_COMMAND),
    }
}

/// What Rust says of a number that is none, and what it is for people.
const OF_NUMBERS: [(&str, &str); 4] = [
    ("invalid digit found in string", "not a whole number"),
    ("cannot parse integer from empty string", "not a whole number"),
    ("number too large to fit in target type", "too large"),
    ("number too small to fit in target type", "too small"),
];

/// Help goes to standard output, mistakes to standard error; a reader that went away needs neither.
fn print_in_words_of_people(error: &clap::Error) {
    let text = error.render();
    let told = |text: String| OF_NUMBERS.iter().fold(text, |text, (rust, people)| text.replace(rust, people));
    let _ = match error.use_stderr() {
        true if io::stderr().is_terminal() => write!(io::stderr(), "{}", told(text.ansi().to_string())),
        true => write!(io::stderr(), "{}", told(text.to_string())),
        false => error.print(),
    };
}

/// Whether the first word of the command line is a command, or a flag such as -help.
fn is_command(command: &clap::Command, first_word: Option<OsString>) -> bool {
    let Some(word) = first_word else { return false };
    let is_it = |command: &clap::Command| word == command.get_name();
    word.as_encoded_bytes().starts_with(b"-") || command.get_subcommands().any(is_it)
}
