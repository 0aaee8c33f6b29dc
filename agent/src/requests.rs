//! What workloads may ask of the loop that keeps identities current: things that are made only when they are asked for.
//!
//! ```text
//!  endpoints ──► Requests ──(bounded queue)──► sync ──► published identities; the answer says that it was tried
//! ```
//! The endpoints do not know who answers. Another thing to ask for is a variant of [`Request`], and a file in [`crate::sync`]
//! that answers it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;

use crate::server_answers::EntryKey;
use crate::server_channel::Channel;
use crate::server_number::ServerNumber;

/// Most requests that wait for the loop. Those that come while it works are answered together, so a burst of workloads that
/// start at once fits; who finds it full is served when identities are published.
pub const MAX_WAITING: usize = 256;
/// Longest that a workload waits for an answer: a batch of signatures, and a turn of the loop before it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long, once one server's loop has answered, those of others are waited for: their server may be away and not yet known to be.
const OTHERS_PATIENCE: Duration = Duration::from_secs(2);

/// Something asked for.
#[derive(Debug)]
pub enum Request {
    /// X509-SVIDs of entries whose SVIDs are made on demand.
    X509Svids {
        /// As the server gave them. One that the agent holds no entry for is passed over.
        entry_ids: Vec<String>,
        /// Told when it was tried; what came of it is published.
        tried: oneshot::Sender<()>,
    },
    /// A connection to the server.
    Connection {
        /// Told which; dropped without a word if there is none.
        connected: oneshot::Sender<Channel>,
    },
    /// News of the server: it knows something that this agent does not.
    Refresh,
}

/// The way to ask: a queue for the loop of each server. Clones share it.
#[derive(Clone, Debug)]
pub struct Requests(Arc<[Sender<Request>]>);

impl Requests {
    /// With the end at which they are answered.
    pub fn channel() -> (Self, Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Self(Arc::new([sender])), receiver)
    }

    /// One way to ask for all of these, which are of one server each, in the servers' order.
    pub fn of_all<'a>(each: impl IntoIterator<Item = &'a Self>) -> Self {
        Self(each.into_iter().flat_map(|one| one.0.iter().cloned()).collect())
    }

    /// Asks for the X509-SVIDs of these entries and does not wait.
    pub fn mention(&self, entries: Vec<EntryKey>) {
        // A full queue: the loop is at it, and what it publishes brings the asker back.
        self.send(entries).for_each(drop);
    }

    /// Asks for the X509-SVIDs of these entries, and waits until that was tried, but not for long.
    pub async fn ask(&self, entries: Vec<EntryKey>) {
        let mut tried: FuturesUnordered<_> = self.send(entries).collect();
        // Late, or the loop has ended: what there is is served.
        let _ = tokio::time::timeout(PATIENCE, tried.next()).await;
        let _ = tokio::time::timeout(OTHERS_PATIENCE, tried.for_each(async |_| ())).await;
    }

    /// Asks for a connection to the first of these servers, and waits for it, but not for long. `None`: there is none now.
    pub async fn connection(&self) -> Option<Channel> {
        let (connected, receiver) = oneshot::channel();
        self.0.first()?.try_send(Request::Connection { connected }).ok()?;
        tokio::time::timeout(PATIENCE, receiver).await.ok()?.ok()
    }

    /// Asks that each server be asked for news, and does not wait.
    pub fn refresh(&self) {
        for queue in self.0.iter() {
            // A full queue: the loop is at it.
            let _ = queue.try_send(Request::Refresh);
        }
    }

    /// To each server its own; those that took it will tell when it was tried.
    fn send(&self, entries: Vec<EntryKey>) -> impl Iterator<Item = oneshot::Receiver<()>> {
        self.0.iter().zip(ServerNumber::up_to(self.0.len())).filter_map(move |(queue, server)| {
            let theirs = entries.iter().filter(|entry| entry.server == server);
            let entry_ids: Vec<String> = theirs.map(|entry| entry.id.clone()).collect();
            let (tried, receiver) = oneshot::channel();
            let is_sent = !entry_ids.is_empty() && queue.try_send(Request::X509Svids { entry_ids, tried }).is_ok();
            is_sent.then_some(receiver)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_that_is_full_keeps_nobody_waiting_and_grows_no_further() {
        let (requests, mut waiting) = Requests::channel();
        for _ in 0..2 * MAX_WAITING {
            requests.mention(vec![entry()]);
            requests.refresh();
        }
        requests.ask(vec![entry()]).await;
        assert!(requests.connection().await.is_none());
        let mut count = 0;
        while waiting.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, MAX_WAITING);
        drop(waiting);
        requests.ask(vec![entry()]).await;
        assert!(requests.connection().await.is_none());
    }

    #[tokio::test]
    async fn each_server_is_asked_for_its_own_entries_and_all_for_news() {
        let ((north, mut of_north), (south, mut of_south)) = (Requests::channel(), Requests::channel());
        let both = Requests::of_all([&north, &south]);
        let second = ServerNumber::up_to(2).last().expect("two");
        both.mention(vec![EntryKey { server: second, ..entry() }]);
        both.refresh();
        assert!(matches!(of_north.try_recv(), Ok(Request::Refresh)), "it has no such entry");
        assert!(matches!(of_south.try_recv(), Ok(Request::X509Svids { entry_ids, .. }) if entry_ids == ["e"]));
        assert!(matches!(of_south.try_recv(), Ok(Request::Refresh)));
    }

    #[tokio::test]
    async fn nobody_waits_long_for_a_server_that_hangs_once_another_has_answered() {
        let ((north, mut of_north), (south, _hangs)) = (Requests::channel(), Requests::channel());
        let both = Requests::of_all([&north, &south]);
        tokio::spawn(async move {
            while let Some(Request::X509Svids { tried, .. }) = of_north.recv().await {
                let _ = tried.send(());
            }
        });
        let began = std::time::Instant::now();
        let second = ServerNumber::up_to(2).last().expect("two");
        both.ask(vec![entry(), EntryKey { server: second, ..entry() }]).await;
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    }

    fn entry() -> EntryKey {
        EntryKey { server: ServerNumber::FIRST, id: "e".to_owned() }
    }
}
