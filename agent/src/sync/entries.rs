//! The entries this agent is authorised for: everything at once, or only what changed.

use std::collections::BTreeMap;

use ironroot_api::TrustDomain;
use ironroot_api::issuance_head::HEAD_METADATA;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{EntryRevision, GetAuthorizedEntriesRequest, SyncAuthorizedEntriesRequest};
use ironroot_api::pb::types::{Entry, EntryMask};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Status};
use tracing::warn;

use super::ledger::State;
use super::{Ledger, SyncError};
use crate::server_answers::{AnswerRefusal, EntryFields, EntryTerms, MAX_ENTRIES};
use crate::server_channel::{Channel, MAX_ANSWER_BYTES, RPC_DEADLINE, within};

/// Entries asked for in one message. Source: SPIRE's page size.
const PAGE: usize = 500;
/// Revisions held while a server lists them, some 100 bytes each: when there are more, those go that the agent leaves out
/// anyway. How many it listens to is bounded by the bytes of the call.
const MAX_REVISIONS_HELD: usize = 2 * MAX_ENTRIES;

/// What the server's answer amounts to.
#[derive(Debug, Default)]
pub struct Authorized {
    /// The entries to serve, at most [`MAX_ENTRIES`].
    pub terms: Vec<EntryTerms>,
    /// Those that are not served besides, by ID.
    pub passed_over: BTreeMap<String, State>,
    /// How many more there are that this agent does not take.
    pub left_out: usize,
    /// The head of its issuance log that the server has shown, if it is another one than was kept.
    pub head: Option<Vec<u8>>,
}

/// Asks for the authorised entries; `held` saves asking for those that have not changed. `fields`: what of them. `kept`: the signed head of the server's issuance log
/// that goes along; empty: none.
pub async fn authorized_entries(
    channel: Channel,
    held: &Ledger,
    trust_domain: &TrustDomain,
    fields: EntryFields,
    kept: &[u8],
) -> Result<Authorized, SyncError> {
    let mut client = EntryClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let answer = match within(RPC_DEADLINE * 2, sync(&mut client, held, fields, kept)).await {
        // SPIRE before 1.6 has only the full form.
        Err(status) if status.code() == Code::Unimplemented => Ok(Answer::full(all(&mut client, fields).await?, held)),
        answer => answer,
    }?;
    Ok(answer.authorized(held, trust_domain, fields))
}

/// Whole entries, and the IDs of those that are as we hold them.
#[derive(Debug, Default)]
struct Answer {
    entries: Vec<Entry>,
    unchanged: Vec<String>,
    left_out: usize,
    head: Option<Vec<u8>>,
}

impl Answer {
    fn full(mut entries: Vec<Entry>, held: &Ledger) -> Self {
        let left_out = keep_what_fits(&mut entries, held, |entry| (entry.created_at, entry.id.clone()));
        Self { entries, unchanged: Vec::new(), left_out, head: None }
    }

    /// An entry that breaks the rules is left out with a warning; the others go on.
    fn authorized(self, held: &Ledger, trust_domain: &TrustDomain, fields: EntryFields) -> Authorized {
        let mut terms: Vec<EntryTerms> = self.unchanged.iter().filter_map(|id| held.terms(id)).cloned().collect();
        let (taken, passed_over) = sorted_out(&self.entries, trust_domain, fields);
        terms.extend(taken);
        Authorized { terms, passed_over, left_out: self.left_out, head: self.head }
    }
}

/// What is served of these entries; and the states of those that are not, because they are not for the Workload API, or break the
/// rules, with a warning.
pub(super) fn sorted_out(
    entries: &[Entry],
    trust_domain: &TrustDomain,
    fields: EntryFields,
) -> (Vec<EntryTerms>, BTreeMap<String, State>) {
    let (mut terms, mut passed_over) = (Vec::with_capacity(entries.len()), BTreeMap::new());
    for entry in entries {
        let taken = EntryTerms::from_answer(entry, trust_domain, fields).unwrap_or_else(|refusal| {
            warn!(entry_id = %short(&entry.id), error = %refusal, "an entry that the server sent is refused");
            None
        });
        match taken {
            Some(taken) => terms.push(taken),
            None => _ = passed_over.insert(entry.id.clone(), (entry.revision_number, entry.created_at)),
        }
    }
    (terms, passed_over)
}

/// Leaves [`MAX_ENTRIES`] of `items`: those that are held already, then the oldest; how many went.
fn keep_what_fits<T>(items: &mut Vec<T>, held: &Ledger, age_and_id: impl Fn(&T) -> (i64, String)) -> usize {
    let left_out = items.len().saturating_sub(MAX_ENTRIES);
    if left_out > 0 {
        items.sort_by_cached_key(|item| {
            let (created_at, id) = age_and_id(item);
            (held.terms(&id).is_none(), created_at, id)
        });
        items.truncate(MAX_ENTRIES);
    }
    left_out
}

