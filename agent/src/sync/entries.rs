//! The entries this agent is authorised for: everything at once, or only what changed.

use std::collections::BTreeMap;

use ironroot_api::TrustDomain;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{EntryRevision, GetAuthorizedEntriesRequest, SyncAuthorizedEntriesRequest};
use ironroot_api::pb::types::{Entry, EntryMask};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tracing::warn;

use super::{Ledger, SyncError};
use crate::server_answers::{AnswerRefusal, EntryTerms, MAX_ENTRIES};
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
    /// How many more there are that this agent does not take.
    pub left_out: usize,
    /// Of the entries that came whole: what of them this agent does not deliver.
    pub undelivered: Vec<Undelivered>,
}

/// A wish of an entry that this agent cannot fulfil.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The entry's ID.
    pub entry_id: String,
    /// Its revision.
    pub revision_number: i64,
    /// What is not delivered, for people.
    pub what: &'static str,
}

/// Asks for the authorised entries; `held` saves asking for those that have not changed.
pub async fn authorized_entries(
    channel: Channel,
    held: &Ledger,
    trust_domain: &TrustDomain,
) -> Result<Authorized, SyncError> {
    let mut client = EntryClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let answer = match within(RPC_DEADLINE * 2, sync(&mut client, held)).await {
        // SPIRE before 1.6 has only the full form.
        Err(status) if status.code() == Code::Unimplemented => Ok(Answer::full(all(&mut client).await?, held)),
        answer => answer,
    }?;
    Ok(answer.authorized(held, trust_domain))
}

/// Whole entries, and the IDs of those that are as we hold them.
#[derive(Debug, Default)]
struct Answer {
    entries: Vec<Entry>,
    unchanged: Vec<String>,
    left_out: usize,
}

impl Answer {
    fn full(mut entries: Vec<Entry>, held: &Ledger) -> Self {
        let left_out = keep_what_fits(&mut entries, held, |entry| (entry.created_at, entry.id.clone()));
        Self { entries, unchanged: Vec::new(), left_out }
    }

