//! The flags of `run` and `validate`.

use clap::Args;
use ironroot_shell::command_line::{ConfigFlags, Given, LogFlags, switched_on};

/// Every flag of SPIRE's; each stands for a key of the file, whose reader does it, warns of it or refuses it, naming the flag.
#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// The server's host name or address, without the port
    #[arg(long = "serverAddress", value_name = "HOST")]
    server_address: Option<String>,
    /// The TCP port that the server listens on, 1 to 65535; 8081 unless the server is told otherwise
    #[arg(long = "serverPort", value_name = "PORT")]
    server_port: Option<String>,
    /// The trust domain that this device belongs to, such as example.org
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
    /// File that holds the join token and nothing else
    #[arg(long = "joinTokenFile", value_name = "PATH")]
    join_token_file: Option<String>,
    /// Directory for the agent's files
    #[arg(long = "dataDir", value_name = "PATH")]
    data_dir: Option<String>,
    /// The Workload API's socket
    #[arg(long = "socketPath", value_name = "PATH")]
    socket_path: Option<String>,
    #[command(flatten)]
    log: LogFlags,
    /// Tell callers without an entry the trust domain's bundle
    #[arg(long = "allowUnauthenticatedVerifiers")]
    allow_unauthenticated_verifiers: bool,
    /// Do not serve Envoy's secrets (SDS)
    #[arg(long = "disableSDSAPI")]
    disable_sds_api: bool,
    /// Do not serve the Workload API
    #[arg(long = "disableWorkloadAPI")]
    disable_workload_api: bool,
    /// How long the server is not believed before the configured bundle takes the place of the one that is held, such as 10m
    #[arg(long = "rebootstrapDelay", value_name = "DURATION")]
    rebootstrap_delay: Option<String>,
    /// Whether it does: never, auto (where the agent may attest again) or always
    #[arg(long = "rebootstrapMode", value_name = "MODE")]
    rebootstrap_mode: Option<String>,
    /// URL of the certificates that the server is recognised by, https://
    #[arg(long = "trustBundleUrl", value_name = "URL")]
    trust_bundle_url: Option<String>,
}

impl ConfigFlags for Flags {
    const DEFAULT_FILE: &'static str = "conf/agent/agent.conf";
    const PACKAGED_FILE: &'static str = "/etc/ironroot/agent.conf";

    fn given(&self) -> Vec<Given> {
        let own = [
            ("-serverAddress", "server_address", self.server_address.clone()),
            ("-serverPort", "server_port", self.server_port.clone()),
            ("-trustDomain", "trust_domain", self.trust_domain.clone()),
            ("-trustBundle", "trust_bundle_path", self.trust_bundle.clone()),
            ("-trustBundleFormat", "trust_bundle_format", self.trust_bundle_format.clone()),
            ("-insecureBootstrap", "insecure_bootstrap", switched_on(self.insecure_bootstrap)),
            ("-joinToken", "join_token", self.join_token.clone()),
            ("-joinTokenFile", "join_token_file", self.join_token_file.clone()),
            ("-dataDir", "data_dir", self.data_dir.clone()),
            ("-socketPath", "socket_path", self.socket_path.clone()),
            (
                "-allowUnauthenticatedVerifiers",
                "allow_unauthenticated_verifiers",
                switched_on(self.allow_unauthenticated_verifiers),
            ),
            ("-disableSDSAPI", "disable_sds_api", switched_on(self.disable_sds_api)),
            ("-disableWorkloadAPI", "disable_workload_api", switched_on(self.disable_workload_api)),
            ("-rebootstrapDelay", "rebootstrap_delay", self.rebootstrap_delay.clone()),
            ("-rebootstrapMode", "rebootstrap_mode", self.rebootstrap_mode.clone()),
            ("-trustBundleUrl", "trust_bundle_url", self.trust_bundle_url.clone()),
        ];
        own.into_iter().chain(self.log.given()).collect()
    }
}
