//! A command's answer: for people or for programs.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::str::FromStr;

use serde_json::{Value, json};
use thiserror::Error;

use super::CommandError;
use crate::printable::printable;

/// Who reads the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// People: aligned labels and counted nouns, as SPIRE's commands print them.
    #[default]
    Pretty,
    /// Programs: one JSON value on one line.
    Json,
}

/// Not a form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("use pretty or json")]
pub struct UnknownOutput;

impl FromStr for Output {
    type Err = UnknownOutput;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(UnknownOutput),
        }
    }
}

/// A command's answer in both forms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// For programs: the answer as SPIRE's commands print it.
    pub json: Value,
    /// For programs, in place of `json` where that would take much memory: one JSON value, as text on one line.
    pub json_text: Option<String>,
    /// For people, with its line ends.
    pub text: String,
    /// For people at a terminal, in place of `text`: a list that fits a screen. Pipes get `text`, which is SPIRE's form.
    pub table: Option<String>,
    /// For people, on standard error: what did not work.
    pub complaints: String,
    /// On standard error, whoever reads the answer: what is worth knowing, with its line ends.
    pub notes: String,
    /// Whether part of the work failed; the exit code then is 1, or what `failed_with` says.
    pub failed: bool,
    /// An exit code that tells a supervisor more.
    pub failed_with: Option<u8>,
}

impl Reply {
    /// An answer of which everything worked.
    pub fn new(json: Value, text: impl Into<String>) -> Self {
        Self { json, text: text.into(), ..Self::default() }
    }

    /// The answer with its table, if it has one and is read at a terminal.
    fn at_terminal(&self, is_terminal: bool) -> Option<Self> {
        let table = self.table.as_ref().filter(|_| is_terminal)?;
        Some(Self { text: table.clone(), ..self.clone() })
    }

    /// Prints an answer, or the error in its place, and says what the shell hears.
    pub fn print(answer: &Result<Self, CommandError>, output: Output) -> ExitCode {
        let tabled = answer.as_ref().ok().and_then(|reply| reply.at_terminal(io::stdout().is_terminal())).map(Ok);
        let answer = tabled.as_ref().unwrap_or(answer);
        let written = write_to(answer, output, &mut BufWriter::new(io::stdout().lock()), &mut io::stderr().lock());
        written.unwrap_or_else(|error| {
            if let Some(told) = lost(&error) {
                let _ = writeln!(io::stderr(), "{told}");
            }
            ExitCode::FAILURE
        })
    }
}

/// What is to be said where the answer could not be written: whoever redirected it has half of a file. A reader that went away needs no
/// message.
fn lost(error: &io::Error) -> Option<String> {
    let is_gone = error.kind() == io::ErrorKind::BrokenPipe;
    (!is_gone).then(|| format!("Error: the answer is not whole, it cannot be written: {error}"))
}

