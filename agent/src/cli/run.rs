//! `run` and `validate`.

mod flags;

use clap::Args;
use ironroot_shell::command_line::{CommandError, Reply, describe};
use ironroot_shell::logging;
use nix::sys::stat::{Mode, umask};
use tokio::runtime;
use tracing::{error, warn};

use crate::config::{AgentConfig, ConfigErrors};
use crate::confinement::confine;
use flags::Flags;

/// Files we make are nobody else's business. Source: SPIRE, which sets the same.
const UMASK: u32 = 0o027;

/// Runs the agent until SIGTERM or SIGINT.
#[derive(Debug, Args)]
#[command(
    after_help = "SIGHUP: reads the trust bundle file again, opens the log file again and asks the server at once. Flags win over the file. Exit code 1: something is wrong; of a configuration every mistake is printed.

Example: ironroot-agent run -config /etc/ironroot/agent.conf -logLevel DEBUG"
)]
pub(super) struct Run {
    #[command(flatten)]
    flags: Flags,
}

impl Run {
    pub(super) fn execute(self) -> Result<Reply, CommandError> {
        let config = self.flags.load(AgentConfig::load)?;
        umask(Mode::from_bits_truncate(UMASK));
        let confined = confine(&config).map_err(|error| CommandError::Run(error.into()))?;
        let log = logging::init(&config.log).map_err(|error| CommandError::Run(error.into()))?;
        for warning in config.warnings.iter().map(String::as_str).chain(confined) {
            warn!("{warning}");
        }
        // One thread: an idle agent on a small device should cost one stack, and what blocks runs on threads of its own.
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| CommandError::Run(error.into()))?;
        let said_on_stderr = config.log.file.is_none();
        let ended = runtime.block_on(crate::run::run(config, log));
        // Threads that hang in somebody's file system or user database must not keep the process alive.
        runtime.shutdown_background();
        match ended {
            Ok(()) => Ok(Reply::default()),
            Err(failure) => {
                error!(error = describe(&failure), "agent stopped");
                // Said once where the log is standard error, and there too where it is a file nobody looks into yet.
                if said_on_stderr {
                    Ok(Reply { failed: true, ..Reply::default() })
                } else {
                    Err(CommandError::Run(failure.into()))
                }
            }
        }
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
    flags: Flags,
    /// Only read the file; what it names may be on another machine
    #[arg(long = "syntaxOnly")]
    syntax_only: bool,
}

impl Validate {
    pub(super) fn execute(self) -> Result<Reply, CommandError> {
        let read = if self.syntax_only { AgentConfig::load } else { AgentConfig::validate };
        let config = self.flags.load(read).map_err(invalid)?;
        let complaints = config.warnings.iter().map(|warning| format!("Warning: {warning}\n")).collect();
        let text = format!("{}: SPIRE agent configuration file is valid.\n", self.flags.config().display());
        Ok(Reply { text, complaints, ..Reply::default() })
    }
}

/// In SPIRE's words, which scripts look for.
fn invalid(mistakes: ConfigErrors) -> CommandError {
    CommandError::Malformed(format!("SPIRE agent configuration file is invalid:\n{mistakes}"))
}
