//! `entry create` and `entry update`.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::SpiffeId;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{BatchCreateEntryRequest, BatchUpdateEntryRequest, GetEntryRequest};
use ironroot_api::pb::types::entry::AdditionalAttributes;
use ironroot_api::pb::types::{Entry, Spiffeid, Status};
use ironroot_attest::Selector;
use ironroot_shell::command_line::{CommandError, Reply, code_name, lifetime_seconds};
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Channel;

use super::advice;
use super::batches::{MAX_ANSWER_BYTES, in_batches, patience};
use super::data_file::{self, Read};
use super::selection::to_pb;
use super::show_text::describe;
use crate::cli::connection::Connection;
use crate::cli::messages;

/// What an entry says, as flags.
#[derive(Debug, Args)]
struct Fields {
    /// The SPIFFE ID it gives
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
    /// The agent, or group of agents, that may serve it
    #[arg(long = "parentID", value_name = "ID")]
    parent_id: Option<SpiffeId>,
    /// What must be true of the workload, as type:value; repeat for more
    #[arg(long, value_name = "TYPE:VALUE")]
    selector: Vec<Selector>,
    /// How long its X.509-SVIDs are valid, in seconds or as 1h; 0: the server's default
    #[arg(long = "x509SVIDTTL", value_name = "TIME", default_value = "0", allow_negative_numbers = true, value_parser = lifetime_seconds)]
    x509_svid_ttl: i32,
    /// How long its JWT-SVIDs are valid, in seconds or as 5m; 0: the server's default
    #[arg(long = "jwtSVIDTTL", value_name = "TIME", default_value = "0", allow_negative_numbers = true, value_parser = lifetime_seconds)]
    jwt_svid_ttl: i32,
    /// A trust domain whose bundle it gets, as SPIFFE ID; repeat for more
    #[arg(long = "federatesWith", value_name = "TRUST_DOMAIN")]
    federates_with: Vec<String>,
    /// Its holder may administer the server
    #[arg(long)]
    admin: bool,
    /// Its holder is a server downstream
    #[arg(long)]
    downstream: bool,
    /// Its SVID goes to an SVID store
    #[arg(long = "storeSVID")]
    store_svid: bool,
    /// When it ends, UNIX seconds; 0: never
    #[arg(long = "entryExpiry", value_name = "UNIX", default_value_t = 0, allow_negative_numbers = true)]
    entry_expiry: i64,
    /// A DNS name in its X.509-SVIDs; repeat for more
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// Tells entries with the same SPIFFE ID apart
    #[arg(long, value_name = "HINT", default_value = "", hide_default_value = true)]
    hint: String,
    /// Agents fetch its X.509-SVID only when asked for
    #[arg(long = "disableX509SVIDPrefetch", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    disable_x509_svid_prefetch: Option<bool>,
    /// Its JWT-SVIDs carry a unique ID
    #[arg(long = "jwtSVIDIncludeJTI", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    jwt_svid_include_jti: Option<bool>,
    /// A JSON file with entries instead of the flags; - for standard input
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
}

impl Fields {
    /// The entry that the flags describe, its parent left to the caller.
    fn entry(&self, id: &str, parent_id: Option<SpiffeId>) -> Result<Entry, CommandError> {
        let usage = |reason: &str| CommandError::Usage(reason.to_owned());
        if self.selector.is_empty() {
            return Err(usage("at least one selector is required"));
        }
        let parent_id = parent_id.ok_or_else(|| usage("a parent ID is required"))?;
        let spiffe_id = self.spiffe_id.as_ref().ok_or_else(|| usage("a SPIFFE ID is required"))?;
        Ok(Entry {
            id: id.to_owned(),
            spiffe_id: Some(spiffe_id.to_pb()),
            parent_id: Some(parent_id.to_pb()),
            selectors: to_pb(&self.selector),
            x509_svid_ttl: self.x509_svid_ttl,
            jwt_svid_ttl: self.jwt_svid_ttl,
            federates_with: self.federates_with.clone(),
            admin: self.admin,
            downstream: self.downstream,
            store_svid: self.store_svid,
            expires_at: self.entry_expiry,
            dns_names: self.dns.clone(),
            hint: self.hint.clone(),
            additional_attributes: self.attributes(None),
            ..Entry::default()
        })
    }

