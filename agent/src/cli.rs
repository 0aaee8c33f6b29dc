//! The command line: SPIRE's verbs and flags.
//!
//! `run` is the daemon; `tpm` asks the chip, without a server; everything else is a client of the Workload API, as any workload
//! is.

mod api;
mod connection;
mod healthcheck;
mod run;
mod tpm;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use ironroot_shell::command_line::{CommandError, EXIT_NO_COMMAND, Output, Reply, go_flags};

/// Proves this device's TPM to the server and serves SPIFFE identities to local processes, online and offline.
#[derive(Debug, Parser)]
#[command(name = "ironroot-agent", version, disable_help_subcommand = true, max_term_width = 120)]
#[command(after_help = "Flags take one dash or two. Example:
  ironroot-agent tpm show
  ironroot-agent validate -config docs/agent.conf
  ironroot-agent run -config docs/agent.conf &
  ironroot-agent api fetch x509 -write /tmp")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Validate(run::Validate),
    Healthcheck(healthcheck::Healthcheck),
    /// Asks the Workload API as a workload would.
    #[command(subcommand, after_help = "Example: ironroot-agent api fetch x509")]
    Api(api::Api),
    /// Shows this device's TPM, for whoever enrols it.
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
    match Cli::parse_go(std::env::args_os()) {
        Ok(cli) => cli.execute(),
        Err(error) => told(&error, is_command(std::env::args_os().nth(1))),
    }
}

/// Whether the first word of the command line is a command, or a flag such as -help.
fn is_command(first: Option<OsString>) -> bool {
    let Some(first) = first else { return false };
    let is_it = |command: &clap::Command| first == command.get_name();
    first.as_encoded_bytes().starts_with(b"-") || Cli::command().get_subcommands().any(is_it)
}

/// Prints help, the version, or what is wrong with the command line. The version goes to standard error, as SPIRE's does.
fn told(error: &clap::Error, is_command: bool) -> ExitCode {
    if error.kind() == ErrorKind::DisplayVersion {
        eprintln!("{}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let _ = error.print();
    match (error.use_stderr(), is_command) {
        (false, _) => ExitCode::SUCCESS,
        (true, true) => ExitCode::FAILURE,
        (true, false) => ExitCode::from(EXIT_NO_COMMAND),
    }
}

impl Cli {
    /// The command line's description, for tests and documentation.
    pub fn description() -> clap::Command {
        Self::command()
    }

    /// Parses a command line with Go's flags: one dash or two, `-silent` or `-silent=true`.
    pub fn parse_go(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let switches = switches(&Self::command());
        Self::try_parse_from(go_flags(arguments, &switches))
    }

    fn execute(self) -> ExitCode {
        match self.command {
            Command::Run(run) => finish(run.execute()),
            Command::Validate(validate) => finish(validate.execute()),
            Command::Healthcheck(check) => check.execute(),
            Command::Api(api) => api.execute(),
            Command::Tpm(tpm) => tpm.execute(),
        }
    }
}

/// The long flags of `command` and its subcommands that take no value.
fn switches(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter(|argument| matches!(argument.get_action(), ArgAction::SetTrue));
    let own = own.filter_map(|argument| argument.get_long().map(str::to_owned));
    own.chain(command.get_subcommands().flat_map(switches)).collect()
}

fn finish(result: Result<Reply, CommandError>) -> ExitCode {
    Reply::print(&result, Output::Pretty)
}
