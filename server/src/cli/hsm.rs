//! `hsm`: the PKCS#11 token, without a running server.

mod needs;
mod probe;
mod report;
mod stanza;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Hsm {
    Probe(probe::Probe),
}

impl Hsm {
    pub(super) fn execute(self) -> ExitCode {
        let Self::Probe(probe) = self;
        probe.execute()
    }
}
