//! `run` and `validate`.

mod flags;

use clap::Args;
use ironroot_hsm::LAST_PATIENCE;
use ironroot_shell::command_line::{CommandError, ConfigFile, Reply, begin_log, ended, keep_files_private};
use ironroot_shell::telemetry::otlp;
use tokio::runtime;

use crate::config::ServerConfig;
use crate::confinement::confine;
pub(super) use flags::Flags;

/// The token refused the PIN, or one more wrong one would lock it: a supervisor must not start the server again. Source:
/// sysexits.h, EX_NOPERM.
const EXIT_PIN_REFUSED: u8 = 77;

/// Runs the server until SIGTERM or SIGINT.
#[derive(Debug, Args)]
#[command(
    after_help = "SIGHUP: opens the log file and reads the PIN again. Flags win over the file. Exit code 1: something is wrong; of a \
        configuration every mistake is printed. Exit code 77: the token refused the PIN; correct it before the server is started \
        again, because tokens count wrong PINs and lock themselves.

Example: ironroot-server run -config /etc/ironroot/server.conf -logLevel DEBUG"
)]
pub(super) struct Run {
    #[command(flatten)]
    file: ConfigFile<Flags>,
}

impl Run {
    pub(super) fn execute(self) -> Result<Reply, CommandError> {
        let config = self.file.load(ServerConfig::load)?;
        keep_files_private();
        confine().map_err(CommandError::run)?;
        let (layer, exporter) = config.traces.clone().map(|traces| otlp::spans(traces, "ironroot-server")).unzip();
        let log = begin_log(&config.log, layer, &config.warnings)?;
        let runtime = runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(CommandError::run)?;
        let logs_to_file = config.log.file.is_some();
        let outcome = runtime.block_on(crate::run::run(config, log, exporter));
        // Its tasks go, and the token with the last of them.
        runtime.shutdown_timeout(LAST_PATIENCE);
        Ok(ended("server", logs_to_file, outcome, |failure| failure.is_pin_refused().then_some(EXIT_PIN_REFUSED)))
    }
}

/// Checks a configuration file, and the files and directories it names, without starting anything.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints every mistake with its line, or that there is none. Exit code 1: there are mistakes. What the file \
        names is looked at with your rights: run it as the daemon's user, or with -syntaxOnly on another machine.

Example: ironroot-server validate -config /etc/ironroot/server.conf"
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
        let read = if self.syntax_only { ServerConfig::load } else { ServerConfig::validate };
        self.file
            .validate("server", |path, overrides, expand| read(path, overrides, expand).map(|config| config.warnings))
    }
}
