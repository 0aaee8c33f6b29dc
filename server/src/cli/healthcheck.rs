//! `healthcheck`.

use std::process::ExitCode;

use clap::Args;
use ironroot_api::command_line::{CommandError, Reply};
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use serde_json::json;

use super::connection::Connection;

/// Asks whether the server works; exit code 0 if it does.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server healthcheck -verbose")]
pub(super) struct Healthcheck {
    #[command(flatten)]
    connection: Connection,
    /// Only ask whether the socket answers
    #[arg(long)]
    shallow: bool,
    /// Say what is being done
    #[arg(long)]
    verbose: bool,
}

impl Healthcheck {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let steps = if self.verbose { "Checking server health...\n" } else { "" };
            let channel = connection.open().await?;
            if !self.shallow {
                let bundle = BundleClient::new(channel).get_bundle(GetBundleRequest::default()).await?.into_inner();
                if bundle.x509_authorities.is_empty() {
                    return Err(CommandError::Malformed("server is unhealthy: its bundle is empty".to_owned()));
                }
            }
            Ok(Reply::new(json!({ "healthy": true }), format!("{steps}Server is healthy.\n")))
        })
    }
}
