//! `entry show` and `entry count`.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::SpiffeId;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{
    CountEntriesRequest, GetEntryRequest, ListEntriesRequest, count_entries_request, list_entries_request,
};
use ironroot_api::pb::types;
use ironroot_attest::Selector;
use ironroot_shell::command_line::{CommandError, Output, Reply};
use prost::Message;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::selection::{federates_with, selector_match};
use super::show_text::describe;
use crate::cli::connection::Connection;
use crate::cli::messages;
use ironroot_shell::command_line::{counted, table};

/// Entries asked for at once.
const PAGE_SIZE: i32 = 500;
/// Longest answer accepted, bytes: a page of entries with thousands of selectors each.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

#[derive(Debug, Args)]
struct Filter {
    /// Entries under this parent
    #[arg(long = "parentID", value_name = "ID")]
    parent_id: Option<SpiffeId>,
    /// Entries for this SPIFFE ID
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
    /// A selector as type:value; repeat for more
    #[arg(long, value_name = "TYPE:VALUE")]
    selector: Vec<Selector>,
    /// How their selectors compare with the given ones: exact, any, superset or subset
    #[arg(long = "matchSelectorsOn", value_name = "MODE", default_value = "superset")]
    match_selectors_on: String,
    /// A trust domain they federate with; repeat for more
    #[arg(long = "federatesWith", value_name = "TRUST_DOMAIN")]
    federates_with: Vec<String>,
    /// How their trust domains compare with the given ones
    #[arg(long = "matchFederatesWithOn", value_name = "MODE", default_value = "superset")]
    match_federates_with_on: String,
    /// Only entries of downstream servers
    #[arg(long)]
    downstream: bool,
    /// Entries with this hint
    #[arg(long, value_name = "HINT")]
    hint: Option<String>,
}

impl Filter {
    fn to_list_filter(&self) -> Result<list_entries_request::Filter, CommandError> {
        Ok(list_entries_request::Filter {
            by_spiffe_id: self.spiffe_id.as_ref().map(SpiffeId::to_pb),
            by_parent_id: self.parent_id.as_ref().map(SpiffeId::to_pb),
            by_selectors: selector_match(&self.selector, &self.match_selectors_on)?,
            by_federates_with: federates_with(&self.federates_with, &self.match_federates_with_on)?,
            by_hint: self.hint.clone(),
            by_downstream: self.downstream.then_some(true),
        })
    }

    fn to_count_filter(&self) -> Result<count_entries_request::Filter, CommandError> {
        let filter = self.to_list_filter()?;
        Ok(count_entries_request::Filter {
            by_spiffe_id: filter.by_spiffe_id,
            by_parent_id: filter.by_parent_id,
            by_selectors: filter.by_selectors,
            by_federates_with: filter.by_federates_with,
            by_hint: filter.by_hint,
            by_downstream: filter.by_downstream,
        })
    }

    fn is_empty(&self) -> bool {
        self.parent_id.is_none() && self.spiffe_id.is_none() && self.selector.is_empty()
    }
}

/// Shows entries.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server entry show -selector unix:user:web
Example: ironroot-server entry show -entryID 2f6e1a0c-8c5e-4f0e-9a57-0d7b7f2f2c11 -output json")]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    connection: Connection,
    /// The entry with this ID; not together with other filters
    #[arg(long = "entryID", value_name = "ENTRY")]
    entry_id: Option<String>,
    #[command(flatten)]
    filter: Filter,
}

impl Show {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            if self.entry_id.is_some() && !self.filter.is_empty() {
                let reason = "the -entryID flag can't be combined with others";
                return Err(CommandError::Usage(reason.to_owned()));
            }
            let mut client = EntryClient::new(connection.open().await?).max_decoding_message_size(MAX_ANSWER_BYTES);
            let entries = match &self.entry_id {
                Some(id) => {
                    let request = GetEntryRequest { id: id.clone(), output_mask: None };
                    vec![client.get_entry(request).await?.into_inner().encode_to_vec()]
                }
                None => list(&mut client, self.filter.to_list_filter()?).await?,
            };
            Ok(match connection.output() {
                Output::Pretty if self.entry_id.is_none() && std::io::stdout().is_terminal() => {
                    Reply::new(Value::Null, as_table(&entries))
                }
                Output::Pretty => Reply::new(Value::Null, text(&entries)),
                Output::Json => Reply { json_text: Some(json_text(&entries)), ..Reply::default() },
            })
        })
    }
}

