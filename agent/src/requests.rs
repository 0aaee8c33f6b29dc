//! What workloads may ask of the loop that keeps identities current: things that are made only when they are asked for.
//!
//! ```text
//!  endpoints ──► Requests ──(bounded queue)──► sync ──► published identities; the answer says that it was tried
//! ```
//! The endpoints do not know who answers. Another thing to ask for is a variant of [`Request`], and a file in [`crate::sync`]
//! that answers it.

use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;

use crate::server_channel::Channel;

/// Most requests that wait for the loop. Those that come while it works are answered together, so a burst of workloads that
/// start at once fits; who finds it full is served when identities are published.
pub const MAX_WAITING: usize = 256;
/// Longest that a workload waits for an answer: a batch of signatures, and a turn of the loop before it.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// The way to ask. Clones share it.
#[derive(Clone, Debug)]
pub struct Requests(Sender<Request>);

impl Requests {
    /// With the end at which they are answered.
    pub fn channel() -> (Self, Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Self(sender), receiver)
    }

    /// Asks for the X509-SVIDs of these entries and does not wait.
    pub fn mention(&self, entry_ids: Vec<String>) {
        // A full queue: the loop is at it, and what it publishes brings the asker back.
        let _ = self.send(entry_ids);
    }

    /// Asks for the X509-SVIDs of these entries, and waits until that was tried, but not for long.
    pub async fn ask(&self, entry_ids: Vec<String>) {
        if let Some(tried) = self.send(entry_ids) {
            // Late, or the loop has ended: what there is is served.
            let _ = tokio::time::timeout(PATIENCE, tried).await;
        }
    }

    /// Asks for a connection to the server, and waits for it, but not for long. `None`: there is none now.
    pub async fn connection(&self) -> Option<Channel> {
        let (connected, receiver) = oneshot::channel();
        self.0.try_send(Request::Connection { connected }).ok()?;
        tokio::time::timeout(PATIENCE, receiver).await.ok()?.ok()
    }

    /// Asks that the server be asked for news, and does not wait.
    pub fn refresh(&self) {
        // A full queue: the loop is at it.
        let _ = self.0.try_send(Request::Refresh);
    }

    fn send(&self, entry_ids: Vec<String>) -> Option<oneshot::Receiver<()>> {
        let (tried, receiver) = oneshot::channel();
        self.0.try_send(Request::X509Svids { entry_ids, tried }).ok().map(|()| receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_that_is_full_keeps_nobody_waiting_and_grows_no_further() {
        let (requests, mut waiting) = Requests::channel();
        for _ in 0..2 * MAX_WAITING {
            requests.mention(vec!["e".to_owned()]);
            requests.refresh();
        }
        requests.ask(vec!["e".to_owned()]).await;
        assert!(requests.connection().await.is_none());
        let mut count = 0;
        while waiting.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, MAX_WAITING);
        drop(waiting);
        requests.ask(vec!["e".to_owned()]).await;
        assert!(requests.connection().await.is_none());
    }
}
