//! `ca`: the root that is kept apart, and what it signs.

mod ceremony;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Ca {
    /// Makes a root on a token of its own, and has it sign CAs; each step leaves a transcript for two people to sign.
    #[command(subcommand, after_help = ceremony::WALK)]
    Ceremony(ceremony::Ceremony),
}

impl Ca {
    pub(super) fn execute(self) -> ExitCode {
        let Self::Ceremony(ceremony) = self;
        ceremony.execute()
    }
}
