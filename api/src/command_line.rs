//! What the command lines of server and agent share: flags in Go's style, answers in two forms, errors with exit codes.

mod error;
mod json;
mod reply;
mod socket;

use std::ffi::{OsStr, OsString};

pub use error::{CommandError, EXIT_CONFIG, code_name, describe};
pub use json::{base64, int64};
pub use reply::{Output, Reply, UnknownOutput};
pub use socket::{SocketChoice, SocketError};

/// Rewrites Go's single-dash flags so that a parser of double-dash flags understands them: `-socketPath x` and
/// `-output=json` become `--socketPath x` and `--output=json`.
///
/// Left alone: everything after `--`, a lone `-` (standard input), one-letter flags such as `-h`, numbers such as `-5`.
pub fn go_flags(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut rest_is_literal = false;
    let rewrite = |argument: OsString| {
        rest_is_literal |= argument == "--";
        if rest_is_literal || !is_go_flag(&argument) {
            return argument;
        }
        let mut doubled = OsString::from("-");
        doubled.push(argument);
        doubled
    };
    arguments.into_iter().map(rewrite).collect()
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
            ("x entry create -node=false", "x entry create --node=false"),
        ] {
            let split = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
            assert_eq!(go_flags(split(given)), split(wanted), "{given}");
        }
    }
}
