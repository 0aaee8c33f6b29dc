//! The command line: SPIRE's verbs and flags.
//!
//! `run` is the daemon; `tpm` asks the chip, without a server; `status`, `debug` and `logger` ask the admin socket; everything else is a
//! client of the Workload API, as any workload is.

mod admin;
mod api;
mod connection;
mod debug;
mod deliver;
mod doctor;
mod healthcheck;
mod logger;
mod run;
mod status;
mod tpm;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use ironroot_hsm::{LAST_PATIENCE, session_threads_ended};
use ironroot_shell::command_line::{CommandError, Output, Program, Reply, with_whole_examples};

/// Proves this device's TPM to the server and serves SPIFFE identities to local processes, online and offline.
#[derive(Debug, Parser)]
#[command(name = "ironroot-agent", version, disable_help_subcommand = true, max_term_width = 120)]
#[command(after_help = "Flags take one dash or two. Example:
  ironroot-agent tpm show
  ironroot-agent validate -config /etc/ironroot/agent.conf
  ironroot-agent run -config /etc/ironroot/agent.conf &
  ironroot-agent api fetch x509")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Validate(run::Validate),
    Doctor(doctor::Doctor),
    Healthcheck(healthcheck::Healthcheck),
    /// Asks the Workload API as a workload would.
    #[command(subcommand, after_help = "Example: ironroot-agent api fetch x509")]
    Api(api::Api),
    Status(status::Status),
    /// Changes how much the running agent logs.
    #[command(subcommand, after_help = "Example: ironroot-agent logger set -level debug")]
    Logger(logger::Logger),
    /// Shows what the running agent is at this moment.
    #[command(subcommand, after_help = "Example: ironroot-agent debug getinfo")]
    Debug(debug::Debug),
    Deliver(deliver::Deliver),
    /// Shows this device's TPM, for whoever enrols it, or makes a key in it that a CA is to certify.
    #[command(subcommand, after_help = "Example: ironroot-agent tpm show")]
    Tpm(tpm::TpmCommand),
}

/// The TSS library prints a line on standard error for every command that a chip refuses, into logs of any form; our errors say
/// it in their own words. It reads its wish from the environment alone, and what the operator has set there wins.
const TSS_LIBRARY_SILENCE: &[u8] = b"TSS2_LOG=all+none\n";

/// Runs the command that the process was started with. Call it before there is a second thread.
pub fn main() -> ExitCode {
    if let Err(error) = dotenvy::from_read(TSS_LIBRARY_SILENCE) {
        eprintln!("TSS2_LOG not set, so the TPM library's own lines will be seen: {error}");
    }
    let code = <Cli as Program>::main();
    // Its library takes itself down when the process ends, and must not be in a call then.
    if !session_threads_ended(LAST_PATIENCE) {
        tracing::warn!("the token is still busy with a call; the process ends all the same");
    }
    code
}

impl Cli {
    /// The command line's description, for tests and documentation.
    pub fn description() -> clap::Command {
        with_whole_examples(Self::command())
    }
}

impl Program for Cli {
    fn execute(self) -> ExitCode {
        match self.command {
            Command::Run(run) => finish(run.execute()),
            Command::Validate(validate) => apart(|| finish(validate.execute())),
            Command::Doctor(doctor) => apart(|| doctor.execute()),
            Command::Healthcheck(check) => apart(|| check.execute()),
            Command::Api(api) => apart(|| api.execute()),
            Command::Status(status) => apart(|| status.execute()),
            Command::Logger(logger) => apart(|| logger.execute()),
            Command::Debug(debug) => apart(|| debug.execute()),
            Command::Deliver(deliver) => apart(|| deliver.execute()),
            Command::Tpm(tpm) => apart(|| tpm.execute()),
        }
    }
}

/// What a person asks for once has code and a stack of its own: the daemon, which stays, does not carry them along.
#[inline(never)]
fn apart(command: impl FnOnce() -> ExitCode) -> ExitCode {
    command()
}

fn finish(result: Result<Reply, CommandError>) -> ExitCode {
    Reply::print(&result, Output::Pretty)
}
