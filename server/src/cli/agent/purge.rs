//! `agent purge`.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::stream::{self, StreamExt};
use ironroot_api::pb::agent::DeleteAgentRequest;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::types;
use ironroot_shell::command_line::{CommandError, Reply, code_name};
use ironroot_shell::settings::parse_duration;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;

use super::{Connection, Filter, id_text, line, list};
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::counted;

/// Deletions under way at once: the server commits together what waits together, and lets an administrator have twice as many calls
/// on one connection.
const AT_ONCE: usize = 64;
/// Longest time from the start until the last deletion is asked for or answered, seconds: a hundred thousand are done in far less.
const DELETING_SECONDS: u64 = 540;
/// Longest time for all of it, seconds: what became of each is told also when the time is over.
const PURGE_SECONDS: u64 = DELETING_SECONDS + 60;

/// Forgets agents that expired long ago and can attest again. Banned ones stay: only "agent evict" lifts a ban
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
        self.connection.run_for(PURGE_SECONDS, async |connection| {
            let end = Instant::now() + Duration::from_secs(DELETING_SECONDS);
            let channel = connection.open().await?;
            let agents = list(channel.clone(), Filter::reattestable()).await?;
            let age = i64::try_from(self.expired_for.as_secs()).unwrap_or(i64::MAX);
            let latest = wall_unix().saturating_sub(age);
            let agents: Vec<_> = agents.into_iter().filter(|agent| agent.x509svid_expires_at < latest).collect();
            let expired = match self.dry_run {
                true => agents.iter().map(spared).collect(),
                false => delete_all(&AgentClient::new(channel), agents, end).await,
            };
            Ok::<_, CommandError>(reply(&expired, self.dry_run))
        })
    }
}

fn reply(expired: &[Expired], dry_run: bool) -> Reply {
    let json: Vec<Value> = expired.iter().map(Expired::to_json).collect();
    let failed = expired.iter().any(|agent| agent.error.is_some());
    Reply { failed, ..Reply::new(json!({ "expired_agents": json }), text(expired, dry_run)) }
}

fn text(expired: &[Expired], dry_run: bool) -> String {
    if expired.is_empty() {
        return "No agents to purge.\n".to_owned();
    }
    let mut text = format!("Found {}\n\n", counted(expired.len(), "expired agent", "expired agents"));
    if dry_run {
        section(&mut text, "\nAgents that can be purged:", expired, |_| true);
    } else {
        section(&mut text, "Agents purged:", expired, |agent| agent.deleted);
        section(&mut text, "Agents not purged:", expired, |agent| !agent.deleted);
    }
    text
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

/// Deletes them, [`AT_ONCE`] at a time, until `end`; what became of each, in their order.
async fn delete_all(client: &AgentClient<Channel>, agents: Vec<types::Agent>, end: Instant) -> Vec<Expired> {
    let deletions = agents.into_iter().map(|agent| delete(client.clone(), agent, end));
    stream::iter(deletions).buffered(AT_ONCE).collect().await
}

async fn delete(mut client: AgentClient<Channel>, agent: types::Agent, end: Instant) -> Expired {
    let not_purged = |error: String| Expired { error: Some(error), ..spared(&agent) };
    if Instant::now() >= end {
        return not_purged(format!("not asked for: {DELETING_SECONDS} s are over; run the command again"));
    }
    match timeout_at(end, client.delete_agent(DeleteAgentRequest { id: agent.id.clone() })).await {
        Ok(Ok(_)) => Expired { deleted: true, ..spared(&agent) },
        Ok(Err(status)) => not_purged(format!("{} (code: {})", status.message(), code_name(status.code()))),
        Err(_) => not_purged(format!("no answer within {DELETING_SECONDS} s; it may be purged: run the command again")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn agents_that_are_left_when_the_time_is_over_are_told_as_not_purged_and_the_purge_has_failed() {
        let nowhere = Channel::from_static("http://127.0.0.1:9").connect_lazy();
        let agent = |path: &str| types::Agent {
            id: Some(types::Spiffeid { trust_domain: "td".into(), path: path.into() }),
            ..types::Agent::default()
        };
        let agents = (0..2 * AT_ONCE).map(|number| agent(&format!("/spire/agent/tpm2/{number}"))).collect();
        let expired = delete_all(&AgentClient::new(nowhere), agents, Instant::now()).await;
        assert_eq!(expired.len(), 2 * AT_ONCE);
        assert!(
            expired.iter().all(|agent| !agent.deleted && agent.error.as_ref().is_some_and(|e| e.contains("again")))
        );
        let Reply { failed, text, .. } = reply(&expired, false);
        assert!(
            failed && text.contains("Agents not purged:\nSPIFFE ID         : spiffe://td/spire/agent/tpm2/0\n"),
            "{text}"
        );
    }
}
