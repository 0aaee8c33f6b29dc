//! SyncAuthorizedEntries: the whole list where it is short, revisions and the entries asked for where it is long, or where the
//! connection has had most of it already.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::facts::mask::agent_entry_mask;
use ironroot_api::pb::entry::{EntryRevision, SyncAuthorizedEntriesRequest};
use ironroot_api::pb::entry_encoded::SyncAuthorizedEntriesResponse;
use ironroot_api::pb::types;
use prost::Message;
use prost::bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::super::ServerState;
use super::SentView;
use crate::registry::{AuthorizedEntry, AuthorizedView};
use crate::rights::AuthenticatedAgent;

/// Entries (or revisions) in one message; at or below it the whole list is sent at once. Source: SPIRE's page size.
const PAGE: usize = 500;
/// A page ends with the entry that brings it to this many bytes, and a list with more is not sent at once. With one more entry, of
/// which the largest has a little over 1 MiB, that is below the 4 MiB that SPIRE's agents take.
const PAGE_BYTES: usize = 1024 * 1024;
/// Longest time between two requests of one sync.
const IDLE_DEADLINE: Duration = Duration::from_secs(30);
/// How long an agent may take to read a page before its sync is broken off.
const READ_DEADLINE: Duration = Duration::from_secs(60);

/// The form in which an agent wants its entries.
pub(super) enum Form {
    /// Every field: bytes as stored.
    Whole,
    /// The fields SPIRE's agents ask for: a prefix of the bytes as stored.
    ForAgents,
    /// Any other choice of fields: encoded for this agent.
    Masked(types::EntryMask),
}

impl Form {
    /// `needs_revision`: whether a mask without revision_number is refused, since a sync cannot work without it.
    pub(super) fn of(mask: Option<&types::EntryMask>, needs_revision: bool) -> Result<Self, Status> {
        Ok(match mask {
            None => Self::Whole,
            Some(mask) if needs_revision && !mask.revision_number => {
                return Err(Status::invalid_argument("revision_number cannot be masked"));
            }
            Some(mask) if *mask == agent_entry_mask() => Self::ForAgents,
            Some(mask) => Self::Masked(*mask),
        })
    }

    /// The entries in that form, all in one piece of memory.
    pub(super) fn encode<'e>(&self, entries: impl Iterator<Item = &'e AuthorizedEntry>) -> Vec<Bytes> {
        let mut memory = BytesMut::new();
        entries.map(|entry| self.encode_one(entry, &mut memory)).collect()
    }

    /// The next entries in that form: [`PAGE`] of them, or those that reach [`PAGE_BYTES`].
    fn page<'e>(&self, entries: &mut impl Iterator<Item = &'e AuthorizedEntry>) -> Vec<Bytes> {
        let (mut page, mut bytes, mut memory) = (Vec::new(), 0, BytesMut::new());
        while page.len() < PAGE && bytes < PAGE_BYTES {
            let Some(entry) = entries.next() else { break };
            let encoded = self.encode_one(entry, &mut memory);
            bytes += encoded.len();
            page.push(encoded);
        }
        page
    }

    /// Whether [`page`](Self::page) would hold them all, by their lengths: nothing is encoded.
    fn fits_a_page(&self, view: &AuthorizedView) -> bool {
        let mut bytes = 0;
        let has_room = |entry: &AuthorizedEntry| {
            let before = bytes;
            bytes += self.most_bytes(entry);
            before < PAGE_BYTES
        };
        view.len() <= PAGE && view.iter().all(has_room)
    }

    /// The entry's length in that form; with a choice of fields it may be shorter.
    fn most_bytes(&self, entry: &AuthorizedEntry) -> usize {
        match self {
            Self::Whole | Self::Masked(_) => entry.whole_bytes(),
            Self::ForAgents => entry.for_agents().len(),
        }
    }

    fn encode_one(&self, entry: &AuthorizedEntry, memory: &mut BytesMut) -> Bytes {
        match self {
            Self::Whole => memory.extend_from_slice(&entry.whole()),
            Self::ForAgents => memory.extend_from_slice(entry.for_agents()),
            Self::Masked(mask) => {
                memory.extend_from_slice(&entry.entry().to_pb_masked(Some(mask)).encode_to_vec());
            }
        }
        memory.split().freeze()
    }
}

