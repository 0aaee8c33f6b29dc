//! Flags with an empty value, which at SPIRE's commands are as not given: `-parentID "$PARENT"` of a script that has none.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use clap::{Arg, Command};

/// The flags of SPIRE's that it reads so. Of flags of ours an empty value is a mistake: `-pkcs11 ""` must not deliver a key to the disk.
const OF_SPIRE: [&str; 25] = [
    "bindAddress",
    "config",
    "data",
    "dataDir",
    "entryID",
    "file",
    "hint",
    "joinToken",
    "joinTokenFile",
    "logFile",
    "logFormat",
    "logLevel",
    "parentID",
    "path",
    "rebootstrapDelay",
    "rebootstrapMode",
    "serverAddress",
    "socketPath",
    "spiffeID",
    "trustBundle",
    "trustBundleFormat",
    "trustBundleUrl",
    "trustDomain",
    "trustDomainBundlePath",
    "write",
];
/// A command of ours with flags that are called so: whose key is delivered is named, or not.
const OURS: &str = "deliver";

/// By the words of a command, those flags that it can do without.
#[derive(Debug, Default)]
pub(super) struct EmptyFlags(BTreeMap<Vec<String>, BTreeSet<String>>);

/// A word that is no flag's, or a flag with its value.
struct Part {
    name: Option<String>,
    is_empty: bool,
    words: Vec<OsString>,
}

impl EmptyFlags {
    /// Those of this command line.
    pub fn of(command: &Command) -> Self {
        let mut flags = Self::default();
        flags.add(command, &[]);
        flags
    }

    fn add(&mut self, command: &Command, words: &[String]) {
        let names = command.get_arguments().filter(|flag| can_be_left_out(flag)).filter_map(Arg::get_long);
        self.0.insert(words.to_vec(), names.filter(|name| OF_SPIRE.contains(name)).map(str::to_owned).collect());
        for command in command.get_subcommands().filter(|command| command.get_name() != OURS) {
            self.add(command, &[words, &[command.get_name().to_owned()]].concat());
        }
    }

    /// The words of a command line with two dashes before each flag, without the flags whose value is empty. Of several the last counts.
    /// `valued`: the flags that have a value.
    pub fn left_out(&self, words: Vec<OsString>, valued: &BTreeSet<String>) -> Vec<OsString> {
        let names: Vec<_> = words.iter().skip(1).map_while(|word| word.to_str()).map(str::to_owned).collect();
        let Some(optional) = (0..=names.len()).rev().find_map(|length| self.0.get(&names[..length])) else {
            return words;
        };
        let parts = parts(words, valued);
        let last: BTreeMap<&String, bool> =
            parts.iter().filter_map(|part| Some((part.name.as_ref()?, part.is_empty))).collect();
        let is_given = |part: &&Part| {
            let name = part.name.as_ref().filter(|name| optional.contains(*name));
            !name.is_some_and(|name| part.is_empty || last.get(name) == Some(&true))
        };
        parts.iter().filter(is_given).flat_map(|part| part.words.iter().cloned()).collect()
    }
}

/// Neither needed nor with a default of its own.
fn can_be_left_out(flag: &Arg) -> bool {
    !flag.is_required_set() && flag.get_default_values().iter().all(|default| default.is_empty())
}

fn parts(words: Vec<OsString>, valued: &BTreeSet<String>) -> Vec<Part> {
    let (mut parts, mut words) = (Vec::new(), words.into_iter());
    while let Some(word) = words.next() {
        if word == "--" {
            let rest = [word].into_iter().chain(words);
            parts.extend(rest.map(|word| Part { name: None, is_empty: false, words: vec![word] }));
            return parts;
        }
        let flag = word.to_str().and_then(|word| word.strip_prefix("--"));
        let (name, value) = match flag.map(|flag| flag.split_once('=').ok_or(flag)) {
            Some(Ok((name, value))) => (Some(name.to_owned()), Some(value.is_empty())),
            Some(Err(name)) => (Some(name.to_owned()), None),
            None => (None, Some(false)),
        };
        let next = name.as_ref().filter(|name| value.is_none() && valued.contains(*name)).and_then(|_| words.next());
        let is_empty = value.or(next.as_ref().map(|next| next.is_empty())).unwrap_or_default();
        parts.push(Part { name, is_empty, words: [word].into_iter().chain(next).collect() });
    }
    parts
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::super::GoFlags;
    use super::*;

    #[test]
    fn a_flag_of_spires_with_an_empty_value_is_not_given_and_of_others_it_is_a_mistake() {
        let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Set);
        let command = Command::new("x")
            .subcommand(Command::new("entry").subcommand(Command::new("show").args([
                flag("parentID"),
                flag("hint").default_value(""),
                flag("path").default_value("here"),
                flag("pkcs11"),
                flag("entryID").action(ArgAction::Append),
            ])))
            .subcommand(Command::new("agent").arg(flag("spiffeID").required(true)))
            .subcommand(Command::new("deliver").arg(flag("spiffeID")));
        let flags = GoFlags::of(&command);
        for (given, wanted) in [
            ("x entry show -parentID _ -hint=", "x entry show"),
            ("x entry show -parentID= -hint _ y", "x entry show y"),
            ("x entry show -parentID a -parentID _", "x entry show"),
            ("x entry show -parentID _ -parentID a", "x entry show --parentID a"),
            ("x entry show -pkcs11 _ -path _", "x entry show --pkcs11 _ --path _"),
            ("x entry show -- --parentID=", "x entry show -- --parentID="),
            ("x agent -spiffeID _", "x agent --spiffeID _"),
            ("x deliver -spiffeID _", "x deliver --spiffeID _"),
            ("x nothing -spiffeID _", "x nothing --spiffeID _"),
        ] {
            let words =
                |text: &str| text.split(' ').map(|word| OsString::from(word.replace('_', ""))).collect::<Vec<_>>();
            assert_eq!(flags.rewritten(words(given)), words(wanted), "{given}");
        }
    }
}
