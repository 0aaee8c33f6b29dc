//! Requests of workloads, answered: SVIDs that are made only when they are asked for, and the connection over which they are.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::wake::Wakes;
use super::{SyncError, Synchronizer};
use crate::requests::Request;
use crate::server_channel::Channel;

/// Polls that workloads bring about are at least this far apart.
pub(super) const REFRESH_SPACING: Duration = Duration::from_secs(10);

impl Synchronizer {
    /// Does what `first` asks for, and all that wait behind it, in one batch. While the server is away it is only noted, or
    /// signed by the agent's own CA: the next turn does it, and no workload can make this agent dial.
    pub(super) async fn answer(&mut self, first: Request, wakes: &mut Wakes) -> Result<(), SyncError> {
        let now = Instant::now();
        let (mut tried, mut waiting): (Vec<oneshot::Sender<()>>, Vec<oneshot::Sender<Channel>>) = Default::default();
        for request in std::iter::once(first).chain(wakes.waiting_requests()) {
            match request {
                Request::X509Svids { entry_ids, tried: reply } => {
                    self.ledger.ask(&entry_ids, now);
                    tried.push(reply);
                }
                Request::Connection { connected } => waiting.push(connected),
                Request::Refresh => self.refresh_soon(now),
            }
        }
        let outcome = if self.failures == 0 { self.sign_only().await } else { Ok(()) };
        self.mint_while_away().await;
        for reply in tried {
            // Who does not wait any more sees what is published.
            let _ = reply.send(());
        }
        outcome?;
        self.connect_those_who_wait(waiting).await
    }

    async fn connect_those_who_wait(&mut self, waiting: Vec<oneshot::Sender<Channel>>) -> Result<(), SyncError> {
        if waiting.is_empty() || self.failures > 0 {
            return Ok(());
        }
        let channel = self.trusted_channel().await?;
        for reply in waiting {
            // Who does not wait any more asks again.
            let _ = reply.send(channel.clone());
        }
        Ok(())
    }

    /// The server is asked soon, but workloads cannot make this agent ask often.
    fn refresh_soon(&mut self, now: Instant) {
        if self.failures == 0 && self.refreshed.is_none_or(|at| now.saturating_duration_since(at) >= REFRESH_SPACING) {
            self.refreshed = Some(now);
            self.next_poll = self.next_poll.min(now);
        }
    }
}
