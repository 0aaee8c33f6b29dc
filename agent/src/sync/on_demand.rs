//! Requests of workloads, answered: SVIDs that are made only when they are asked for.

use std::time::Instant;

use tokio::sync::oneshot;

use super::wake::Wakes;
use super::{SyncError, Synchronizer};
use crate::requests::Request;

impl Synchronizer {
    /// Does what `first` asks for, and all that wait behind it, in one batch. While the server is away it is only noted: the
    /// next turn does it, and no workload can make this agent dial.
    pub(super) async fn answer(&mut self, first: Request, wakes: &mut Wakes) -> Result<(), SyncError> {
        let now = Instant::now();
        let mut tried: Vec<oneshot::Sender<()>> = Vec::new();
        for Request::X509Svids { entry_ids, tried: reply } in std::iter::once(first).chain(wakes.waiting_requests()) {
            self.ledger.ask(&entry_ids, now);
            tried.push(reply);
        }
        let outcome = if self.failures == 0 { self.sign_only().await } else { Ok(()) };
        for reply in tried {
            // Who does not wait any more sees what is published.
            let _ = reply.send(());
        }
        outcome
    }
}
