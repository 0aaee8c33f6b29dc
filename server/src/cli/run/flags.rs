//! The flags of `run` and `validate`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{ConfigErrors, Override};

const DEFAULT_CONFIG: &str = "conf/server/server.conf";

/// Every flag of SPIRE's; each stands for a key of the file, whose reader does it, warns of it or refuses it, naming the flag.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The configuration file
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Replace $NAME and ${NAME} in the file from the environment
    #[arg(long = "expandEnv")]
    expand_env: bool,
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
    /// Without meaning here; told in a warning
    #[arg(long = "logSourceLocation")]
    log_source_location: bool,
}

impl Flags {
    /// The configuration file.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// What `read` makes of the file and the flags, which win over it.
    pub(super) fn load<T>(
        &self,
        read: impl FnOnce(&Path, &[Override], bool) -> Result<T, ConfigErrors>,
    ) -> Result<T, ConfigErrors> {
        read(&self.config, &self.overrides(), self.expand_env)
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
            ("-logSourceLocation", "log_source_location", &switched_on(self.log_source_location)),
        ];
        let given =
            given.into_iter().filter_map(|(flag, key, value)| Some(Override { flag, key, value: value.clone()? }));
        given.collect()
    }
}

/// A switch's value as the file would have it.
fn switched_on(switch: bool) -> Option<String> {
    switch.then(|| "true".to_owned())
}
