//! The flags of `run` and `validate`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{ConfigErrors, Override};

const DEFAULT_CONFIG: &str = "conf/agent/agent.conf";

/// Every flag of SPIRE's; each stands for a key of the file, whose reader does it, warns of it or refuses it, naming the flag.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The configuration file
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Replace $NAME and ${NAME} in the file from the environment
    #[arg(long = "expandEnv")]
    expand_env: bool,
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
    /// Without meaning here; told in a warning
    #[arg(long = "logSourceLocation")]
    log_source_location: bool,
    /// Not there yet: callers without an entry get no bundle
    #[arg(long = "allowUnauthenticatedVerifiers")]
    allow_unauthenticated_verifiers: bool,
    /// Nothing to do: Envoy's SDS is not served
    #[arg(long = "disableSDSAPI")]
    disable_sds_api: bool,
    /// Not there yet: the Workload API is all that is served
    #[arg(long = "disableWorkloadAPI")]
    disable_workload_api: bool,
    /// Nothing to do: there is no rebootstrapping yet
    #[arg(long = "rebootstrapDelay", value_name = "DURATION")]
    rebootstrap_delay: Option<String>,
    /// never; auto and always are not there yet
    #[arg(long = "rebootstrapMode", value_name = "MODE")]
    rebootstrap_mode: Option<String>,
    /// Not there yet: a bundle comes from a file
    #[arg(long = "trustBundleUrl", value_name = "URL")]
    trust_bundle_url: Option<String>,
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
            ("-serverAddress", "server_address", &self.server_address),
            ("-serverPort", "server_port", &self.server_port),
            ("-trustDomain", "trust_domain", &self.trust_domain),
            ("-trustBundle", "trust_bundle_path", &self.trust_bundle),
            ("-trustBundleFormat", "trust_bundle_format", &self.trust_bundle_format),
            ("-insecureBootstrap", "insecure_bootstrap", &switched_on(self.insecure_bootstrap)),
            ("-joinToken", "join_token", &self.join_token),
            ("-joinTokenFile", "join_token_file", &self.join_token_file),
            ("-dataDir", "data_dir", &self.data_dir),
            ("-socketPath", "socket_path", &self.socket_path),
            ("-logFile", "log_file", &self.log_file),
            ("-logFormat", "log_format", &self.log_format),
            ("-logLevel", "log_level", &self.log_level),
            ("-logSourceLocation", "log_source_location", &switched_on(self.log_source_location)),
            (
                "-allowUnauthenticatedVerifiers",
                "allow_unauthenticated_verifiers",
                &switched_on(self.allow_unauthenticated_verifiers),
            ),
            ("-disableSDSAPI", "disable_sds_api", &switched_on(self.disable_sds_api)),
            ("-disableWorkloadAPI", "disable_workload_api", &switched_on(self.disable_workload_api)),
            ("-rebootstrapDelay", "rebootstrap_delay", &self.rebootstrap_delay),
            ("-rebootstrapMode", "rebootstrap_mode", &self.rebootstrap_mode),
            ("-trustBundleUrl", "trust_bundle_url", &self.trust_bundle_url),
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