    /// The attributes that were given over those that are there; none if none were given.
    fn attributes(&self, existing: Option<AdditionalAttributes>) -> Option<AdditionalAttributes> {
        if self.disable_x509_svid_prefetch.is_none() && self.jwt_svid_include_jti.is_none() {
            return None;
        }
        let mut attributes = existing.unwrap_or_default();
        if let Some(value) = self.disable_x509_svid_prefetch {
            attributes.disable_x509_svid_prefetch = value;
        }
        if let Some(value) = self.jwt_svid_include_jti {
            attributes.jwt_svid_include_jti = value;
        }
        Some(attributes)
    }
}

/// Creates entries.
#[derive(Debug, Args)]
#[command(after_help = "With -node the entry names a group of devices instead of a workload; entries for workloads \
        then take the group's ID as parent. A file has the form
  {\"entries\": [{\"spiffe_id\": \"\", \"parent_id\": \"\", \"selectors\": [{\"type\": \"\", \"value\": \"\"}]}]}

Example: ironroot-server entry create -node -spiffeID spiffe://example.org/berlin \\
             -selector tpm2:label:site:berlin
Example: ironroot-server entry create -parentID spiffe://example.org/berlin \\
             -spiffeID spiffe://example.org/web -selector unix:user:web \\
             -x509SVIDTTL 3600 -dns web.example.org
Example: ironroot-server entry create -data entries.json")]
pub(in crate::cli) struct Create {
    #[command(flatten)]
    connection: Connection,
    /// The entry's ID; the server chooses one if not given
    #[arg(long = "entryID", value_name = "ENTRY", default_value = "", hide_default_value = true)]
    entry_id: String,
    /// The entry is for devices, not workloads
    #[arg(long)]
    node: bool,
    #[command(flatten)]
    fields: Fields,
}

impl Create {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run_for(patience(self.fields.data.is_some()), async |connection| {
            let Read { content: entries, notes } = self.entries()?;
            let channel = connection.open().await?;
            let mut client = EntryClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
            let create = async |entries| {
                let request = BatchCreateEntryRequest { entries, output_mask: None };
                let results = client.batch_create_entry(request).await?.into_inner().results;
                Ok(results.into_iter().map(|result| (result.status, result.entry)).collect())
            };
            let results = in_batches(&entries, create, unanswered).await?;
            let notes = notes + &advice::notes(channel, stored(&results)).await;
            Ok(Reply { notes, ..reply("create", results, &entries) })
        })
    }

    fn entries(&self) -> Result<Read<Vec<Entry>>, CommandError> {
        if let Some(path) = &self.fields.data {
            return data_file::entries(path);
        }
        if self.node && !self.fields.federates_with.is_empty() {
            return Err(CommandError::Usage("node entries can not federate".to_owned()));
        }
        if !self.node && self.fields.parent_id.is_none() {
            return Err(CommandError::Usage("a parent ID is required if the node flag is not set".to_owned()));
        }
        // A group of devices is served by the server itself.
        let server = || self.fields.spiffe_id.as_ref().map(|id| id.trust_domain().server_id());
        let parent = if self.node { server() } else { self.fields.parent_id.clone() };
        Ok(Read { content: vec![self.fields.entry(&self.entry_id, parent)?], notes: String::new() })
    }
}

/// Replaces entries; what is not given falls back to its default.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server entry update -entryID 2f6e1a0c-8c5e-4f0e-9a57-0d7b7f2f2c11 \\
             -parentID spiffe://example.org/berlin -spiffeID spiffe://example.org/web \\
             -selector unix:user:www")]
pub(in crate::cli) struct Update {
    #[command(flatten)]
    connection: Connection,
    /// ID of the entry to change, as entry show prints it
    #[arg(long = "entryID", value_name = "ENTRY", required_unless_present = "data")]
    entry_id: Option<String>,
    /// Change a SPIFFE ID also if other entries name it as parent: they end with it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    fields: Fields,
}

