//! Flags as Go's `flag` package reads them, rewritten for a parser of double-dash flags.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, Command};

use super::empty_flags::EmptyFlags;

/// The long flags of a command line, its subcommands' too.
#[derive(Debug, Default)]
pub struct GoFlags {
    /// Those without a value.
    switches: BTreeSet<String>,
    /// Those that always have one.
    valued: BTreeSet<String>,
    empty: EmptyFlags,
}

impl GoFlags {
    /// Those of this command line.
    pub fn of(command: &Command) -> Self {
        let mut flags = Self { empty: EmptyFlags::of(command), ..Self::default() };
        flags.add(command);
        flags
    }

    fn add(&mut self, command: &Command) {
        for argument in command.get_arguments() {
            let Some(long) = argument.get_long() else { continue };
            if matches!(argument.get_action(), ArgAction::SetTrue) {
                self.switches.insert(long.to_owned());
            } else if always_has_value(argument) {
                self.valued.insert(long.to_owned());
            }
        }
        command.get_subcommands().for_each(|command| self.add(command));
    }

    /// Rewrites Go's flags: `-socketPath x` and `-output=json` become `--socketPath x` and `--output=json`; `-hint -x`, whose value
    /// begins with a dash, becomes `--hint=-x`; of the switches `-node=true` becomes `--node` and `-node=false` goes away. The word `true`
    /// behind a switch goes away too, and flags of SPIRE's whose value is empty.
    ///
    /// Left alone: everything after `--`, a lone `-` (standard input), one-letter flags such as `-h`, numbers such as `-5`. Other than in
    /// Go a flag is no other flag's value: `-hint -node` lacks the hint.
    pub fn rewritten(&self, arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        self.empty.left_out(self.in_two_dashes(arguments), &self.valued)
    }

    fn in_two_dashes(&self, arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        let mut arguments = arguments.into_iter().peekable();
        let mut rewritten = Vec::new();
        let mut behind_switch = false;
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                rewritten.push(argument);
                rewritten.extend(arguments);
                return rewritten;
            }
            // `-storeSVID true`: Go's flags do not take the word, and SPIRE passes over it.
            if std::mem::take(&mut behind_switch) && argument == "true" {
                continue;
            }
            let doubled = if is_go_flag(&argument) { doubled(&argument) } else { argument };
            behind_switch = name_of(&doubled).is_some_and(|name| self.switches.contains(name));
            match self.set_switch(&doubled) {
                Some((name, true)) => rewritten.push(OsString::from(format!("--{name}"))),
                Some((_, false)) => {}
                None if self.wants_value(&doubled) => {
                    rewritten.push(joined(doubled, arguments.next_if(|next| self.is_dashed_value(next))));
                }
                None => rewritten.push(doubled),
            }
        }
        rewritten
    }

    /// The name and value of `--name=true` and its like. Source: Go's `strconv.ParseBool`.
    fn set_switch(&self, argument: &OsStr) -> Option<(&str, bool)> {
        let (name, value) = argument.to_str()?.strip_prefix("--")?.split_once('=')?;
        let name = self.switches.get(name)?;
        match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some((name, true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some((name, false)),
            _ => None,
        }
    }

    fn wants_value(&self, argument: &OsStr) -> bool {
        name_of(argument).is_some_and(|name| self.valued.contains(name) && !self.switches.contains(name))
    }

    /// Whether a word looks like a flag, and is none of ours.
    fn is_dashed_value(&self, word: &OsStr) -> bool {
        let Some(rest) = word.to_str().and_then(|word| word.strip_prefix('-')) else { return false };
        let name = rest.strip_prefix('-').unwrap_or(rest).split('=').next().unwrap_or_default();
        !rest.is_empty() && rest != "-" && !self.switches.contains(name) && !self.valued.contains(name)
    }
}

fn always_has_value(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Set | ArgAction::Append) && !argument.is_require_equals_set()
}

fn name_of(argument: &OsStr) -> Option<&str> {
    argument.to_str()?.strip_prefix("--")
}

fn joined(flag: OsString, value: Option<OsString>) -> OsString {
    let Some(value) = value else { return flag };
    let mut joined = flag;
    joined.push("=");
    joined.push(value);
    joined
}

fn doubled(argument: &OsStr) -> OsString {
    let mut doubled = OsString::from("-");
    doubled.push(argument);
    doubled
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

    fn rewritten(given: &str) -> Vec<OsString> {
        let flag = |name: &'static str, action| Arg::new(name).long(name).action(action);
        let command = Command::new("x").subcommand(Command::new("entry").args([
            flag("node", ArgAction::SetTrue),
            flag("admin", ArgAction::SetTrue),
            flag("hint", ArgAction::Set),
            flag("selector", ArgAction::Append),
            flag("prefetch", ArgAction::Set).num_args(0..=1).require_equals(true),
        ]));
        GoFlags::of(&command).rewritten(words(given))
    }

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn one_dash_or_two_mean_the_same() {
        for (given, wanted) in [
            ("x run -config a.conf", "x run --config a.conf"),
            ("x run -config=a.conf", "x run --config=a.conf"),
            ("x run --config=a.conf", "x run --config=a.conf"),
            ("x entry create -selector unix:uid:1 -node", "x entry create --selector unix:uid:1 --node"),
            ("x entry create -data -", "x entry create --data -"),
            ("x entry create -hint - -node", "x entry create --hint - --node"),
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
            assert_eq!(rewritten(given), words(wanted), "{given}");
        }
    }

    #[test]
    fn a_value_may_begin_with_a_dash_unless_it_is_a_flag() {
        for (given, wanted) in [
            ("x entry -hint -dash -node", "x entry --hint=-dash --node"),
            ("x entry -hint --dash", "x entry --hint=--dash"),
            ("x entry -selector -a:b -selector -c=d", "x entry --selector=-a:b --selector=-c=d"),
            ("x entry -hint -5m", "x entry --hint=-5m"),
            ("x entry -hint -node", "x entry --hint --node"),
            ("x entry -hint --selector=a", "x entry --hint --selector=a"),
            ("x entry -hint=a -dash", "x entry --hint=a --dash"),
            ("x entry -prefetch -dash", "x entry --prefetch --dash"),
            ("x entry -hint -- -node", "x entry --hint -- -node"),
            ("x entry -hint", "x entry --hint"),
        ] {
            assert_eq!(rewritten(given), words(wanted), "{given}");
        }
    }
}