async fn sync(
    client: &mut EntryClient<Channel>,
    held: &Ledger,
    fields: EntryFields,
    kept: &[u8],
) -> Result<Answer, Status> {
    let (requests, stream) = mpsc::channel(1);
    let ended = |_| Status::unavailable("the server ended the sync");
    let first = SyncAuthorizedEntriesRequest { output_mask: Some(mask(fields)), ids: Vec::new() };
    requests.send(first).await.map_err(ended)?;
    let request = with_head(Request::new(ReceiverStream::new(stream)), kept);
    let answers = client.sync_authorized_entries(request).await?;
    let head = head_in(answers.metadata());
    let mut answers = answers.into_inner();
    let first = answers.message().await?.unwrap_or_default();
    if first.entry_revisions.is_empty() && !first.more {
        return Ok(Answer { head, ..Answer::full(first.entries, held) });
    }
    let mut revisions = Revisions::new(held);
    let mut answer = first;
    loop {
        revisions.add(std::mem::take(&mut answer.entry_revisions));
        if !answer.more {
            break;
        }
        answer = answers.message().await?.ok_or_else(|| Status::unavailable("the server ended the sync"))?;
    }
    let (revisions, left_out) = revisions.that_fit();
    let (unchanged, needed) = compare(revisions, held, fields);
    let mut entries = Vec::with_capacity(needed.len());
    for page in needed.chunks(PAGE) {
        let request = SyncAuthorizedEntriesRequest { output_mask: None, ids: page.to_vec() };
        requests.send(request).await.map_err(ended)?;
        loop {
            // An entry that went meanwhile is silently missing.
            let answer = answers.message().await?.ok_or_else(|| Status::unavailable("the server ended the sync"))?;
            entries.extend(answer.entries);
            check_count(entries.len(), MAX_ENTRIES)?;
            if !answer.more {
                break;
            }
        }
    }
    Ok(Answer { entries, unchanged, left_out, head })
}

/// Those of a server's revisions that the agent goes on with, of however many.
struct Revisions<'a> {
    held: &'a Ledger,
    fit: Vec<EntryRevision>,
    left_out: usize,
}

impl<'a> Revisions<'a> {
    fn new(held: &'a Ledger) -> Self {
        Self { held, fit: Vec::new(), left_out: 0 }
    }

    fn add(&mut self, mut page: Vec<EntryRevision>) {
        self.fit.append(&mut page);
        if self.fit.len() > MAX_REVISIONS_HELD {
            self.cut();
        }
    }

    /// At most [`MAX_ENTRIES`], and how many went.
    fn that_fit(mut self) -> (Vec<EntryRevision>, usize) {
        self.cut();
        (self.fit, self.left_out)
    }

    fn cut(&mut self) {
        let age_and_id = |revision: &EntryRevision| (revision.created_at, revision.id.clone());
        self.left_out += keep_what_fits(&mut self.fit, self.held, age_and_id);
        self.fit.shrink_to(MAX_REVISIONS_HELD);
    }
}

/// What is as we hold it, and what must be asked for, in order and each once.
fn compare(revisions: Vec<EntryRevision>, held: &Ledger, fields: EntryFields) -> (Vec<String>, Vec<String>) {
    let by_id: BTreeMap<String, EntryRevision> = revisions.into_iter().map(|r| (r.id.clone(), r)).collect();
    let is_held = |r: &EntryRevision| {
        held.terms(&r.id).is_some_and(|terms| terms.is_same_version(r.revision_number, r.created_at, fields))
    };
    let (unchanged, needed): (Vec<_>, Vec<_>) = by_id.into_values().partition(is_held);
    let ids = |list: Vec<EntryRevision>| list.into_iter().map(|r| r.id).collect();
    (ids(unchanged), ids(needed))
}

/// `request` with the head that is kept; empty: none.
pub(super) fn with_head<T>(mut request: Request<T>, kept: &[u8]) -> Request<T> {
    request.metadata_mut().insert_bin(HEAD_METADATA, MetadataValue::from_bytes(kept));
    request
}

/// The head that a server has shown. What does not decode is as good as absent: the proof is looked at later.
pub(super) fn head_in(metadata: &MetadataMap) -> Option<Vec<u8>> {
    let head = metadata.get_bin(HEAD_METADATA)?.to_bytes().ok()?;
    Some(head.to_vec()).filter(|head| !head.is_empty())
}

async fn all(client: &mut EntryClient<Channel>, fields: EntryFields) -> Result<Vec<Entry>, Status> {
    let request = GetAuthorizedEntriesRequest { output_mask: Some(mask(fields)) };
    let answer = within(RPC_DEADLINE, client.get_authorized_entries(request)).await?.into_inner();
    Ok(answer.entries)
}

fn check_count(count: usize, limit: usize) -> Result<(), Status> {
    if count <= limit {
        return Ok(());
    }
    let refusal = AnswerRefusal::TooMany { what: "entries", limit };
    Err(Status::resource_exhausted(refusal.to_string()))
}

/// What an agent acts on. The server insists on the revision number.
pub(super) fn mask(fields: EntryFields) -> EntryMask {
    let is_signed = fields == EntryFields::Signed;
    EntryMask {
        spiffe_id: true,
        selectors: true,
        revision_number: true,
        store_svid: true,
        hint: true,
        created_at: true,
        federates_with: true,
        admin: true,
        downstream: true,
        additional_attributes: true,
        dns_names: is_signed,
        x509_svid_ttl: is_signed,
        jwt_svid_ttl: is_signed,
        ..EntryMask::default()
    }
}

fn short(id: &str) -> String {
    id.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests;
