//! `healthcheck`.

use std::process::ExitCode;

use clap::Args;
use ironroot_shell::command_line::{CommandError, Output, Reply, block_on, within};
use serde_json::json;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connection::Connection;

/// Of an agent that answers, and has nothing for anybody.
const CAST_OUT: &str = "agent is unhealthy: it serves nobody, since its server has banned or evicted it (ironroot-agent status says which)";
/// Longest wait for an answer, seconds.
const PATIENCE_SECONDS: u64 = 5;

/// Asks whether the agent answers workloads; exit code 0 if it does.
#[derive(Debug, Args)]
#[command(
    after_help = "An agent that says \"you have no identity\" works: whoever runs this need not be a workload. One that is banned or evicted serves nobody and does not.

Example: ironroot-agent healthcheck -verbose"
)]
pub(super) struct Healthcheck {
    #[command(flatten)]
    connection: Connection,
    /// Only ask whether the socket answers
    #[arg(long)]
    shallow: bool,
    /// Say what is being done
    #[arg(long)]
    verbose: bool,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
}

impl Healthcheck {
    pub(super) fn execute(self) -> ExitCode {
        let steps = if self.verbose { "Checking agent health...\n" } else { "" };
        let healthy = || Reply::new(json!({ "healthy": true }), format!("{steps}Agent is healthy.\n"));
        let answer = block_on(within(PATIENCE_SECONDS, self.answer())).map_err(|error| error.unhealthy("agent"));
        Reply::print(&answer.map(|()| healthy()), self.output)
    }

    async fn answer(&self) -> Result<(), CommandError> {
        if self.shallow {
            return self.connection.open().await.map(drop);
        }
        let first = match self.connection.x509_svids().await {
            Ok(mut stream) => stream.message().await.map(drop).map_err(CommandError::from),
            Err(error) => Err(error),
        };
        match first {
            Err(CommandError::Refused(status)) if status.code() == Code::PermissionDenied => self.serves_others().await,
            other => other,
        }
    }

    /// Whether the agent serves anybody: it says so to whoever asks, and one that does not know the question is not asked.
    async fn serves_others(&self) -> Result<(), CommandError> {
        let mut health = HealthClient::new(self.connection.open().await?);
        match health.check(HealthCheckRequest::default()).await {
            Ok(answer) if answer.get_ref().status() == ServingStatus::NotServing => {
                Err(CommandError::Malformed(CAST_OUT.to_owned()))
            }
            _ => Ok(()),
        }
    }
}
