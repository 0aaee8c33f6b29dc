//! A whole command line: Go's flags, SPIRE's exit codes, one answer.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use serde_json::json;

use super::{EXIT_NO_COMMAND, GoFlags, Output, with_whole_examples};

/// A daemon's command line.
pub trait Program: Parser {
    /// Does what it says.
    fn execute(self) -> ExitCode;

    /// Parses a command line with Go's flags: one dash or two, `-node` or `-node=true`, the last of several that have one value.
    fn parse_go(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = with_whole_examples(Self::command()).args_override_self(true);
        let flags = GoFlags::of(&command);
        let matches = command.try_get_matches_from_mut(flags.rewritten(arguments))?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// Runs the command that the process was started with.
    fn main() -> ExitCode {
        match Self::parse_go(std::env::args_os()) {
            Ok(program) => program.execute(),
            Err(error) => told(&error, &Self::command(), std::env::args_os()),
        }
    }
}

/// Prints help, the version, or what is wrong with the command line. The version goes to standard error, as SPIRE's does.
fn told(error: &clap::Error, command: &clap::Command, arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = GoFlags::of(command).rewritten(arguments);
    if error.kind() == ErrorKind::DisplayVersion {
        eprintln!("{}", command.get_version().unwrap_or("unknown"));
        return ExitCode::SUCCESS;
    }
    match error.use_stderr() && wants_json(&arguments) {
        true => drop(writeln!(io::stderr(), "{}", json!({ "error": in_one_line(error) }))),
        false => print_in_words_of_people(error),
    }
    match (error.use_stderr(), is_command(command, arguments.get(1))) {
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
    let _ = match error.use_stderr() {
        true if io::stderr().is_terminal() => write!(io::stderr(), "{}", of_people(text.ansi().to_string())),
        true => write!(io::stderr(), "{}", of_people(text.to_string())),
        false => error.print(),
    };
}

fn of_people(text: String) -> String {
    OF_NUMBERS.iter().fold(text, |text, (rust, people)| text.replace(rust, people))
}

/// What is wrong, without how the command is called right.
fn in_one_line(error: &clap::Error) -> String {
    let text = of_people(error.render().to_string());
    let wrong = text.split("\n\nUsage:").next().and_then(|text| text.split("\n\nFor more").next()).unwrap_or_default();
    let words: Vec<&str> = wrong.trim_start_matches("error: ").split_whitespace().collect();
    words.join(" ")
}

/// Whether the command line, with its flags rewritten, asks for the answer as JSON; of several the last counts.
fn wants_json(arguments: &[OsString]) -> bool {
    let words = || arguments.iter().map(|word| word.to_str().unwrap_or_default()).take_while(|word| *word != "--");
    let next = words().skip(1).chain([""]);
    let forms = words().zip(next).filter_map(|(word, next)| match word.strip_prefix("--output")? {
        "" => Some(next),
        value => value.strip_prefix('='),
    });
    forms.last().is_some_and(|form| form.parse() == Ok(Output::Json))
}

/// Whether the first word of the command line is a command, or a flag such as -help.
fn is_command(command: &clap::Command, first_word: Option<&OsString>) -> bool {
    let Some(word) = first_word else { return false };
    let is_it = |command: &clap::Command| word.as_os_str() == command.get_name();
    word.as_encoded_bytes().starts_with(b"-") || command.get_subcommands().any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_form_that_is_asked_for_counts_and_words_behind_two_dashes_are_none() {
        for (line, json) in [
            ("x entry show --output json", true),
            ("x entry show --output=JSON --nothing", true),
            ("x entry show --output pretty --output json", true),
            ("x entry show --output json --output=pretty", false),
            ("x entry show --output", false),
            ("x entry show --outputs=json", false),
            ("x entry delete -- --output=json", false),
            ("x entry show json", false),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(wants_json(&words), json, "{line}");
        }
    }
}
