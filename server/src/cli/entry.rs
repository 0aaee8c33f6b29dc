//! `entry create`, `update`, `delete`, `show`, `count`, `apply`.

mod advice;
mod apply;
mod batches;
mod changes;
mod data_file;
mod delete;
mod query;
mod selection;
mod show_text;

use std::process::ExitCode;

use clap::Subcommand;

pub(super) use selection::selector_match;

#[derive(Debug, Subcommand)]
pub(super) enum Entry {
    Create(changes::Create),
    Update(changes::Update),
    Delete(delete::Delete),
    Show(query::Show),
    Count(query::Count),
    Apply(apply::Apply),
}

impl Entry {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Create(create) => create.execute(),
            Self::Update(update) => update.execute(),
            Self::Delete(delete) => delete.execute(),
            Self::Show(show) => show.execute(),
            Self::Count(count) => count.execute(),
            Self::Apply(apply) => apply.execute(),
        }
    }
}
