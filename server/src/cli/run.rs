//! `run` and `validate`.

use std::path::PathBuf;

use clap::Args;
use ironroot_api::command_line::{CommandError, Reply, describe};
use ironroot_api::logging;
use nix::sys::stat::{Mode, umask};
use tokio::runtime;
use tracing::{error, warn};

use crate::config::{ConfigErrors, Override, ServerConfig};
use crate::confinement::confine;

const DEFAULT_CONFIG: &str = "conf/server/server.conf";
/// The token refused the PIN, or one more wrong one would lock it: a supervisor must not start the server again. Source:
/// sysexits.h, EX_NOPERM.
const EXIT_PIN_REFUSED: u8 = 77;
/// Files we make are nobody else's business. Source: SPIRE, which sets the same.
const UMASK: u32 = 0o027;

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Replace $NAME and ${NAME} in the file from the environment
    #[arg(long = "expandEnv")]
    expand_env: bool,
}

impl ConfigFile {
    fn load(&self, overrides: &[Override]) -> Result<ServerConfig, CommandError> {
        Ok(ServerConfig::load(&self.config, overrides, self.expand_env)?)
    }
}

/// Runs the server until SIGTERM or SIGINT.
#[derive(Debug, Args)]
#[command(
    after_help = "SIGHUP: opens the log file and reads the PIN again. Flags win over the file. Exit code 1: something is wrong; of a
configuration every mistake is printed. 77: the token refused the PIN; do not start again before it is right, tokens count.

Example: ironroot-server run -config /etc/ironroot/server.conf -logLevel DEBUG"
)]
pub(super) struct Run {
    #[command(flatten)]
    file: ConfigFile,
    /// Address where agents connect
    #[arg(long = "bindAddress", value_name = "IP")]
    bind_address: Option<String>,
    /// Port where agents connect
    #[arg(long = "serverPort", value_name = "PORT")]
    server_port: Option<String>,
    /// Directory for the server's files
    #[arg(long = "dataDir", value_name = "PATH")]
    data_dir: Option<String>,
    /// The admin socket
    #[arg(long = "socketPath", value_name = "PATH")]
    socket_path: Option<String>,
    /// The trust domain
    #[arg(long = "trustDomain", value_name = "NAME")]
    trust_domain: Option<String>,
    /// File to log to
    #[arg(long = "logFile", value_name = "PATH")]
    log_file: Option<String>,
    /// text or json
    #[arg(long = "logFormat", value_name = "FORMAT")]
    log_format: Option<String>,
    /// DEBUG, INFO, WARN or ERROR
    #[arg(long = "logLevel", value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Run {
    pub(super) fn execute(self) -> Result<Reply, CommandError> {
        let config = self.file.load(&self.overrides())?;
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

    fn overrides(&self) -> Vec<Override> {
        let given = [
            ("-bindAddress", "bind_address", &self.bind_address),
            ("-serverPort", "bind_port", &self.server_port),
            ("-dataDir", "data_dir", &self.data_dir),
            ("-socketPath", "socket_path", &self.socket_path),
            ("-trustDomain", "trust_domain", &self.trust_domain),
            ("-logFile", "log_file", &self.log_file),
            ("-logFormat", "log_format", &self.log_format),
            ("-logLevel", "log_level", &self.log_level),
        ];
        let given =
            given.into_iter().filter_map(|(flag, key, value)| Some(Override { flag, key, value: value.clone()? }));
        given.collect()
    }
}

/// Checks a configuration file, and the files and directories it names, without starting anything.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints every mistake with its line, or that there is none. Exit code 1: there are mistakes. What the file
names is looked at with your rights: run it as the daemon's user, or with -syntaxOnly on another machine.

Example: ironroot-server validate -config /etc/ironroot/server.conf"
)]
pub(super) struct Validate {
    #[command(flatten)]
    file: ConfigFile,
    /// Only read the file; what it names may be on another machine
    #[arg(long = "syntaxOnly")]
    syntax_only: bool,
}

impl Validate {
    pub(super) fn execute(self) -> Result<Reply, CommandError> {
        let file = &self.file;
        let read = if self.syntax_only { ServerConfig::load } else { ServerConfig::validate };
        let config = read(&file.config, &[], file.expand_env).map_err(invalid)?;
        let complaints = config.warnings.iter().map(|warning| format!("Warning: {warning}\n")).collect();
        let text = format!("{}: SPIRE server configuration file is valid.\n", self.file.config.display());
        Ok(Reply { text, complaints, ..Reply::default() })
    }
}

/// In SPIRE's words, which scripts look for.
fn invalid(mistakes: ConfigErrors) -> CommandError {
    CommandError::Malformed(format!("SPIRE server configuration file is invalid:\n{mistakes}"))
}