impl Update {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run_for(patience(self.fields.data.is_some()), async |connection| {
            let Read { content: mut entries, notes } = self.entries()?;
            let channel = connection.open().await?;
            if !self.force {
                self.refuse_orphans(channel.clone(), &entries).await?;
            }
            let mut client = EntryClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
            if let ([entry], None, true) =
                (entries.as_mut_slice(), &self.fields.data, self.fields.attributes(None).is_some())
            {
                // Attributes have no mask of their own: those that were not given must be sent as they are.
                let request = GetEntryRequest { id: entry.id.clone(), output_mask: None };
                let existing = client.get_entry(request).await?.into_inner();
                entry.additional_attributes = self.fields.attributes(existing.additional_attributes);
            }
            let update = async |entries| {
                let request = BatchUpdateEntryRequest { entries, ..BatchUpdateEntryRequest::default() };
                let results = client.batch_update_entry(request).await?.into_inner().results;
                Ok(results.into_iter().map(|result| (result.status, result.entry)).collect())
            };
            let results = in_batches(&entries, update, unanswered).await?;
            let notes = notes + &advice::notes(channel, stored(&results)).await;
            Ok(Reply { notes, ..reply("update", results, &entries) })
        })
    }

    /// A changed SPIFFE ID takes the entries below the old one out of every agent's reach.
    async fn refuse_orphans(&self, channel: Channel, entries: &[Entry]) -> Result<(), CommandError> {
        let new: HashMap<&str, Option<&Spiffeid>> =
            entries.iter().map(|entry| (entry.id.as_str(), entry.spiffe_id.as_ref())).collect();
        let ids = entries.iter().map(|entry| entry.id.clone()).collect();
        let kept = |id: &str, old: &Spiffeid| new.get(id).is_some_and(|new| *new == Some(old));
        advice::refuse_orphans(channel, ids, kept).await
    }

    fn entries(&self) -> Result<Read<Vec<Entry>>, CommandError> {
        match (&self.fields.data, &self.entry_id) {
            (Some(path), _) => data_file::entries(path),
            (None, Some(id)) => {
                let content = vec![self.fields.entry(id, self.fields.parent_id.clone())?];
                Ok(Read { content, notes: String::new() })
            }
            (None, None) => Err(CommandError::Usage("entry ID is required".to_owned())),
        }
    }
}

/// What became of an entry whose request had no answer.
fn unanswered(_: &Entry, status: &tonic::Status) -> (Option<Status>, Option<Entry>) {
    (Some(Status { code: status.code() as i32, message: status.message().to_owned() }), None)
}

/// The entries that are stored now.
fn stored(results: &[(Option<Status>, Option<Entry>)]) -> Vec<Entry> {
    let is_ok = |status: &Option<Status>| status.as_ref().is_none_or(|status| status.code == Code::Ok as i32);
    results.iter().filter(|(status, _)| is_ok(status)).filter_map(|(_, entry)| entry.clone()).collect()
}

/// What became of each entry. Of a refused one the server sends none, or the similar one that is there already:
/// without it, what was asked for is shown.
fn reply(verb: &str, results: Vec<(Option<Status>, Option<Entry>)>, asked: &[Entry]) -> Reply {
    let mut reply = Reply::default();
    let mut json: Vec<Value> = Vec::new();
    for ((status, entry), asked) in results.into_iter().zip(asked) {
        let status = status.unwrap_or_default();
        if status.code == Code::Ok as i32 {
            let entry = entry.unwrap_or_else(|| asked.clone());
            describe(&mut reply.text, &entry);
            json.push(messages::result(Some(&status), "entry", Some(messages::entry(&entry))));
        } else {
            let (code, message) = (code_name(Code::from(status.code)), &status.message);
            writeln!(reply.complaints, "Failed to {verb} the following entry (code: {code}, msg: {message:?}):")
                .expect("writing to a string cannot fail");
            let entry = entry.as_ref().unwrap_or(asked);
            describe(&mut reply.complaints, entry);
            json.push(messages::result(Some(&status), "entry", Some(messages::entry(entry))));
        }
    }
    if !reply.complaints.is_empty() {
        reply.failed = true;
        reply.complaints.push_str(&format!("Error: failed to {verb} one or more entries\n"));
    }
    reply.json = json!({ "results": json });
    reply
}
