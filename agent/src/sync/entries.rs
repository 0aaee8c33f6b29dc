//! The entries this agent is authorised for: everything at once, or only what changed.

use std::collections::BTreeMap;

use ironroot_api::TrustDomain;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{
    EntryRevision, GetAuthorizedEntriesRequest, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
};
use ironroot_api::pb::types::{Entry, EntryMask};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracing::warn;

use super::{Ledger, SyncError};
use crate::server_answers::{AnswerRefusal, EntryTerms, MAX_ENTRIES};
use crate::server_channel::{Channel, MAX_ANSWER_BYTES, RPC_DEADLINE, within};

/// Entries asked for in one message. Source: SPIRE's page size.
const PAGE: usize = 500;

/// Asks for the authorised entries; `held` saves asking for those that have not changed.
pub async fn authorized_entries(
    channel: Channel,
    held: &Ledger,
    trust_domain: &TrustDomain,
) -> Result<Vec<EntryTerms>, SyncError> {
    let mut client = EntryClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let answer = match within(RPC_DEADLINE * 2, sync(&mut client, held)).await {
        // SPIRE before 1.6 has only the full form.
        Err(status) if status.code() == Code::Unimplemented => Ok(Answer::full(all(&mut client).await?)),
        answer => answer,
    }?;
    Ok(answer.terms(held, trust_domain))
}

/// Whole entries, and the IDs of those that are as we hold them.
#[derive(Debug, Default)]
struct Answer {
    entries: Vec<Entry>,
    unchanged: Vec<String>,
}

impl Answer {
    fn full(entries: Vec<Entry>) -> Self {
        Self { entries, unchanged: Vec::new() }
    }

    /// An entry that breaks the rules is left out with a warning; the others go on.
    fn terms(self, held: &Ledger, trust_domain: &TrustDomain) -> Vec<EntryTerms> {
        let mut terms: Vec<EntryTerms> = self.unchanged.iter().filter_map(|id| held.terms(id)).cloned().collect();
        for entry in &self.entries {
            match EntryTerms::from_answer(entry, trust_domain) {
                Ok(Some(entry)) => terms.push(entry),
                Ok(None) => {}
                Err(refusal) => warn!(entry_id = %short(&entry.id), error = %refusal, "entry refused"),
            }
        }
        terms
    }
}

async fn sync(client: &mut EntryClient<Channel>, held: &Ledger) -> Result<Answer, Status> {
    let (requests, stream) = mpsc::channel(1);
    let ended = |_| Status::unavailable("the server ended the sync");
    let first = SyncAuthorizedEntriesRequest { output_mask: Some(mask()), ids: Vec::new() };
    requests.send(first).await.map_err(ended)?;
    let mut answers = client.sync_authorized_entries(ReceiverStream::new(stream)).await?.into_inner();
    let first = answers.message().await?.unwrap_or_default();
    if first.entry_revisions.is_empty() && !first.more {
        check_count(first.entries.len())?;
        return Ok(Answer::full(first.entries));
    }
    let (unchanged, needed) = compare(revisions(first, &mut answers).await?, held);
    let mut entries = Vec::with_capacity(needed.len());
    for page in needed.chunks(PAGE) {
        let request = SyncAuthorizedEntriesRequest { output_mask: None, ids: page.to_vec() };
        requests.send(request).await.map_err(ended)?;
        loop {
            // An entry that went meanwhile is silently missing.
            let answer = answers.message().await?.ok_or_else(|| Status::unavailable("the server ended the sync"))?;
            entries.extend(answer.entries);
            check_count(entries.len())?;
            if !answer.more {
                break;
            }
        }
    }
    Ok(Answer { entries, unchanged })
}

async fn revisions(
    mut answer: SyncAuthorizedEntriesResponse,
    answers: &mut Streaming<SyncAuthorizedEntriesResponse>,
) -> Result<Vec<EntryRevision>, Status> {
    let mut revisions = Vec::new();
    loop {
        revisions.append(&mut answer.entry_revisions);
        check_count(revisions.len())?;
        if !answer.more {
            return Ok(revisions);
        }
        answer = answers.message().await?.ok_or_else(|| Status::unavailable("the server ended the sync"))?;
    }
}

