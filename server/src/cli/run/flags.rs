//! The flags of `run` and `validate`.

use clap::Args;
use ironroot_shell::command_line::{ConfigFlags, Given, LogFlags};

/// Every flag of SPIRE's; each stands for a key of the file, whose reader does it, warns of it or refuses it, naming the flag.
#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
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
    /// The trust domain that this server signs for, such as example.org
    #[arg(long = "trustDomain", value_name = "NAME")]
    trust_domain: Option<String>,
    #[command(flatten)]
    log: LogFlags,
}

impl ConfigFlags for Flags {
    const DEFAULT_FILE: &'static str = "conf/server/server.conf";
    const PACKAGED_FILE: &'static str = "/etc/ironroot/server.conf";

    fn given(&self) -> Vec<Given> {
        let own = [
            ("-bindAddress", "bind_address", self.bind_address.clone()),
            ("-serverPort", "bind_port", self.server_port.clone()),
            ("-dataDir", "data_dir", self.data_dir.clone()),
            ("-socketPath", "socket_path", self.socket_path.clone()),
            ("-trustDomain", "trust_domain", self.trust_domain.clone()),
        ];
        own.into_iter().chain(self.log.given()).collect()
    }
}
