//! What the server knows of entries, said beside the answer; and what would end with them, asked before it is too late.

use std::fmt::Write;

use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::device::{AdviseOnEntriesRequest, CountDependentsRequest};
use ironroot_api::pb::types::{Entry, Spiffeid};
use ironroot_shell::command_line::{CommandError, Shown, shown};
use tonic::Code;
use tonic::transport::Channel;

/// Longest question sent and answer taken, bytes: a batch of 10,000 entries.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// Most entries asked of at once: the server's own bound.
const AT_ONCE: usize = 10_000;
/// Most lines said of one command; more are a list that nobody reads.
const MAX_LINES: usize = 50;

/// What is to be said of `entries`, lines for standard error; nothing where the server does not know (SPIRE's).
pub(super) async fn notes(channel: Channel, entries: Vec<Entry>) -> String {
    let names: Vec<Shown> = entries.iter().map(|entry| shown(id(entry.spiffe_id.as_ref()))).collect();
    let mut advice = Vec::new();
    for entries in entries.chunks(AT_ONCE) {
        let request = AdviseOnEntriesRequest { entries: entries.to_vec() };
        let Ok(answer) = client(channel.clone()).advise_on_entries(request).await else { break };
        advice.extend(answer.into_inner().advice);
    }
    let mut lines = Vec::new();
    for (name, advice) in names.iter().zip(advice) {
        lines.extend(advice.warnings.iter().map(|told| format!("Warning: {name}: {}\n", shown(told))));
        lines.extend(advice.notes.iter().map(|told| format!("Note: {name}: {}\n", shown(told))));
    }
    let more = lines.len().saturating_sub(MAX_LINES);
    lines.truncate(MAX_LINES);
    let mut text = lines.concat();
    if more > 0 {
        writeln!(text, "and {more} lines more").expect("writing to a string cannot fail");
    }
    text
}

/// Refuses if other entries name the SPIFFE IDs of the entries `ids` as parent. `kept` tells of an entry's SPIFFE ID whether it
/// stays what it is.
pub(super) async fn refuse_orphans(
    channel: Channel,
    ids: Vec<String>,
    kept: impl Fn(&str, &Spiffeid) -> bool,
) -> Result<(), CommandError> {
    let mut all = Vec::new();
    for ids in ids.chunks(AT_ONCE) {
        match client(channel.clone()).count_dependents(CountDependentsRequest { ids: ids.to_vec() }).await {
            Ok(answer) => all.extend(answer.into_inner().dependents),
            // SPIRE's server does not know the question.
            Err(status) if status.code() == Code::Unimplemented => return Ok(()),
            Err(status) => return Err(status.into()),
        }
    }
    let mut ends = Vec::new();
    for dependents in all.into_iter().filter(|dependents| dependents.entries > 0) {
        let Some(spiffe_id) = dependents.spiffe_id.filter(|spiffe_id| !kept(&dependents.id, spiffe_id)) else {
            continue;
        };
        let (verb, its) = if dependents.entries == 1 { ("entry names", "ends") } else { ("entries name", "end") };
        let still = if dependents.given_by_others { " where no other entry gives that ID" } else { "" };
        ends.push(format!(
            "{} {verb} {} as parent and {its} with it{still}",
            dependents.entries,
            shown(id(Some(&spiffe_id)))
        ));
    }
    if ends.is_empty() {
        return Ok(());
    }
    ends.truncate(MAX_LINES);
    Err(CommandError::Usage(format!("{}: nothing was changed; give -force to do it all the same", ends.join("; "))))
}

fn client(channel: Channel) -> DeviceClient<Channel> {
    let client = DeviceClient::new(channel);
    client.max_encoding_message_size(MAX_MESSAGE_BYTES).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

fn id(id: Option<&Spiffeid>) -> String {
    id.map(|id| format!("spiffe://{}{}", id.trust_domain, id.path)).unwrap_or_default()
}
