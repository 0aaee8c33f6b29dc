//! The command line: SPIRE's verbs and flags, plus `device` and `policy`, which SPIRE lacks.
//!
//! `run` is the daemon; everything else asks it over the admin socket. One file per noun; each command turns its flags into
//! a request first, so that a wrong flag is told without a server.

mod agent;
mod backup;
mod bundle;
mod ca;
mod connection;
mod console;
mod debug;
pub mod device;
mod doctor;
mod entry;
mod federation;
mod healthcheck;
mod hsm;
mod import;
mod jwt;
mod local_authority;
mod log;
mod logger;
mod messages;
mod policy;
mod restore;
mod run;
mod status;
mod token;
mod token_flags;
mod wit;
mod x509;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use ironroot_hsm::{LAST_PATIENCE, session_threads_ended};
use ironroot_shell::command_line::{CommandError, Output, Program, Reply, with_whole_examples};

/// Issues certificates to attested devices and their workloads; the CA's keys stay in a PKCS#11 token.
#[derive(Debug, Parser)]
#[command(name = "ironroot-server", version, disable_help_subcommand = true, max_term_width = 120)]
#[command(after_help = "Flags take one dash or two. Example, from nothing to a device's first identity:
  ironroot-server run -config /etc/ironroot/server.conf &
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
    Doctor(doctor::Doctor),
    Status(status::Status),
    Console(console::Console),
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
    /// Shows what everything this server signs can be checked with; keeps the same of other trust domains.
    #[command(subcommand, after_help = "Example: ironroot-server bundle show > bootstrap.pem")]
    Bundle(bundle::Bundle),
    /// Says which other trust domains' bundles are fetched, and from where.
    #[command(subcommand, after_help = "Example: ironroot-server federation list")]
    Federation(federation::Federation),
    /// Signs JWT-SVIDs on an administrator's word.
    #[command(
        subcommand,
        after_help = "Example: ironroot-server jwt mint -spiffeID spiffe://example.org/job -audience https://vault.example.org"
    )]
    Jwt(jwt::Jwt),
    /// Signs WIT-SVIDs on an administrator's word.
    #[command(subcommand, after_help = "Example: ironroot-server wit mint -spiffeID spiffe://example.org/job -write .")]
    Wit(wit::Wit),
    /// Mints X.509-SVIDs for which there is no entry.
    #[command(
        subcommand,
        after_help = "Example: ironroot-server x509 mint -spiffeID spiffe://example.org/web -write ."
    )]
    X509(x509::X509),
    /// Replaces the keys that this server signs with, by hand: prepare, activate, taint, revoke.
    #[command(subcommand, name = "localauthority", after_help = "Example: ironroot-server localauthority x509 show")]
    LocalAuthority(local_authority::LocalAuthority),
    /// Replaces the root above the CAs, by hand: prepare, activate, taint, revoke.
    #[command(
        subcommand,
        name = "upstreamauthority",
        after_help = "Example: ironroot-server upstreamauthority taint -subjectKeyID 1dc2daa3…"
    )]
    UpstreamAuthority(local_authority::UpstreamAuthority),
    /// Changes how much the running server logs.
    #[command(subcommand, after_help = "Example: ironroot-server logger set -level debug")]
    Logger(logger::Logger),
    /// Shows what the running server is at this moment.
    #[command(subcommand, after_help = "Example: ironroot-server debug getinfo")]
    Debug(debug::Debug),
    /// The root that is kept apart from the server.
    #[command(subcommand, after_help = "Example: ironroot-server ca ceremony --help")]
    Ca(ca::Ca),
    /// Asks a PKCS#11 token what it can do; no server needs to run.
    #[command(subcommand, after_help = "Example: ironroot-server hsm probe -module /usr/lib/softhsm/libsofthsm2.so")]
    Hsm(hsm::Hsm),
    /// Takes over what another server has, before the first start.
    #[command(
        subcommand,
        after_help = "Example: ironroot-server import spire -datastore datastore.sqlite3 -keys keys.json -dryRun"
    )]
    Import(import::Import),
    Backup(backup::Backup),
    /// Reads the log of everything that was issued and changed.
    #[command(subcommand, after_help = "Example: ironroot-server log verify")]
    Log(log::Log),
    Restore(Box<restore::Restore>),
    /// Enrols, lists and bans devices: the TPMs that may attest.
    #[command(subcommand, after_help = "Example: ironroot-server device list -state pending")]
    Device(device::Device),
    /// Says what devices may have booted.
    #[command(subcommand, after_help = "Example: ironroot-server policy learn -device SN-0001 -name gateway")]
    Policy(policy::Policy),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let code = <Cli as Program>::main();
    // Whatever command had a token open: its library takes itself down when the process ends, and must not be in a call then.
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
            Command::Validate(validate) => finish(validate.execute()),
            Command::Doctor(doctor) => doctor.execute(),
            Command::Status(status) => status.execute(),
            Command::Console(console) => console.execute(),
            Command::Healthcheck(check) => check.execute(),
            Command::Entry(entry) => entry.execute(),
            Command::Agent(agent) => agent.execute(),
            Command::Token(token) => token.execute(),
            Command::Bundle(bundle) => bundle.execute(),
            Command::Federation(federation) => federation.execute(),
            Command::Jwt(jwt) => jwt.execute(),
            Command::Wit(wit) => wit.execute(),
            Command::X509(x509) => x509.execute(),
            Command::LocalAuthority(authority) => authority.execute(),
            Command::UpstreamAuthority(authority) => authority.execute(),
            Command::Logger(logger) => logger.execute(),
            Command::Debug(debug) => debug.execute(),
            Command::Device(device) => device.execute(),
            Command::Policy(policy) => policy.execute(),
            Command::Import(import) => import.execute(),
            Command::Backup(backup) => backup.execute(),
            Command::Log(log) => log.execute(),
            Command::Restore(restore) => restore.execute(),
            Command::Ca(ca) => ca.execute(),
            Command::Hsm(hsm) => hsm.execute(),
        }
    }
}

fn finish(result: Result<Reply, CommandError>) -> ExitCode {
    Reply::print(&result, Output::Pretty)
}
