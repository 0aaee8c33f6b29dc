//! `policy learn`, `show`, `list`, `set`, `delete`, `sign`: what devices may have booted. Ours; SPIRE has no counterpart.

mod display;
mod document;
mod learn;
mod sign;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ironroot_api::pb::pcr_policy as pb;
use ironroot_api::pb::pcr_policy::pcr_policy_client::PcrPolicyClient;
use ironroot_shell::command_line::{CommandError, Reply, counted, table};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::connection::Connection;
use display::{describe, to_json};

/// Longest answer accepted, bytes: all policies there can be.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    Learn(learn::Learn),
    List(List),
    Show(Show),
    Set(Set),
    Delete(Delete),
    Sign(sign::Sign),
}

impl Policy {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Learn(learn) => learn.execute(),
            Self::List(list) => list.execute(),
            Self::Show(show) => show.execute(),
            Self::Set(set) => set.execute(),
            Self::Delete(delete) => delete.execute(),
            Self::Sign(sign) => sign.execute(),
        }
    }
}

fn client(channel: Channel) -> PcrPolicyClient<Channel> {
    PcrPolicyClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}

fn reply(policy: &pb::Policy) -> Reply {
    let mut text = String::new();
    describe(&mut text, policy);
    Reply::new(to_json(policy), text)
}

/// Lists policies.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server policy list")]
pub(super) struct List {
    #[command(flatten)]
    connection: Connection,
}

impl List {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let request = pb::ListPoliciesRequest {};
            let policies = client(connection.open().await?).list_policies(request).await?.into_inner().policies;
            let mut text = format!("Found {}\n", counted(policies.len(), "policy", "policies"));
            policies.iter().for_each(|policy| describe(&mut text, policy));
            let json = json!({ "policies": policies.iter().map(to_json).collect::<Value>() });
            let rows: Vec<_> = policies.iter().map(row).collect();
            Ok(Reply { table: Some(table(&HEAD, &rows)), ..Reply::new(json, text) })
        })
    }
}

/// What a table of policies has.
const HEAD: [&str; 3] = ["POLICY", "ABOUT DEVICES WITH", "STATES THAT ARE GOOD"];

fn row(policy: &pb::Policy) -> [String; 3] {
    let mut labels: Vec<String> = policy.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.sort();
    let about = if labels.is_empty() { "any label".to_owned() } else { labels.join(" ") };
    let note =
        |state: &pb::Alternative| if state.note.is_empty() { "(no note)".to_owned() } else { state.note.clone() };
    let notes: Vec<String> = policy.alternatives.iter().map(note).collect();
    [policy.name.clone(), about, format!("{}: {}", notes.len(), notes.join(", "))]
}

/// Shows a policy; with -output json in the form that "policy set" reads.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server policy show gateway-1.2
Example: ironroot-server policy show gateway-1.2 -output json > policy.json")]
pub(super) struct Show {
    #[command(flatten)]
    connection: Connection,
    /// The policy's name
    #[arg(value_name = "NAME")]
    name: String,
}

impl Show {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let request = pb::PolicyRequest { name: self.name.clone() };
            Ok(reply(&client(connection.open().await?).get_policy(request).await?.into_inner()))
        })
    }
}

/// Adds a policy, or replaces the one of its name, by what a file says.
#[derive(Debug, Args)]
#[command(after_help = "The file is what \"policy show NAME -output json\" prints:
  {\"name\": \"gateway-1.2\", \"labels\": {\"model\": \"gw\"},
   \"alternatives\": [{\"bank\": \"sha256\", \"pcrs\": {\"0\": \"<64 digits>\", \"7\": \"<64 digits>\"}, \"note\": \"1.2\"}],
   \"ima\": {\"allowed\": [{\"path\": \"/usr/bin/app\", \"digest\": \"sha256:<64 digits>\"}], \"exclude\": [\"/var/tmp/\"]}}
Of \"alternatives\" and \"ima\" one may be absent ([] for no alternatives); a path that is absent stands for any.

Example: ironroot-server policy set policy.json
Example: ironroot-server policy set - < policy.json")]
pub(super) struct Set {
    #[command(flatten)]
    connection: Connection,
    /// The file; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Set {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let policy = document::read(&self.file).map_err(CommandError::Usage)?;
            Ok(reply(&client(connection.open().await?).set_policy(policy).await?.into_inner()))
        })
    }
}

/// Removes a policy: no device meets it any more.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server policy delete gateway-1.2")]
pub(super) struct Delete {
    #[command(flatten)]
    connection: Connection,
    /// The policy's name
    #[arg(value_name = "NAME")]
    name: String,
}

impl Delete {
    fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let request = pb::PolicyRequest { name: self.name.clone() };
            client(connection.open().await?).delete_policy(request).await?;
            Ok(Reply::new(json!({}), "Policy deleted successfully\n".to_owned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whom_a_policy_is_about_and_how_many_states_are_good() {
        let state = |note: &str| pb::Alternative { note: note.into(), ..pb::Alternative::default() };
        let labels = [("site".to_owned(), "berlin".to_owned()), ("model".to_owned(), "gw".to_owned())].into();
        let policy =
            pb::Policy { name: "gateway".into(), labels, alternatives: vec![state("1.2"), state("")], ima: None };
        assert_eq!(row(&policy), ["gateway", "model=gw site=berlin", "2: 1.2, (no note)"]);
        assert_eq!(row(&pb::Policy::default())[1..], ["any label", "0: "]);
    }
}
