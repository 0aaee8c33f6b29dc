//! `agent list`, `count`, `show`, `evict`, `ban`, `purge`.

mod filter;
mod purge;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::SpiffeId;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::{
    BanAgentRequest, CountAgentsRequest, DeleteAgentRequest, GetAgentRequest, ListAgentsRequest, list_agents_request,
};
use ironroot_api::pb::types;
use ironroot_shell::command_line::{CommandError, Reply};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::connection::Connection;
use super::messages;
use filter::Filter;
use ironroot_api::{spire_time, utc};
use ironroot_shell::command_line::{counted, labelled, table};

/// Agents asked for at once.
const PAGE_SIZE: i32 = 1000;
/// Longest answer accepted, bytes: a thousand agents with many selectors.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Agent {
    List(List),
    Count(Count),
    Show(Show),
    Evict(Evict),
    Ban(Ban),
    Purge(purge::Purge),
}

impl Agent {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::List(list) => list.execute(),
            Self::Count(count) => count.execute(),
            Self::Show(show) => show.execute(),
            Self::Evict(evict) => evict.execute(),
            Self::Ban(ban) => ban.execute(),
            Self::Purge(purge) => purge.execute(),
        }
    }
}

/// Lists attested agents.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server agent list -selector tpm2:label:site:berlin")]
pub(super) struct List {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    filter: Filter,
}

impl List {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let filter = self.filter.to_list_filter()?;
            let agents = list(connection.open().await?, filter).await?;
            let json =
                json!({ "agents": agents.iter().map(messages::agent).collect::<Value>(), "next_page_token": "" });
            let mut text = match agents.len() {
                0 => "No attested agents found\n".to_owned(),
                count => format!("Found {}:\n\n", counted(count, "attested agent", "attested agents")),
            };
            agents.iter().for_each(|agent| describe(&mut text, agent));
            let rows: Vec<_> = agents.iter().map(row).collect();
            Ok(Reply { table: Some(table(&HEAD, &rows)), ..Reply::new(json, text) })
        })
    }
}

/// What a table of agents has.
const HEAD: [&str; 5] = ["SPIFFE ID", "TYPE", "CERTIFICATE ENDS", "STATE", "VERSION"];

fn row(agent: &types::Agent) -> [String; 5] {
    let id = agent.id.as_ref().map(|id| format!("spiffe://{}{}", id.trust_domain, id.path)).unwrap_or_default();
    let state = if agent.banned { "banned" } else { "attested" };
    [id, agent.attestation_type.clone(), utc(agent.x509svid_expires_at), state.to_owned(), agent.agent_version.clone()]
}

/// Counts attested agents.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server agent count -banned true")]
pub(super) struct Count {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    filter: Filter,
}

impl Count {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let request = CountAgentsRequest { filter: Some(self.filter.to_count_filter()?) };
            let count = AgentClient::new(connection.open().await?).count_agents(request).await?.into_inner().count;
            let shown = counted(usize::try_from(count).unwrap_or(0), "attested agent", "attested agents");
            Ok(Reply::new(json!({ "count": count }), format!("{shown}\n")))
        })
    }
}

/// Names one agent.
#[derive(Debug, Args)]
struct Named {
    #[command(flatten)]
    connection: Connection,
    /// The agent's SPIFFE ID
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: SpiffeId,
}

/// Shows one agent with its selectors.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server agent show -spiffeID spiffe://example.org/spire/agent/tpm2/5f1c")]
pub(super) struct Show {
    #[command(flatten)]
    agent: Named,
}

impl Show {
    fn execute(self) -> ExitCode {
        self.agent.connection.run(async |connection| {
            let request = GetAgentRequest { id: Some(self.agent.spiffe_id.to_pb()), output_mask: None };
            let agent = AgentClient::new(connection.open().await?).get_agent(request).await?.into_inner();
            let mut text = "Found an attested agent given its SPIFFE ID\n\n".to_owned();
            describe(&mut text, &agent);
            for selector in &agent.selectors {
                line(&mut text, "Selectors", format_args!("{}:{}", selector.r#type, selector.value));
            }
            Ok(Reply::new(messages::agent(&agent), text))
        })
    }
}

/// Forgets an agent; it may attest again.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server agent evict -spiffeID spiffe://example.org/spire/agent/tpm2/5f1c")]
pub(super) struct Evict {
    #[command(flatten)]
    agent: Named,
}

impl Evict {
    fn execute(self) -> ExitCode {
        self.agent.connection.run(async |connection| {
            let request = DeleteAgentRequest { id: Some(self.agent.spiffe_id.to_pb()) };
            AgentClient::new(connection.open().await?).delete_agent(request).await?;
            Ok(Reply::new(json!({}), "Agent evicted successfully\n"))
        })
    }
}

/// Bans an agent: it is turned away, and may not attest again until it is evicted.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server agent ban -spiffeID spiffe://example.org/spire/agent/tpm2/5f1c")]
pub(super) struct Ban {
    #[command(flatten)]
    agent: Named,
}

impl Ban {
    fn execute(self) -> ExitCode {
        self.agent.connection.run(async |connection| {
            let request = BanAgentRequest { id: Some(self.agent.spiffe_id.to_pb()) };
            AgentClient::new(connection.open().await?).ban_agent(request).await?;
            Ok(Reply::new(json!({}), "Agent banned successfully\n"))
        })
    }
}

async fn list(channel: Channel, filter: list_agents_request::Filter) -> Result<Vec<types::Agent>, CommandError> {
    let mut client = AgentClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let mut request = ListAgentsRequest { filter: Some(filter), page_size: PAGE_SIZE, ..ListAgentsRequest::default() };
    let mut agents = Vec::new();
    loop {
        let page = client.list_agents(request.clone()).await?.into_inner();
        agents.extend(page.agents);
        if page.next_page_token.is_empty() {
            return Ok(agents);
        }
        request.page_token = page.next_page_token;
    }
}

fn describe(text: &mut String, agent: &types::Agent) {
    line(text, "SPIFFE ID", format_args!("{}", id_text(agent)));
    line(text, "Attestation type", format_args!("{}", agent.attestation_type));
    line(text, "Expiration time", format_args!("{}", spire_time(agent.x509svid_expires_at)));
    if agent.banned {
        line(text, "Banned", format_args!("true"));
    } else {
        line(text, "Serial number", format_args!("{}", agent.x509svid_serial_number));
    }
    line(text, "Can re-attest", format_args!("{}", agent.can_reattest));
    if !agent.agent_version.is_empty() {
        line(text, "Agent version", format_args!("{}", agent.agent_version));
    }
    text.push('\n');
}

/// The agent's SPIFFE ID as text; an answer without one shows nothing.
fn id_text(agent: &types::Agent) -> String {
    agent.id.as_ref().map_or_else(String::new, |id| format!("spiffe://{}{}", id.trust_domain, id.path))
}

/// A line with SPIRE's 18 columns of label.
fn line(text: &mut String, label: &str, value: std::fmt::Arguments<'_>) {
    labelled(text, 18, label, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_calls_itself_is_one_line_and_one_cell() {
        let agent_version = "1\nSPIFFE ID         : spiffe://td/fake\t\u{85}".to_owned();
        let agent = types::Agent { agent_version, ..types::Agent::default() };
        let mut text = String::new();
        describe(&mut text, &agent);
        assert!(text.ends_with("Agent version     : 1\\nSPIFFE ID         : spiffe://td/fake\\t\\u{85}\n\n"), "{text}");
        assert_eq!(table(&HEAD, &[row(&agent)]).lines().count(), 2);
    }
}
