//! What is wrong with a configuration, collected until everything has been looked at.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use super::Checked;
use super::listeners::Listeners;

/// Where a setting was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nowhere in particular: the file as a whole.
    File,
    /// A line of the file, from 1.
    Line(u32),
    /// A command-line flag.
    Flag(&'static str),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line or flag that has to be mended.
    pub origin: Origin,
    /// The full key, such as `server.agent_ttl`; empty when it is no key's fault.
    pub key: String,
    /// What is wrong and what to do.
    pub reason: String,
}

/// Everything that is wrong with a configuration, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    path: PathBuf,
    mistakes: Vec<Mistake>,
    warnings: Vec<String>,
}

impl ConfigErrors {
    /// Errors with one mistake.
    pub fn single(path: &Path, origin: Origin, key: &str, reason: impl Into<String>) -> Self {
        let mistake = Mistake { origin, key: key.to_owned(), reason: reason.into() };
        Self { path: path.to_owned(), mistakes: vec![mistake], warnings: Vec::new() }
    }

    /// The mistakes, in the order of the file's lines; never empty.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// What is taken, and is worth a word, a line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.mistakes.iter().map(|mistake| describe(&self.path, mistake)).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Whose machine the files are on that a configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    /// Another one: none of them is opened.
    Another,
    /// This one: what the daemon needs is read.
    Ours,
    /// This one, and all of them are looked at.
    LookedAt,
}

/// The collection that readers write into.
#[derive(Debug)]
pub(super) struct Mistakes {
    path: PathBuf,
    machine: Machine,
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<Mistake>>,
    pub(super) listeners: Listeners,
}

impl Mistakes {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            machine: Machine::Ours,
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
            listeners: Listeners::default(),
        }
    }

    /// How many there are so far.
    pub(super) fn count(&self) -> usize {
        self.mistakes.borrow().len()
    }

    /// The same, with what the configuration names on that machine.
    pub(super) fn on(self, machine: Machine) -> Self {
        Self { machine, ..self }
    }

    pub(super) fn is_looking(&self) -> bool {
        self.machine == Machine::LookedAt
    }

    pub(super) fn is_of_another_machine(&self) -> bool {
        self.machine == Machine::Another
    }

    pub(super) fn add(&self, origin: Origin, key: &str, reason: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake { origin, key: key.to_owned(), reason: reason.into() });
    }

    pub(super) fn warn(&self, origin: Origin, key: &str, reason: impl Into<String>) {
        self.warnings.borrow_mut().push(Mistake { origin, key: key.to_owned(), reason: reason.into() });
    }

    pub(super) fn into_result<T>(self, value: Option<T>) -> Result<Checked<T>, ConfigErrors> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| mistake.origin);
        let warnings = self.warnings.into_inner();
        let warnings = warnings.iter().map(|warning| describe(&self.path, warning)).collect();
        match value {
            Some(value) if mistakes.is_empty() => Ok(Checked { value, warnings }),
            _ if mistakes.is_empty() => {
                Err(ConfigErrors::single(&self.path, Origin::File, "", "the configuration is not complete"))
            }
            _ => Err(ConfigErrors { path: self.path, mistakes, warnings }),
        }
    }
}

fn describe(path: &Path, mistake: &Mistake) -> String {
    let place = match mistake.origin {
        Origin::File => path.display().to_string(),
        Origin::Line(line) => format!("{}:{line}", path.display()),
        Origin::Flag(flag) => format!("command line, {flag}"),
    };
    if mistake.key.is_empty() {
        format!("{place}: {}", mistake.reason)
    } else {
        format!("{place}: {}: {}", mistake.key, mistake.reason)
    }
}
