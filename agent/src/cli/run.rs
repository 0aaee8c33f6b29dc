//! `run` and `validate`.

use std::path::PathBuf;

use clap::Args;
use ironroot_api::command_line::{CommandError, Reply, describe};
use ironroot_api::logging;
use nix::sys::stat::{Mode, umask};
use tokio::runtime;
use tracing::{error, warn};

use crate::config::{AgentConfig, ConfigErrors, Override};
use crate::confinement::confine;

const DEFAULT_CONFIG: &str = "conf/agent/agent.conf";
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
    fn load(&self, overrides: &[Override]) -> Result<AgentConfig, CommandError> {
        Ok(AgentConfig::load(&self.config, overrides, self.expand_env)?)
    }
}

/// Runs the agent until SIGTERM or SIGINT.
#[derive(Debug, Args)]
#[command(
    after_help = "SIGHUP: reads the trust bundle file again, opens the log file again and asks the server at once. Flags win over the file. Exit code 1: something is wrong; of a configuration every mistake is printed.

Example: ironroot-agent run -config /etc/ironroot/agent.conf -logLevel DEBUG"
)]
pub(super) struct Run {
    #[command(flatten)]
    file: ConfigFile,
    /// The server's host name or address
    #[arg(long = "serverAddress", value_name = "HOST")]
    server_address: Option<String>,
    /// The server's port
    #[arg(long = "serverPort", value_name = "PORT")]
    server_port: Option<String>,
    /// The trust domain
    #[arg(long = "trustDomain", value_name = "NAME")]
    trust_domain: Option<String>,
    /// File with the certificates that the server is recognised by
    #[arg(long = "trustBundle", value_name = "PATH")]
    trust_bundle: Option<String>,
    /// Form of that file: pem or spiffe
    #[arg(long = "trustBundleFormat", value_name = "FORMAT")]
    trust_bundle_format: Option<String>,
    /// Believe the first server that answers; for trials only
    #[arg(long = "insecureBootstrap")]
    insecure_bootstrap: bool,
    /// A join token; other users can see command lines, so a file is better
    #[arg(long = "joinToken", value_name = "TOKEN")]
    join_token: Option<String>,
    /// File with a join token
    #[arg(long = "joinTokenFile", value_name = "PATH")]
    join_token_file: Option<String>,
    /// Directory for the agent's files
    #[arg(long = "dataDir", value_name = "PATH")]
    data_dir: Option<String>,
    /// The Workload API's socket
    #[arg(long = "socketPath", value_name = "PATH")]
    socket_path: Option<String>,
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

    fn overrides(&self) -> Vec<Override> {
        let insecure = self.insecure_bootstrap.then(|| "true".to_owned());
        let given = [
            ("-serverAddress", "server_address", &self.server_address),
            ("-serverPort", "server_port", &self.server_port),
            ("-trustDomain", "trust_domain", &self.trust_domain),
            ("-trustBundle", "trust_bundle_path", &self.trust_bundle),
            ("-trustBundleFormat", "trust_bundle_format", &self.trust_bundle_format),
            ("-insecureBootstrap", "insecure_bootstrap", &insecure),
            ("-joinToken", "join_token", &self.join_token),
            ("-joinTokenFile", "join_token_file", &self.join_token_file),
            ("-dataDir", "data_dir", &self.data_dir),
            ("-socketPath", "socket_path", &self.socket_path),
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

Example: ironroot-agent validate -config /etc/ironroot/agent.conf"
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
        let read = if self.syntax_only { AgentConfig::load } else { AgentConfig::validate };
        let config = read(&file.config, &[], file.expand_env).map_err(invalid)?;
        let complaints = config.warnings.iter().map(|warning| format!("Warning: {warning}\n")).collect();
        let text = format!("{}: SPIRE agent configuration file is valid.\n", self.file.config.display());
        Ok(Reply { text, complaints, ..Reply::default() })
    }
}

/// In SPIRE's words, which scripts look for.
fn invalid(mistakes: ConfigErrors) -> CommandError {
    CommandError::Malformed(format!("SPIRE agent configuration file is invalid:\n{mistakes}"))
}
