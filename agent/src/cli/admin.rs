//! Reaching the agent's admin socket.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ironroot_api::unix_socket;
use ironroot_shell::command_line::{CommandError, Output, Reply, SocketChoice, block_on, within};
use tonic::transport::Channel;

use crate::config::DEFAULT_ADMIN_SOCKET_PATH;

/// Where the package's agent answers administrators, once its configuration says so.
const PACKAGED_SOCKET: &str = "/run/ironroot-agent/private/admin.sock";
/// Longest a command waits, seconds.
pub(super) const PATIENCE_SECONDS: u64 = 10;

/// Flags of every command that asks the admin socket.
#[derive(Debug, Args)]
pub(super) struct Administration {
    /// The agent's admin socket, which admin_socket_path opens
    #[arg(long = "socketPath", value_name = "PATH", default_value = DEFAULT_ADMIN_SOCKET_PATH)]
    socket_path: PathBuf,
    /// Name that replaces %i in the path given by environment variable SPIRE_AGENT_PRIVATE_SOCKET_TEMPLATE
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
}

impl Administration {
    /// Runs `command` and prints what it answers.
    pub(super) fn run(&self, command: impl AsyncFnOnce(Channel) -> Result<Reply, CommandError>) -> ExitCode {
        let answer = async { command(admin_channel(&self.socket_path, self.instance.as_deref()).await?).await };
        Reply::print(&block_on(within(PATIENCE_SECONDS, answer)), self.output)
    }
}

/// A channel to the admin socket that flag and environment name.
pub(super) async fn admin_channel(flag: &Path, instance: Option<&str>) -> Result<Channel, CommandError> {
    let choice = SocketChoice {
        flag,
        instance,
        template_variable: "SPIRE_AGENT_PRIVATE_SOCKET_TEMPLATE",
        variable: "SPIRE_AGENT_PRIVATE_SOCKET",
        default: DEFAULT_ADMIN_SOCKET_PATH,
    };
    unix_socket::connect(&choice.resolve_here()?).await.map_err(CommandError::unreachable(PACKAGED_SOCKET))
}
