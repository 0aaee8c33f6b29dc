//! `agent purge`.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ironroot_api::pb::agent::DeleteAgentRequest;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::types;
use ironroot_shell::command_line::{CommandError, Reply, code_name};
use ironroot_shell::settings::parse_duration;
use serde_json::{Value, json};

use super::{Connection, Filter, id_text, line, list};
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::counted;

/// Forgets agents that expired long ago and can attest again.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server agent purge -expiredFor 2160h -dryRun")]
pub(in crate::cli) struct Purge {
    #[command(flatten)]
    connection: Connection,
    /// How long ago their SVID must have ended
    #[arg(long = "expiredFor", value_name = "DURATION", default_value = "720h", value_parser = parse_duration)]
    expired_for: Duration,
    /// Only list them, forget none
    #[arg(long = "dryRun")]
    dry_run: bool,
}

/// One expired agent and what became of it.
struct Expired {
    id: String,
    deleted: bool,
    error: Option<String>,
}

impl Purge {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let channel = connection.open().await?;
            let agents = list(channel.clone(), Filter::reattestable()).await?;
            let age = i64::try_from(self.expired_for.as_secs()).unwrap_or(i64::MAX);
            let latest = wall_unix().saturating_sub(age);
            let mut client = AgentClient::new(channel);
            let mut expired = Vec::new();
            for agent in agents.into_iter().filter(|agent| agent.x509svid_expires_at < latest) {
                expired.push(if self.dry_run { spared(&agent) } else { delete(&mut client, &agent).await });
            }
            Ok::<_, CommandError>(self.reply(&expired))
        })
    }

    fn reply(&self, expired: &[Expired]) -> Reply {
        let json: Vec<Value> = expired.iter().map(Expired::to_json).collect();
        let failed = expired.iter().any(|agent| agent.error.is_some());
        Reply { failed, ..Reply::new(json!({ "expired_agents": json }), self.text(expired)) }
    }

    fn text(&self, expired: &[Expired]) -> String {
        if expired.is_empty() {
            return "No agents to purge.\n".to_owned();
        }
        let mut text = format!("Found {}\n\n", counted(expired.len(), "expired agent", "expired agents"));
        if self.dry_run {
            section(&mut text, "\nAgents that can be purged:", expired, |_| true);
        } else {
            section(&mut text, "Agents purged:", expired, |agent| agent.deleted);
            section(&mut text, "Agents not purged:", expired, |agent| !agent.deleted);
        }
        text
    }
}

impl Expired {
    fn to_json(&self) -> Value {
        let mut json = json!({ "agent_id": self.id, "deleted": self.deleted });
        if let Some(error) = &self.error {
            json["error"] = error.clone().into();
        }
        json
    }
}

fn spared(agent: &types::Agent) -> Expired {
    Expired { id: id_text(agent), deleted: false, error: None }
}

async fn delete(client: &mut AgentClient<tonic::transport::Channel>, agent: &types::Agent) -> Expired {
    match client.delete_agent(DeleteAgentRequest { id: agent.id.clone() }).await {
        Ok(_) => Expired { deleted: true, ..spared(agent) },
        Err(status) => {
            let error = format!("{} (code: {})", status.message(), code_name(status.code()));
            Expired { error: Some(error), ..spared(agent) }
        }
    }
}

fn section(text: &mut String, title: &str, expired: &[Expired], belongs: impl Fn(&Expired) -> bool) {
    let chosen: Vec<&Expired> = expired.iter().filter(|agent| belongs(agent)).collect();
    if chosen.is_empty() {
        return;
    }
    writeln!(text, "{title}").expect("writing to a string cannot fail");
    for agent in chosen {
        line(text, "SPIFFE ID", format_args!("{}", agent.id));
        if let Some(error) = &agent.error {
            line(text, "Error", format_args!("{error}"));
        }
    }
}