fn write_to(
    answer: &Result<Reply, CommandError>,
    output: Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitCode> {
    let reply = match (answer, output) {
        (Ok(reply), _) => reply,
        (Err(error), Output::Json) => {
            writeln!(err, "{}", json!({ "error": error.message() }))?;
            return Ok(ExitCode::FAILURE);
        }
        (Err(error), Output::Pretty) => {
            writeln!(err, "Error: {}", error.for_people())?;
            return Ok(ExitCode::FAILURE);
        }
    };
    // Both may lead to one place: what worked stands before what did not, and the closing "Error:" last. As SPIRE's.
    let answered = write_answer(reply, output, out);
    write!(err, "{}", printable(&reply.notes))?;
    if output == Output::Pretty {
        write!(err, "{}", printable(&reply.complaints))?;
    }
    answered?;
    Ok(match reply.failed {
        true => reply.failed_with.map_or(ExitCode::FAILURE, ExitCode::from),
        false => ExitCode::SUCCESS,
    })
}

/// What worked, to the last byte.
fn write_answer(reply: &Reply, output: Output, out: &mut dyn Write) -> io::Result<()> {
    match (output, &reply.json_text) {
        (Output::Json, Some(json)) => writeln!(out, "{json}")?,
        (Output::Json, None) => writeln!(out, "{}", reply.json)?,
        // Line by line: a long list is not held once more.
        (Output::Pretty, _) => {
            reply.text.split_inclusive('\n').try_for_each(|line| write!(out, "{}", printable(line)))?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(answer: &Result<Reply, CommandError>, output: Output) -> (String, String, ExitCode) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = write_to(answer, output, &mut out, &mut err).expect("written");
        (String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"), code)
    }

    #[test]
    fn answers_and_errors_have_two_forms() {
        let reply = Ok(Reply::new(json!({ "b": 1, "a": [] }), "Hello \u{1b}[31m\u{202e}\n"));
        assert_eq!(printed(&reply, Output::Json).0, "{\"a\":[],\"b\":1}\n");
        assert_eq!(printed(&reply, Output::Pretty).0, "Hello \\u{1b}[31m\\u{202e}\n");
        let in_text = Ok(Reply { json_text: Some("[1]".into()), ..Reply::default() });
        assert_eq!(printed(&in_text, Output::Json).0, "[1]\n");
        let refused = Err(CommandError::from(tonic::Status::not_found("entry not found")));
        let (out, err, _) = printed(&refused, Output::Json);
        assert_eq!((out.as_str(), err.as_str()), ("", "{\"error\":\"entry not found (code: NotFound)\"}\n"));
        let (out, err, code) = printed(&refused, Output::Pretty);
        assert_eq!((out.as_str(), err.as_str()), ("", "Error: entry not found (code: NotFound)\n"));
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
        let forged = Err(CommandError::from(tonic::Status::not_found("no\nError: forged")));
        assert_eq!(printed(&forged, Output::Pretty).1, "Error: no\\nError: forged (code: NotFound)\n");
        assert_eq!(printed(&forged, Output::Json).1, "{\"error\":\"no\\nError: forged (code: NotFound)\"}\n");
    }

    #[test]
    fn notes_stand_beside_both_forms_and_names_of_forms_have_no_case() {
        let reply = Ok(Reply { notes: "Warning: x\n".into(), ..Reply::new(json!({}), "done\n") });
        assert_eq!(printed(&reply, Output::Json).1, "Warning: x\n");
        assert_eq!(printed(&reply, Output::Pretty).1, "Warning: x\n");
        assert_eq!(("JSON".parse(), "Pretty".parse()), (Ok(Output::Json), Ok(Output::Pretty)));
    }

    #[test]
    fn a_partial_failure_is_a_failure() {
        let reply = Reply { failed: true, complaints: "no\n".into(), ..Reply::default() };
        let (_, err, code) = printed(&Ok(reply), Output::Pretty);
        assert_eq!((err.as_str(), format!("{code:?}")), ("no\n", format!("{:?}", ExitCode::FAILURE)));
    }

    #[test]
    fn where_both_lead_to_one_place_what_worked_stands_before_what_failed_and_the_error_last() {
        #[derive(Clone, Default)]
        struct Place(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);
        impl Write for Place {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.borrow_mut().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let answer = Ok(Reply {
            text: "made\n".into(),
            complaints: "Failed: x\nError: failed to make one or more\n".into(),
            notes: "Warning: y\n".into(),
            failed: true,
            ..Reply::default()
        });
        for (output, wanted) in [
            (Output::Pretty, "made\nWarning: y\nFailed: x\nError: failed to make one or more\n"),
            (Output::Json, "null\nWarning: y\n"),
        ] {
            let place = Place::default();
            write_to(&answer, output, &mut BufWriter::new(place.clone()), &mut place.clone()).expect("written");
            assert_eq!(String::from_utf8_lossy(&place.0.borrow()), wanted);
        }
    }

    #[test]
    fn what_failed_is_told_though_the_answer_cannot_be_written() {
        let answer = Ok(Reply { complaints: "Error: no\n".into(), ..Reply::new(json!({}), "made\n") });
        let (mut full, mut err) = ([0_u8; 2], Vec::new());
        write_to(&answer, Output::Pretty, &mut full.as_mut_slice(), &mut err).expect_err("it does not fit");
        assert_eq!(err, b"Error: no\n");
    }

    #[test]
    fn an_answer_that_is_not_whole_is_told_unless_its_reader_left() {
        struct Fails(io::ErrorKind);
        impl Write for Fails {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(self.0.into())
            }
        }
        let told = |kind| {
            let answer = Ok(Reply::new(json!({}), "done\n"));
            let error = write_to(&answer, Output::Pretty, &mut Fails(kind), &mut Vec::new()).expect_err("it fails");
            lost(&error)
        };
        assert!(told(io::ErrorKind::StorageFull).is_some_and(|told| told.contains("the answer is not whole")));
        assert_eq!(told(io::ErrorKind::BrokenPipe), None);
    }
}
