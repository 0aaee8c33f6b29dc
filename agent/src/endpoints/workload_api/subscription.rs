//! One open stream: sends its caller's state when that differs from what was sent last.
//!
//! A stream computes its message when the connection has room for it, so a slow reader skips to the newest state and
//! nothing queues up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tonic::Status;
use tracing::info;

use super::{Attested, MessageStream, WorkloadApi};
use crate::endpoints::admission::Slot;
use crate::endpoints::caller::Known;
use crate::identities::{Bundle, Identities, Identity};

/// How often a quiet stream looks at the clock: what counts as now can jump.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// A full-state message.
pub(super) trait Message: Clone + PartialEq + Send + 'static {
    /// What it holds, for the log.
    const NAME: &'static str;

    /// Everything in `all` that whoever owns the identities `theirs` may see.
    fn compose(all: &Identities, own: &Bundle, theirs: &[&Identity]) -> Self;
}

/// See the module.
pub(super) struct Subscription<M> {
    api: WorkloadApi,
    caller: Known,
    attested: Attested,
    identities: watch::Receiver<Arc<Identities>>,
    stopping: watch::Receiver<bool>,
    sent: Option<M>,
    _slot: Slot,
}

impl<M: Message> Subscription<M> {
    /// Composes the first message at once, so that a refusal is the answer to the call itself.
    pub async fn begin(
        api: WorkloadApi,
        caller: Known,
        attested: Attested,
        slot: Slot,
    ) -> Result<MessageStream<M>, Status> {
        let (identities, stopping) = (api.0.identities.clone(), api.0.stopping.clone());
        let mut this = Self { api, caller, attested, identities, stopping, sent: None, _slot: slot };
        let first = this.next().await?;
        let rest = futures_util::stream::unfold(Some(this), |this| async move {
            let mut this = this?;
            match this.next().await {
                Ok(message) => Some((Ok(message), Some(this))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Box::pin(futures_util::StreamExt::chain(futures_util::stream::iter([Ok(first)]), rest)))
    }

    /// Waits for a message that differs from the last. `Err` ends the stream.
    async fn next(&mut self) -> Result<M, Status> {
        loop {
            if *self.stopping.borrow() {
                return Err(shutting_down());
            }
            let suffices = self.attested.suffices_for(&self.identities.borrow());
            if !suffices {
                self.attested = self.api.attest(&self.caller).await?;
            }
            let (message, valid_for) = self.current()?;
            if self.sent.as_ref() != Some(&message) {
                return self.send(message).await;
            }
            tokio::select! {
                published = self.identities.changed() => published.map_err(|_| shutting_down())?,
                _ = self.stopping.changed() => return Err(shutting_down()),
                () = tokio::time::sleep(valid_for.min(MAX_SLEEP)) => {}
            }
        }
    }

    /// Before an update, makes sure that the caller still is who it was, and sends what it may see now.
    async fn send(&mut self, mut message: M) -> Result<M, Status> {
        if self.sent.is_some() {
            self.attested = self.api.attest(&self.caller).await?;
            message = self.current()?.0;
        } else {
            self.record();
        }
        self.sent = Some(message.clone());
        Ok(message)
    }

    fn record(&self) {
        let now = (self.api.0.now)();
        let all = self.identities.borrow();
        let spiffe_ids: Vec<_> =
            all.for_selectors(&self.attested.selectors, now).iter().map(|i| i.spiffe_id().as_str()).collect();
        info!(
            uid = self.caller.peer.uid(),
            pid = self.caller.peer.pid(),
            ?spiffe_ids,
            what = M::NAME,
            "served a workload"
        );
    }

    /// What the caller may see now, and how long nothing of it expires.
    fn current(&mut self) -> Result<(M, Duration), Status> {
        let all = self.identities.borrow_and_update().clone();
        let Some(own) = all.bundle() else {
            return Err(Status::unavailable("the agent is still starting"));
        };
        let now = (self.api.0.now)();
        let theirs = all.for_selectors(&self.attested.selectors, now);
        let Some(expiry) = theirs.iter().map(|identity| identity.not_after_unix()).min() else {
            return Err(match all.is_entitled(&self.attested.selectors) {
                true => Status::unavailable("every identity of this workload has expired and could not be renewed"),
                false => Status::permission_denied("no identity issued"),
            });
        };
        let seconds = u64::try_from(expiry.saturating_sub(now)).unwrap_or(0).max(1);
        Ok((M::compose(&all, own, &theirs), Duration::from_secs(seconds)))
    }
}

fn shutting_down() -> Status {
    Status::unavailable("the agent is shutting down")
}
