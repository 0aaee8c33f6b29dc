//! Reaching the server's admin socket.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::unix_socket;
use ironroot_shell::command_line::{CommandError, Output, Reply, SocketChoice, block_on, within};
use tonic::transport::Channel;

use crate::config::DEFAULT_SOCKET_PATH;

/// Where the package's server listens.
pub(super) const PACKAGED_SOCKET: &str = "/run/ironroot-server/api.sock";
/// Longest a command waits, seconds: a server that is alive answers the largest page in far less.
pub(super) const PATIENCE_SECONDS: u64 = 60;

/// Flags of every command that asks the server.
#[derive(Debug, Args)]
pub(super) struct Connection {
    /// The server's admin socket
    #[arg(long = "socketPath", value_name = "PATH", default_value = DEFAULT_SOCKET_PATH)]
    socket_path: PathBuf,
    /// Name that replaces %i in the path given by environment variable SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
}

impl Connection {
    /// Runs `command` and prints what it answers.
    pub(super) fn run(&self, command: impl AsyncFnOnce(&Self) -> Result<Reply, CommandError>) -> ExitCode {
        self.run_for(PATIENCE_SECONDS, command)
    }

    /// The same for a command that asks much: it may take as long as that.
    pub(super) fn run_for(
        &self,
        seconds: u64,
        command: impl AsyncFnOnce(&Self) -> Result<Reply, CommandError>,
    ) -> ExitCode {
        Reply::print(&block_on(within(seconds, command(self))), self.output)
    }

    /// The form that is asked for: what would take much memory is made in that one only.
    pub(super) fn output(&self) -> Output {
        self.output
    }

    /// A channel to the server.
    pub(super) async fn open(&self) -> Result<Channel, CommandError> {
        unix_socket::connect(&self.socket()?).await.map_err(CommandError::unreachable(PACKAGED_SOCKET))
    }

    fn socket(&self) -> Result<PathBuf, CommandError> {
        let choice = SocketChoice {
            flag: &self.socket_path,
            instance: self.instance.as_deref(),
            template_variable: "SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE",
            variable: "SPIRE_SERVER_PRIVATE_SOCKET",
            default: DEFAULT_SOCKET_PATH,
        };
        Ok(choice.resolve_here()?)
    }
}