    /// An entry that breaks the rules is left out with a warning; the others go on.
    fn authorized(self, held: &Ledger, trust_domain: &TrustDomain) -> Authorized {
        let mut terms: Vec<EntryTerms> = self.unchanged.iter().filter_map(|id| held.terms(id)).cloned().collect();
        let mut undelivered = Vec::new();
        for entry in &self.entries {
            match EntryTerms::from_answer(entry, trust_domain) {
                Ok(Some(taken)) => {
                    undelivered.extend(undelivered_of(entry));
                    terms.push(taken);
                }
                Ok(None) => {}
                Err(refusal) => warn!(entry_id = %short(&entry.id), error = %refusal, "entry refused"),
            }
        }
        Authorized { terms, left_out: self.left_out, undelivered }
    }
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

fn undelivered_of(entry: &Entry) -> Vec<Undelivered> {
    let on_demand = entry.additional_attributes.is_some_and(|more| more.disable_x509_svid_prefetch);
    let wishes = [
        (!entry.federates_with.is_empty(), "the bundles of the trust domains it federates with (federates_with)"),
        (on_demand, "an SVID only when it is asked for (disable_x509_svid_prefetch): it is signed at once"),
    ];
    let undelivered = |what| Undelivered { entry_id: entry.id.clone(), revision_number: entry.revision_number, what };
    wishes.into_iter().filter(|(wished, _)| *wished).map(|(_, what)| undelivered(what)).collect()
}

async fn sync(client: &mut EntryClient<Channel>, held: &Ledger) -> Result<Answer, Status> {
    let (requests, stream) = mpsc::channel(1);
    let ended = |_| Status::unavailable("the server ended the sync");
    let first = SyncAuthorizedEntriesRequest { output_mask: Some(mask()), ids: Vec::new() };
    requests.send(first).await.map_err(ended)?;
    let mut answers = client.sync_authorized_entries(ReceiverStream::new(stream)).await?.into_inner();
    let first = answers.message().await?.unwrap_or_default();
    if first.entry_revisions.is_empty() && !first.more {
        return Ok(Answer::full(first.entries, held));
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
    let (unchanged, needed) = compare(revisions, held);
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
    Ok(Answer { entries, unchanged, left_out })
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
fn mask() -> EntryMask {
    EntryMask {
        spiffe_id: true,
        selectors: true,
        revision_number: true,
        store_svid: true,
        hint: true,
        created_at: true,
        federates_with: true,
        additional_attributes: true,
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
        let held = Ledger::default();
        let terms = Answer::full(entries, &held).authorized(&held, &trust_domain).terms;
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

    #[test]
    fn beyond_the_limit_it_goes_on_with_what_it_holds_and_then_the_oldest() {
        let trust_domain = TrustDomain::new("td").expect("legal");
        let aged = |id: String, created_at| Entry { created_at, ..entry(&id, "/a") };
        let mut held = Ledger::default();
        let newest = aged("held".to_owned(), 999_999);
        let terms = EntryTerms::from_answer(&newest, &trust_domain).expect("terms").expect("served");
        held.replace_entries(vec![terms], Instant::now());
        let mut all: Vec<Entry> =
            (0..MAX_ENTRIES as i64 + 1).rev().map(|n| aged(format!("e{n:05}"), 1_000 + n)).collect();
        all.push(newest);
        let answer = Answer::full(all.clone(), &held);
        assert_eq!((answer.entries.len(), answer.left_out), (MAX_ENTRIES, 2));
        let ids: Vec<&str> = answer.entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!((ids[0], ids[1], ids[MAX_ENTRIES - 1]), ("held", "e00000", "e19998"));
        let revision = |e: &Entry| EntryRevision { id: e.id.clone(), revision_number: 3, created_at: e.created_at };
        let mut revisions = Revisions::new(&held);
        all.chunks(PAGE).for_each(|page| revisions.add(page.iter().map(revision).collect()));
        let (fit, left_out) = revisions.that_fit();
        assert_eq!(left_out, 2);
        assert!(fit.iter().map(|revision| revision.id.as_str()).eq(ids), "the same whichever way it is asked");
    }

    #[test]
    fn however_many_revisions_a_server_lists_the_agent_holds_a_bounded_number_and_the_same_ones_stay() {
        let held = Ledger::default();
        let mut revisions = Revisions::new(&held);
        let count = 12 * MAX_ENTRIES as i64;
        for first in (0..count / PAGE as i64).rev().map(|page| page * PAGE as i64) {
            let page = (first..first + PAGE as i64).map(|n| EntryRevision {
                id: format!("e{n:06}"),
                revision_number: 1,
                created_at: n,
            });
            revisions.add(page.collect());
            assert!(revisions.fit.len() <= MAX_REVISIONS_HELD && revisions.fit.capacity() <= 2 * MAX_REVISIONS_HELD);
        }
        let (fit, left_out) = revisions.that_fit();
        assert_eq!((fit.len(), left_out), (MAX_ENTRIES, 11 * MAX_ENTRIES));
        assert!(fit.iter().all(|revision| revision.created_at < MAX_ENTRIES as i64), "the oldest");
    }

    #[test]
    fn what_an_entry_wishes_and_does_not_get_is_told() {
        use ironroot_api::pb::types::entry::AdditionalAttributes;
        let wishes = |change: fn(&mut Entry)| {
            let mut entry = entry("e", "/a");
            change(&mut entry);
            undelivered_of(&entry).len()
        };
        let on_demand = || AdditionalAttributes { disable_x509_svid_prefetch: true, ..Default::default() };
        assert_eq!(wishes(|_| ()), 0);
        assert_eq!(wishes(|e| e.federates_with = vec!["spiffe://friend".to_owned()]), 1);
        assert_eq!(undelivered_of(&Entry { additional_attributes: Some(on_demand()), ..entry("e", "/a") }).len(), 1);
        assert!(mask().federates_with && mask().additional_attributes, "otherwise nobody would know");
    }
}