/// An entry as it came: a fifth of what it takes decoded. Of a hundred thousand one at a time is more.
type Encoded = Vec<u8>;

fn decoded(entry: &Encoded) -> types::Entry {
    types::Entry::decode(&entry[..]).expect("it was encoded here")
}

fn text(entries: &[Encoded]) -> String {
    let mut text = format!("Found {}\n", counted(entries.len(), "entry", "entries"));
    entries.iter().for_each(|entry| describe(&mut text, &decoded(entry)));
    text
}

/// For people at a terminal; pipes get SPIRE's lines.
fn as_table(entries: &[Encoded]) -> String {
    let id = |id: Option<types::Spiffeid>| {
        id.map(|id| format!("spiffe://{}{}", id.trust_domain, id.path)).unwrap_or_default()
    };
    let row = |entry: types::Entry| {
        let selectors: Vec<String> = entry.selectors.iter().map(|s| format!("{}:{}", s.r#type, s.value)).collect();
        [id(entry.spiffe_id), id(entry.parent_id), selectors.join(" "), entry.id]
    };
    let rows: Vec<_> = entries.iter().map(decoded).map(row).collect();
    table(&["SPIFFE ID", "PARENT", "SELECTORS", "ENTRY ID"], &rows)
}

fn json_text(entries: &[Encoded]) -> String {
    let mut text = String::from(r#"{"entries":["#);
    for (number, entry) in entries.iter().enumerate() {
        text.push_str(if number == 0 { "" } else { "," });
        text.push_str(&messages::entry(&decoded(entry)).to_string());
    }
    text.push_str(r#"],"next_page_token":""}"#);
    text
}

/// Counts entries.
#[derive(Debug, Args)]
#[command(after_help = "Example: ironroot-server entry count -parentID spiffe://example.org/berlin")]
pub(in crate::cli) struct Count {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    filter: Filter,
}

impl Count {
    pub(super) fn execute(self) -> ExitCode {
        self.connection.run(async |connection| {
            let request = CountEntriesRequest { filter: Some(self.filter.to_count_filter()?) };
            let count = EntryClient::new(connection.open().await?).count_entries(request).await?.into_inner().count;
            let shown = counted(usize::try_from(count).unwrap_or(0), "registration entry", "registration entries");
            Ok(Reply::new(json!({ "count": count }), format!("{shown}\n")))
        })
    }
}

/// All pages, in the order SPIRE shows entries: by SPIFFE ID, then parent.
async fn list(
    client: &mut EntryClient<Channel>,
    filter: list_entries_request::Filter,
) -> Result<Vec<Encoded>, CommandError> {
    let mut request =
        ListEntriesRequest { filter: Some(filter), page_size: PAGE_SIZE, ..ListEntriesRequest::default() };
    let mut entries = Vec::new();
    loop {
        let page = client.list_entries(request.clone()).await?.into_inner();
        entries.extend(page.entries.iter().map(Message::encode_to_vec));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    entries.sort_by_cached_key(|encoded| {
        let types::Entry { id, spiffe_id, parent_id, .. } = decoded(encoded);
        let text = |id: Option<types::Spiffeid>| id.map(|id| (id.trust_domain, id.path));
        (text(spiffe_id), text(parent_id), id)
    });
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_in_json_is_one_value_with_every_entry() {
        let entries: Vec<types::Entry> =
            ["a", "b"].map(|id| types::Entry { id: id.into(), hint: "\"\n".into(), ..Default::default() }).into();
        for count in 0..=2 {
            let encoded: Vec<Encoded> = entries[..count].iter().map(Message::encode_to_vec).collect();
            let shown: Value = serde_json::from_str(&json_text(&encoded)).expect("JSON");
            let expected = entries[..count].iter().map(messages::entry).collect::<Value>();
            assert_eq!(shown, json!({ "entries": expected, "next_page_token": "" }));
        }
    }
}
