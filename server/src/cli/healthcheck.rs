//! `healthcheck`.

use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_shell::command_line::{CommandError, Reply, shown};
use serde_json::json;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connection::Connection;
use crate::endpoints::REASON_METADATA;

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
            self.answer(connection).await.map_err(|error| error.unhealthy("server"))?;
            Ok(Reply::new(json!({ "healthy": true }), format!("{steps}Server is healthy.\n")))
        })
    }

    async fn answer(&self, connection: &Connection) -> Result<(), CommandError> {
        let channel = connection.open().await?;
        if self.shallow {
            return Ok(());
        }
        ask_readiness(channel.clone()).await?;
        let bundle = BundleClient::new(channel).get_bundle(GetBundleRequest::default()).await?.into_inner();
        match bundle.x509_authorities.is_empty() {
            true => Err(CommandError::Malformed("server is unhealthy: its bundle is empty".to_owned())),
            false => Ok(()),
        }
    }
}

/// An error that says why, if the server cannot do its work.
async fn ask_readiness(channel: Channel) -> Result<(), CommandError> {
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
    if answer.get_ref().status() == ServingStatus::Serving {
        return Ok(());
    }
    let reason = answer.metadata().get_bin(REASON_METADATA).and_then(|reason| reason.to_bytes().ok());
    let reason = reason.as_deref().map_or("it does not say why".into(), String::from_utf8_lossy);
    Err(CommandError::Malformed(format!("server is unhealthy: {}", shown(reason))))
}
