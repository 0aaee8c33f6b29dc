//! `localauthority x509 …`, `localauthority jwt …`, `localauthority wit …`, `upstreamauthority …`: the server's signing keys, replaced by hand.

mod display;
mod jwt;
mod upstream;
mod wit;
mod x509;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::pb::localauthority::local_authority_client::LocalAuthorityClient;
use ironroot_shell::command_line::{CommandError, Reply};
use tonic::transport::Channel;

use super::connection::Connection;

pub(super) use upstream::UpstreamAuthority;

#[derive(Debug, Subcommand)]
pub(super) enum LocalAuthority {
    /// The CA that signs X509-SVIDs.
    #[command(subcommand, after_help = "Example: ironroot-server localauthority x509 show")]
    X509(x509::X509),
    /// The key that signs JWT-SVIDs.
    #[command(subcommand, after_help = "Example: ironroot-server localauthority jwt show")]
    Jwt(jwt::Jwt),
    /// The key that signs WIT-SVIDs.
    #[command(subcommand, after_help = "Example: ironroot-server localauthority wit show")]
    Wit(wit::Wit),
}

impl LocalAuthority {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::X509(x509) => x509.execute(),
            Self::Jwt(jwt) => jwt.execute(),
            Self::Wit(wit) => wit.execute(),
        }
    }
}

/// A command without an authority.
#[derive(Debug, Args)]
pub(super) struct Plain {
    #[command(flatten)]
    connection: Connection,
}

/// A command about one authority.
#[derive(Debug, Args)]
pub(super) struct Named {
    #[command(flatten)]
    connection: Connection,
    /// The authority ID, as show prints it
    #[arg(long = "authorityID", value_name = "ID", default_value = "", hide_default_value = true)]
    authority_id: String,
}

type Client = LocalAuthorityClient<Channel>;

impl Plain {
    fn run(self, ask: impl AsyncFnOnce(Client) -> Result<Reply, CommandError>) -> ExitCode {
        self.on(async |channel| ask(LocalAuthorityClient::new(channel)).await)
    }

    fn on(self, ask: impl AsyncFnOnce(Channel) -> Result<Reply, CommandError>) -> ExitCode {
        self.connection.run(async |connection| ask(connection.open().await?).await)
    }
}

impl Named {
    /// The words are SPIRE's.
    fn run(self, ask: impl AsyncFnOnce(Client, String) -> Result<Reply, CommandError>) -> ExitCode {
        let Self { connection, authority_id } = self;
        connection.run(async |connection| {
            if authority_id.is_empty() {
                return Err(CommandError::Usage("an authority ID is required".to_owned()));
            }
            ask(LocalAuthorityClient::new(connection.open().await?), authority_id).await
        })
    }
}
