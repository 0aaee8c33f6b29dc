//! Configuration files: HCL (version 1, as SPIRE's files are) in SPIRE's keys, every mistake with its line.
//!
//! ```text
//!  text ─► environment (only if asked) ─► hcl ─► Body ─► Section ─► the daemon's own config struct
//!                                  command line flags ─┘      └─► Mistakes, all of them at once
//! ```
//! A key that nobody read is a mistake too, so a misspelt key can never be ignored.

mod duration;
mod environment;
mod hcl;
mod host;
mod listeners;
mod mistakes;
mod nearest;
pub mod places;
mod section;
mod shared;

use std::path::{Path, PathBuf};

use ironroot_text::HumanFile;

pub use duration::{DurationError, format_duration, parse_duration, parse_timeout};
pub(crate) use host::has_form as is_host;
pub use mistakes::{ConfigErrors, Mistake, Origin};
pub use section::{Plugin, Section};
pub use shared::{HealthChecks, read_health_checks, read_logging};

use hcl::{Body, Item, Value};
use mistakes::{Machine, Mistakes};

/// Longest configuration file accepted, bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// A setting given on the command line; it wins over the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The flag as the operator typed it, for messages: `-trustDomain`.
    pub flag: &'static str,
    /// The key it stands for, inside the daemon's block: `trust_domain`.
    pub key: &'static str,
    /// The value as text; it passes the same checks as the file's.
    pub value: String,
}

/// A value that passed every check, and what the operator should still hear about it.
#[derive(Debug)]
pub struct Checked<T> {
    /// What the daemon works with; every key was read and is legal.
    pub value: T,
    /// Warnings, one sentence each, with file and line.
    pub warnings: Vec<String>,
}

/// A configuration file's content, parsed but not yet understood.
#[derive(Debug)]
pub struct Settings {
    path: PathBuf,
    body: Body,
    machine: Machine,
}

impl Settings {
    /// Reads the file at `path`. With `expand_env`, `$NAME` and `${NAME}` are replaced from the environment before
    /// parsing; without it they are literal text.
    pub fn load(path: &Path, expand_env: bool) -> Result<Self, ConfigErrors> {
        let file = HumanFile::argument(path, MAX_FILE_BYTES).map_err(|error| {
            let reason = format!("cannot read the file: {}; name the file with -config", error.problem);
            ConfigErrors::single(path, Origin::File, "", reason)
        })?;
        if expand_env {
            Self::parse_expanded(path, file.text(), |name| std::env::var(name).ok())
        } else {
            Self::parse(path, file.text())
        }
    }

    /// Parses `text`; `path` is only for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        let body = hcl::parse(text)
            .map_err(|error| ConfigErrors::single(path, Origin::Line(error.line), "", error.to_string()))?;
        Ok(Self { path: path.to_owned(), body, machine: Machine::Ours })
    }

    /// Parses `text` after replacing `$NAME` and `${NAME}` with what `lookup` says.
    pub fn parse_expanded(
        path: &Path,
        text: &str,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let mistakes = Mistakes::new(path);
        let expanded = environment::expand(text, lookup, |line, reason| mistakes.add(Origin::Line(line), "", reason));
        mistakes.into_result(Some(()))?;
        Self::parse(path, &expanded)
    }

    /// Files, directories and devices that the file names are looked at too, and what is wrong with them is a mistake: what
    /// `validate` does, on the machine that the file is for.
    pub fn looking(self) -> Self {
        Self { machine: Machine::LookedAt, ..self }
    }

    /// What the file names may be on another machine: nothing of it is read.
    pub fn of_another_machine(self) -> Self {
        Self { machine: Machine::Another, ..self }
    }

    /// Puts command-line values into the block named `block`, in place of the file's.
    pub fn override_with(&mut self, block: &str, overrides: &[Override]) {
        if overrides.is_empty() {
            return;
        }
        let body = self.body.block_mut(block);
        for given in overrides {
            body.items.retain(|item| item.key != given.key);
            body.items.push(Item {
                key: given.key.to_owned(),
                labels: Vec::new(),
                origin: Origin::Flag(given.flag),
                value: Value::String(given.value.clone()),
            });
        }
    }

    /// Runs `read` over the whole file and gives its value if neither it nor the search for unread keys found a
    /// mistake; otherwise every mistake.
    ///
    /// `read` gives `None` only after it has reported why.
    pub fn check<T>(&self, read: impl FnOnce(&Section<'_>) -> Option<T>) -> Result<Checked<T>, ConfigErrors> {
        let mistakes = Mistakes::new(&self.path).on(self.machine);
        let root = Section::root(&self.body, &mistakes);
        let value = read(&root);
        root.finish();
        drop(root);
        mistakes.into_result(value)
    }
}

#[cfg(test)]
mod tests;