/// Answers in a task of its own until the agent closes its side.
pub(super) fn converse(
    server: Arc<ServerState>,
    agent: AuthenticatedAgent,
    sent: Arc<SentView>,
    mut asked: Streaming<SyncAuthorizedEntriesRequest>,
) -> ReceiverStream<Result<SyncAuthorizedEntriesResponse, Status>> {
    // A page in flight and one being made: an agent that reads slowly holds up only itself.
    let (answers, stream) = mpsc::channel(2);
    tokio::spawn(async move {
        let conversation = Conversation { server, agent, sent, answers: answers.clone() };
        if let Err(status) = conversation.run(&mut asked).await {
            let _ = answers.send(Err(status)).await;
        }
    });
    ReceiverStream::new(stream)
}

struct Conversation {
    server: Arc<ServerState>,
    agent: AuthenticatedAgent,
    sent: Arc<SentView>,
    answers: mpsc::Sender<Answer>,
}

type Answer = Result<SyncAuthorizedEntriesResponse, Status>;
/// A place for one answer.
type Room<'c> = mpsc::Permit<'c, Answer>;

impl Conversation {
    async fn run(&self, asked: &mut Streaming<SyncAuthorizedEntriesRequest>) -> Result<(), Status> {
        let Some(first) = self.next(asked).await? else { return Ok(()) };
        if !first.ids.is_empty() {
            return Err(Status::invalid_argument("specifying IDs on initial request is not supported"));
        }
        let form = Form::of(first.output_mask.as_ref(), true)?;
        let view = self.server.registry.authorized_entries(self.agent.id(), self.server.now_unix());
        let mask = first.output_mask.as_ref();
        if !self.sent.has_most_of(&view, mask) && self.send_at_once(&view, &form).await? {
            self.sent.note(&view, mask);
            return Ok(());
        }
        self.send_revisions(&view).await?;
        self.sent.note(&view, mask);
        while let Some(request) = self.next(asked).await? {
            self.send_entries(&view, &form, &request.ids).await?;
        }
        Ok(())
    }

    /// The whole list, if one page holds it; false if not. It is made when there is room for it.
    async fn send_at_once(&self, view: &AuthorizedView, form: &Form) -> Result<bool, Status> {
        if !form.fits_a_page(view) {
            return Ok(false);
        }
        let room = self.room().await?;
        room.send(Ok(SyncAuthorizedEntriesResponse { entries: form.encode(view.iter()), ..Default::default() }));
        Ok(true)
    }

    async fn send_revisions(&self, view: &AuthorizedView) -> Result<(), Status> {
        let revisions: Vec<EntryRevision> = view.iter().map(AuthorizedEntry::revision).collect();
        let pages = revisions.chunks(PAGE);
        let last = pages.len().saturating_sub(1);
        for (number, page) in pages.enumerate() {
            let more = number < last;
            self.send(SyncAuthorizedEntriesResponse { entry_revisions: page.to_vec(), more, ..Default::default() })
                .await?;
        }
        Ok(())
    }

    /// Ids the agent may not see, or that are gone, are left out without a word. Each entry is sent once, however often it is asked
    /// for, and no page is made before there is room for it.
    async fn send_entries(&self, view: &AuthorizedView, form: &Form, ids: &[String]) -> Result<(), Status> {
        let mut entries = each_once(view, ids).into_iter().peekable();
        loop {
            let room = self.room().await?;
            let page = form.page(&mut entries);
            let more = entries.peek().is_some();
            room.send(Ok(SyncAuthorizedEntriesResponse { entries: page, more, ..Default::default() }));
            if !more {
                return Ok(());
            }
        }
    }

