//! What the command lines of server and agent share: flags in Go's style, answers in two forms, errors with exit codes.

mod asking;
mod chain;
mod daemon;
pub mod doctor;
mod error;
mod json;
mod logger;
mod program;
mod replace_file;
mod reply;
mod seconds;
mod socket;
mod text;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

pub use crate::describe;
pub use asking::{block_on, within};
pub use chain::{ShownCertificate, chain_text, go_duration};
pub use daemon::{ConfigFile, ConfigFlags, Given, LogFlags, begin_log, ended, keep_files_private, switched_on};
pub use error::{CommandError, EXIT_NO_COMMAND, code_name};
pub use json::{base64, int64};
pub use logger::logger_reply;
pub use program::Program;
pub use replace_file::replace_file;
pub use reply::{Output, Reply, UnknownOutput};
pub use seconds::{lifetime_seconds, positive_seconds};
pub use socket::{SocketChoice, SocketError};
pub use text::{counted, table};

/// Rewrites Go's flags so that a parser of double-dash flags understands them: `-socketPath x` and `-output=json` become
/// `--socketPath x` and `--output=json`; of `switches`, the flags without value, `-node=true` becomes `--node` and
/// `-node=false` goes away. The word `true` behind a switch goes away too.
///
/// Left alone: everything after `--`, a lone `-` (standard input), one-letter flags such as `-h`, numbers such as `-5`.
pub fn go_flags(arguments: impl IntoIterator<Item = OsString>, switches: &BTreeSet<String>) -> Vec<OsString> {
    let mut rest_is_literal = false;
    let mut behind_switch = false;
    let rewrite = |argument: OsString| {
        rest_is_literal |= argument == "--";
        if rest_is_literal {
            return Some(argument);
        }
        // `-storeSVID true`: Go's flags do not take the word, and SPIRE passes over it.
        if std::mem::take(&mut behind_switch) && argument == "true" {
            return None;
        }
        let doubled = if is_go_flag(&argument) { doubled(&argument) } else { argument };
        behind_switch = doubled.to_str().and_then(|flag| flag.strip_prefix("--")).is_some_and(|f| switches.contains(f));
        match set_switch(&doubled, switches) {
            Some((name, true)) => Some(OsString::from(format!("--{name}"))),
            Some((_, false)) => None,
            None => Some(doubled),
        }
    };
    arguments.into_iter().filter_map(rewrite).collect()
}

fn doubled(argument: &OsStr) -> OsString {
    let mut doubled = OsString::from("-");
    doubled.push(argument);
    doubled
}

/// The name and value of `--name=true` and its like. Source: Go's `strconv.ParseBool`.
fn set_switch<'s>(argument: &OsStr, switches: &'s BTreeSet<String>) -> Option<(&'s str, bool)> {
    let (name, value) = argument.to_str()?.strip_prefix("--")?.split_once('=')?;
    let name = switches.get(name)?;
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some((name, true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some((name, false)),
        _ => None,
    }
}

fn is_go_flag(argument: &OsStr) -> bool {
    match argument.as_encoded_bytes() {
        [b'-', first, second, ..] => first.is_ascii_alphabetic() && *second != b' ',
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dash_or_two_mean_the_same() {
        for (given, wanted) in [
            ("x run -config a.conf", "x run --config a.conf"),
            ("x run -config=a.conf", "x run --config=a.conf"),
            ("x run --config=a.conf", "x run --config=a.conf"),
            ("x entry create -selector unix:uid:1 -node", "x entry create --selector unix:uid:1 --node"),
            ("x entry create -data -", "x entry create --data -"),
            ("x -h", "x -h"),
            ("x -help", "x --help"),
            ("x -ttl -5", "x --ttl -5"),
            ("x entry delete -- -file", "x entry delete -- -file"),
            ("x entry create -node=false -admin", "x entry create --admin"),
            ("x entry create -node=true --admin=1", "x entry create --node --admin"),
            ("x entry create -storeSVID true -admin true", "x entry create --storeSVID true --admin"),
            ("x entry create -node true -hint true", "x entry create --node --hint true"),
            ("x entry create -node false", "x entry create --node false"),
            ("x entry create -node=maybe -hint=true", "x entry create --node=maybe --hint=true"),
        ] {
            let switches = BTreeSet::from(["node".to_owned(), "admin".to_owned()]);
            let split = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
            assert_eq!(go_flags(split(given), &switches), split(wanted), "{given}");
        }
    }
}
