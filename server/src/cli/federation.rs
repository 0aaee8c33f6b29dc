//! `federation`: trust domains that this server federates with.

mod changes;
mod data;
mod query;
mod refresh;
mod text;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Federation {
    Create(changes::Create),
    Update(changes::Update),
    Delete(changes::Delete),
    List(query::List),
    Show(query::Show),
    Refresh(refresh::Refresh),
}

impl Federation {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Create(create) => create.execute(),
            Self::Update(update) => update.execute(),
            Self::Delete(delete) => delete.execute(),
            Self::List(list) => list.execute(),
            Self::Show(show) => show.execute(),
            Self::Refresh(refresh) => refresh.execute(),
        }
    }
}
