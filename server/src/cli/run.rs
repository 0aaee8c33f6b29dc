//! `run` and `validate`.

mod flags;

use clap::Args;
use ironroot_shell::command_line::{CommandError, Reply, describe};
use ironroot_shell::logging;
use nix::sys::stat::{Mode, umask};
use tokio::runtime;
use tracing::{error, warn};

use crate::config::{ConfigErrors, ServerConfig};
use crate::confinement::confine;
use flags::Flags;

/// The token refused the PIN, or one more wrong one would lock it: a supervisor must not start the server again. Source:
/// sysexits.h, EX_NOPERM.
const EXIT_PIN_REFUSED: u8 = 77;
/// Files we make are nobody else's business. Source: SPIRE, which sets the same.
const UMASK: u32 = 0o027;

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
    flags: Flags,
}

impl Run {
    pub(super) fn execute(self) -> Result<Reply, CommandError> {
        let config = self.flags.load(ServerConfig::load)?;
        umask(Mode::from_bits_truncate(UMASK));
        confine().map_err(|error| CommandError::Run(error.into()))?;
        let log = logging::init(&config.log).map_err(|error| CommandError::Run(error.into()))?;
        for warning in &config.warnings {
            warn!("{warning}");
        }
        let runtime = runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| CommandError::Run(error.into()))?;
        let said_on_stderr = config.log.file.is_none();
        match runtime.block_on(crate::run::run(config, log)) {
            Ok(()) => Ok(Reply::default()),
            Err(failure) => {
                error!(error = describe(&failure), "server stopped");
                let failed_with = failure.is_pin_refused().then_some(EXIT_PIN_REFUSED);
                // Said once where the log is standard error, and there too where it is a file nobody looks into yet.
                let complaints =
                    if said_on_stderr { String::new() } else { format!("Error: {}\n", describe(&failure)) };
                Ok(Reply { failed: true, failed_with, complaints, ..Reply::default() })
            }
        }
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
    flags: Flags,
    /// Only read the file; what it names may be on another machine
    #[arg(long = "syntaxOnly")]
    syntax_only: bool,
}

impl Validate {
    pub(super) fn execute(self) -> Result<Reply, CommandError> {
        let read = if self.syntax_only { ServerConfig::load } else { ServerConfig::validate };
        let config = self.flags.load(read).map_err(invalid)?;
        let complaints = config.warnings.iter().map(|warning| format!("Warning: {warning}\n")).collect();
        let text = format!("{}: SPIRE server configuration file is valid.\n", self.flags.config().display());
        Ok(Reply { text, complaints, ..Reply::default() })
    }
}

/// In SPIRE's words, which scripts look for.
fn invalid(mistakes: ConfigErrors) -> CommandError {
    CommandError::Malformed(format!("SPIRE server configuration file is invalid:\n{mistakes}"))
}
