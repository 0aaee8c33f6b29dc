//! `run` and `validate`.

mod flags;

use clap::Args;
use ironroot_shell::command_line::{CommandError, ConfigFile, Reply, begin_log, ended, keep_files_private};
use ironroot_shell::telemetry::otlp;
use tokio::runtime;

use crate::config::AgentConfig;
use crate::confinement::confine;
pub(super) use flags::Flags;

/// Runs the agent until SIGTERM or SIGINT.
#[derive(Debug, Args)]
#[command(
    after_help = "SIGHUP: reads the trust bundle file again, opens the log file again and asks the server at once. Flags win over the file. Exit code 1: something is wrong; of a configuration every mistake is printed.

Example: ironroot-agent run -config /etc/ironroot/agent.conf -logLevel DEBUG"
)]
pub(super) struct Run {
    #[command(flatten)]
    file: ConfigFile<Flags>,
}

impl Run {
    pub(super) fn execute(self) -> Result<Reply, CommandError> {
        let config = self.file.load(AgentConfig::load)?;
        keep_files_private();
        let confined = confine(&config).map_err(CommandError::run)?;
        let warnings: Vec<_> = config.warnings.iter().cloned().chain(confined.map(str::to_owned)).collect();
        let (layer, exporter) = config.traces.clone().map(|traces| otlp::spans(traces, "ironroot-agent")).unzip();
        let log = begin_log(&config.log, layer, &warnings)?;
        // One thread: an idle agent on a small device should cost one stack, and what blocks runs on threads of its own.
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(CommandError::run)?;
        let logs_to_file = config.log.file.is_some();
        let outcome = runtime.block_on(crate::run::run(config, log, exporter));
        // Threads that hang in somebody's file system or user database must not keep the process alive.
        runtime.shutdown_background();
        Ok(ended("agent", logs_to_file, outcome, |_| None))
    }
}

/// Checks a configuration file, and the files and directories it names, without starting anything.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints every mistake with its line, or that there is none. Exit code 1: there are mistakes. What the file \
        names is looked at with your rights: run it as the daemon's user, or with -syntaxOnly on another machine.

Example: ironroot-agent validate -config /etc/ironroot/agent.conf"
)]
pub(super) struct Validate {
    #[command(flatten)]
    file: ConfigFile<Flags>,
    /// Only read the file; what it names may be on another machine
    #[arg(long = "syntaxOnly")]
    syntax_only: bool,
}

impl Validate {
    pub(super) fn execute(self) -> Result<Reply, CommandError> {
        self.file.validate("agent", |path, overrides, expand| match self.syntax_only {
            true => AgentConfig::check_syntax(path, overrides, expand),
            false => AgentConfig::validate(path, overrides, expand).map(|config| config.warnings),
        })
    }
}