/// What is as we hold it, and what must be asked for, in order and each once.
fn compare(revisions: Vec<EntryRevision>, held: &Ledger) -> (Vec<String>, Vec<String>) {
    let by_id: BTreeMap<String, EntryRevision> = revisions.into_iter().map(|r| (r.id.clone(), r)).collect();
    let is_held = |r: &EntryRevision| {
        held.terms(&r.id).is_some_and(|terms| terms.is_same_version(r.revision_number, r.created_at))
    };
    let (unchanged, needed): (Vec<_>, Vec<_>) = by_id.into_values().partition(is_held);
    let ids = |list: Vec<EntryRevision>| list.into_iter().map(|r| r.id).collect();
    (ids(unchanged), ids(needed))
}

async fn all(client: &mut EntryClient<Channel>) -> Result<Vec<Entry>, Status> {
    let request = GetAuthorizedEntriesRequest { output_mask: Some(mask()) };
    let answer = within(RPC_DEADLINE, client.get_authorized_entries(request)).await?.into_inner();
    check_count(answer.entries.len())?;
    Ok(answer.entries)
}

fn check_count(count: usize) -> Result<(), Status> {
    if count <= MAX_ENTRIES {
        return Ok(());
    }
    let refusal = AnswerRefusal::TooMany { what: "entries", limit: MAX_ENTRIES };
    Err(Status::resource_exhausted(refusal.to_string()))
}

/// What an agent acts on. The server insists on the revision number.
fn mask() -> EntryMask {
    EntryMask {
        spiffe_id: true,
        selectors: true,
        revision_number: true,
        store_svid: true,
        hint: true,
        created_at: true,
        ..EntryMask::default()
    }
}

fn short(id: &str) -> String {
    id.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironroot_api::pb::types::{Selector, Spiffeid};
    use std::time::Instant;

    fn entry(id: &str, path: &str) -> Entry {
        Entry {
            id: id.to_owned(),
            spiffe_id: Some(Spiffeid { trust_domain: "td".to_owned(), path: path.to_owned() }),
            selectors: vec![Selector { r#type: "unix".to_owned(), value: "uid:1".to_owned() }],
            revision_number: 3,
            created_at: 9,
            ..Entry::default()
        }
    }

    fn terms(entries: Vec<Entry>) -> Vec<String> {
        let trust_domain = TrustDomain::new("td").expect("legal");
        let terms = Answer::full(entries).terms(&Ledger::default(), &trust_domain);
        terms.into_iter().map(|terms| terms.id).collect()
    }

    #[test]
    fn one_broken_entry_does_not_cost_the_others() {
        let with = |change: fn(&mut Entry)| {
            let mut broken = entry("broken", "/b");
            change(&mut broken);
            vec![entry("good", "/a"), broken]
        };
        assert_eq!(terms(with(|_| ())), ["good", "broken"]);
        assert_eq!(terms(with(|e| e.store_svid = true)), ["good"]);
        assert_eq!(terms(with(|e| e.selectors.clear())), ["good"], "would apply to every process");
        assert_eq!(terms(with(|e| e.spiffe_id = None)), ["good"]);
        assert_eq!(terms(with(|e| e.spiffe_id.as_mut().expect("id").trust_domain = "other".into())), ["good"]);
        assert_eq!(terms(with(|e| e.spiffe_id.as_mut().expect("id").path = String::new())), ["good"]);
        assert_eq!(terms(with(|e| e.id = String::new())), ["good"]);
        assert_eq!(terms(with(|e| e.hint = "x".repeat(5000))), ["good"]);
        assert_eq!(terms(with(|e| e.selectors = vec![e.selectors[0].clone(); 1001])), ["good"]);
    }

    #[test]
    fn only_what_changed_or_was_recreated_is_asked_for() {
        let trust_domain = TrustDomain::new("td").expect("legal");
        let held: Vec<_> = ["same", "updated", "recreated", "removed"]
            .map(|id| EntryTerms::from_answer(&entry(id, "/a"), &trust_domain).expect("terms").expect("served"))
            .into();
        let mut ledger = Ledger::default();
        ledger.replace_entries(held, Instant::now());
        let revision =
            |id: &str, revision_number, created_at| EntryRevision { id: id.into(), revision_number, created_at };
        let (unchanged, needed) = compare(
            vec![
                revision("updated", 4, 9),
                revision("same", 3, 9),
                revision("recreated", 3, 10),
                revision("new", 0, 1),
            ],
            &ledger,
        );
        assert_eq!(unchanged, ["same"]);
        assert_eq!(needed, ["new", "recreated", "updated"], "sorted");
    }
}
