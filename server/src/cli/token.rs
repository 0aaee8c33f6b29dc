//! `token generate`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::SpiffeId;
use ironroot_api::pb::agent::CreateJoinTokenRequest;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_shell::command_line::{Reply, int64, positive_seconds, shown};
use serde_json::json;

use super::connection::Connection;

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    Generate(Generate),
}

impl Token {
    pub(super) fn execute(self) -> ExitCode {
        let Self::Generate(generate) = self;
        generate.execute()
    }
}

/// Makes a token that lets one agent attest once.
#[derive(Debug, Args)]
#[command(
    after_help = "With -spiffeID the device that attests with it also gets that ID, so that entries can name it as \
        parent.

Example: ironroot-server token generate -ttl 3600 -spiffeID spiffe://example.org/kiosk"
)]
pub(super) struct Generate {
    #[command(flatten)]
    connection: Connection,
    /// How long it can be used, in seconds or as 24h
    #[arg(long, value_name = "TIME", default_value = "600", allow_negative_numbers = true, value_parser = positive_seconds)]
    ttl: i32,
    /// A further SPIFFE ID for the device
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
}

impl Generate {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let agent_id = self.spiffe_id.as_ref().map(SpiffeId::to_pb);
            let request = CreateJoinTokenRequest { ttl: self.ttl, token: String::new(), agent_id };
            let token = AgentClient::new(connection.open().await?).create_join_token(request).await?.into_inner();
            let hint = match self.spiffe_id {
                Some(_) => "",
                None => "Warning: Missing SPIFFE ID.\n",
            };
            let json = json!({ "value": token.value, "expires_at": int64(token.expires_at) });
            Ok(Reply::new(json, format!("Token: {}\n{hint}", shown(&token.value))))
        })
    }
}
