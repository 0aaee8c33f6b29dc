//! The command line: SPIRE's verbs and flags, plus `device`, which SPIRE lacks.
//!
//! `run` is the daemon; everything else asks it over the admin socket. One file per noun; each command turns its flags into
//! a request first, so that a wrong flag is told without a server.

mod agent;
mod bundle;
mod connection;
pub mod device;
mod entry;
mod healthcheck;
mod messages;
mod run;
mod token;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use ironroot_shell::command_line::{CommandError, EXIT_NO_COMMAND, Output, Reply, go_flags};

/// Issues certificates to attested devices and their workloads; the CA's keys stay in a PKCS#11 token.
#[derive(Debug, Parser)]
#[command(name = "ironroot-server", version, disable_help_subcommand = true, max_term_width = 120)]
#[command(after_help = "Flags take one dash or two. Example, from nothing to a device's first identity:
  ironroot-server run -config docs/server.conf &
  ironroot-server device import devices.csv
  ironroot-server entry create -node -spiffeID spiffe://example.org/berlin \\
      -selector tpm2:label:site:berlin
  ironroot-server entry create -parentID spiffe://example.org/berlin \\
      -spiffeID spiffe://example.org/web -selector unix:user:web
  ironroot-server bundle show > bootstrap.pem")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Validate(run::Validate),
    Healthcheck(healthcheck::Healthcheck),
    /// Says which workloads and groups of devices get which SPIFFE ID.
    #[command(subcommand, after_help = "Example: ironroot-server entry show -spiffeID spiffe://example.org/web")]
    Entry(entry::Entry),
    /// Lists attested agents, evicts and bans them.
    #[command(subcommand, after_help = "Example: ironroot-server agent list")]
    Agent(agent::Agent),
    /// Makes join tokens for devices without a TPM.
    #[command(subcommand, after_help = "Example: ironroot-server token generate -ttl 3600")]
    Token(token::Token),
    /// Shows the certificates that everything this server signs can be checked with.
    #[command(subcommand, after_help = "Example: ironroot-server bundle show > bootstrap.pem")]
    Bundle(bundle::Bundle),
    /// Enrols, lists and bans devices: the TPMs that may attest.
    #[command(subcommand, after_help = "Example: ironroot-server device list -state pending")]
    Device(device::Device),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
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

    /// Parses a command line with Go's flags: one dash or two, `-node` or `-node=true`.
    pub fn parse_go(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let switches = switches(&Self::command());
        Self::try_parse_from(go_flags(arguments, &switches))
    }

    fn execute(self) -> ExitCode {
        match self.command {
            Command::Run(run) => finish(run.execute()),
            Command::Validate(validate) => finish(validate.execute()),
            Command::Healthcheck(check) => check.execute(),
            Command::Entry(entry) => entry.execute(),
            Command::Agent(agent) => agent.execute(),
            Command::Token(token) => token.execute(),
            Command::Bundle(bundle) => bundle.execute(),
            Command::Device(device) => device.execute(),
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