    /// The next request of an agent that still has the right to ask: it was judged when it opened the stream, and a ban, an
    /// eviction, a newer certificate or the end of this one may have come since.
    async fn next(
        &self,
        asked: &mut Streaming<SyncAuthorizedEntriesRequest>,
    ) -> Result<Option<SyncAuthorizedEntriesRequest>, Status> {
        let message = tokio::time::timeout(IDLE_DEADLINE, asked.message()).await;
        let message = message.map_err(|_| Status::deadline_exceeded("no request for too long"))??;
        self.server.agent_still_stands(&self.agent)?;
        Ok(message)
    }

    async fn send(&self, answer: SyncAuthorizedEntriesResponse) -> Result<(), Status> {
        self.room().await?.send(Ok(answer));
        Ok(())
    }

    /// Waits for room, and then looks once more whether the agent may have it.
    async fn room(&self) -> Result<Room<'_>, Status> {
        let room = tokio::time::timeout(READ_DEADLINE, self.answers.reserve()).await;
        let room = room.map_err(|_| Status::deadline_exceeded("the answer was not read in time"))?;
        let room = room.map_err(|_| Status::cancelled("agent hung up"))?;
        self.server.agent_still_stands(&self.agent)?;
        Ok(room)
    }
}

/// What `view` has of `ids`, in their order.
fn each_once<'v>(view: &'v AuthorizedView, ids: &[String]) -> Vec<&'v AuthorizedEntry> {
    let mut seen = HashSet::new();
    ids.iter().filter(|id| seen.insert(*id)).filter_map(|id| view.find(id)).collect()
}

#[cfg(test)]
mod tests {
    use ironroot_api::unix_socket::PeerCredentials;
    use ironroot_api::{SpiffeId, TrustDomain};

    use super::*;
    use crate::facts::agent::AgentRecord;
    use crate::registry::Registry;
    use crate::rights::Administrator;
    use crate::store::Store;

    /// An entry of a little more than `bytes` without its parent, in selectors of 4000 bytes.
    fn entry(parent: &SpiffeId, number: usize, bytes: usize) -> types::Entry {
        let selector = |n: usize| types::Selector { r#type: "unix".into(), value: format!("gid:{n:0>4000}") };
        types::Entry {
            parent_id: Some(parent.to_pb()),
            spiffe_id: Some(types::Spiffeid { trust_domain: "td".into(), path: format!("/w/{number}") }),
            selectors: (0..=bytes / 4000).map(selector).collect(),
            dns_names: vec![format!("host-{number}.example")],
            ..types::Entry::default()
        }
    }

    #[tokio::test]
    async fn whether_a_page_holds_a_list_is_known_by_its_lengths_before_anything_is_encoded() {
        let (directory, td) = (tempfile::tempdir().expect("directory"), TrustDomain::new("td").expect("legal"));
        let store = Store::open(&directory.path().join("datastore.sqlite3"), &td).expect("opens");
        let agent = AgentRecord::example("a");
        let id = agent.spiffe_id.clone();
        store.change(move |tx| tx.put_agent(&agent)).await.map(drop).expect("stored");
        let registry = Registry::load(store).await.expect("loads");
        let by = Administrator::local(PeerCredentials { pid: 1, uid: 0, gid: 0 });
        let revision = types::EntryMask { revision_number: true, ..types::EntryMask::default() };
        let (mut held, mut not_held) = (0, 0);
        for (number, bytes) in [10, 300_000, 300_000, 300_000, 140_000, 300_000].into_iter().enumerate() {
            registry.create_entry(&by, &entry(&id, number, bytes), 0).await.answer().await.expect("created");
            let view = registry.authorized_entries(&id, 0);
            assert_eq!(view.len(), number + 1);
            assert!(view.iter().all(|entry| entry.whole_bytes() == entry.whole().len()));
            for form in [Form::Whole, Form::ForAgents] {
                let holds = form.page(&mut view.iter()).len() == view.len();
                assert_eq!(form.fits_a_page(&view), holds, "{} entries", view.len());
                *(if holds { &mut held } else { &mut not_held }) += 1;
            }
            let masked = Form::Masked(revision);
            assert!(!masked.fits_a_page(&view) || masked.page(&mut view.iter()).len() == view.len());
        }
        assert!(held > 0 && not_held > 0, "{held}, {not_held}");
    }
}
