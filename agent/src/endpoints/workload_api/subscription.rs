//! One open stream: sends its caller's state when that differs from what was sent last.
//!
//! A stream computes its message when the connection has room for it, so a slow reader skips to the newest state and
//! nothing queues up.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tonic::Status;
use tracing::{info, warn};

use super::message::Message;
use super::view::View;
use super::{Attested, MessageStream, WorkloadApi};
use crate::endpoints::admission::About;
use crate::endpoints::caller::Known;
use crate::identities::Identities;

/// How often a quiet stream looks at the clock: what counts as now can jump.
const MAX_SLEEP: Duration = Duration::from_secs(60);
/// The answer to a workload whose SVID is made on demand, and could not be yet.
const NOT_SIGNED_YET: &str = "the SVID of this workload is made when it is asked for, and could not be signed yet";

/// See the module.
pub(super) struct Subscription<M> {
    api: WorkloadApi,
    caller: Known,
    attested: Attested,
    identities: watch::Receiver<Arc<Identities>>,
    stopping: watch::Receiver<bool>,
    sent: Option<View>,
    message: PhantomData<M>,
}

impl<M: Message> Subscription<M> {
    /// Composes the first message at once, so that a refusal is the answer to the call itself.
    pub async fn begin(api: WorkloadApi, caller: Known, attested: Attested) -> Result<MessageStream<M>, Status> {
        let (identities, stopping) = (api.0.identities.clone(), api.0.stopping.clone());
        let mut this = Self { api, caller, attested, identities, stopping, sent: None, message: PhantomData };
        this.ask_for_what_is_missing().await;
        //= WLA-03 SPIFFE Workload API 4.3: "MUST be sent as soon as possible, without delay"
        let first = this.next().await?;
        //= FLT-A8 agent faults: "nothing is queued for it"
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
            let (view, valid_for) = self.current()?;
            //= FLT-A23 agent faults: "nothing while its own does not change"
            if !self.sent.as_ref().is_some_and(|sent| M::is_same(sent, &view)) {
                return self.send(view).await;
            }
            self.mention_what_is_missing();
            tokio::select! {
                published = self.identities.changed() => published.map_err(|_| shutting_down())?,
                _ = self.stopping.changed() => return Err(shutting_down()),
                () = tokio::time::sleep(valid_for.min(MAX_SLEEP)) => {}
            }
        }
    }

    /// Before an update, makes sure that the caller still is who it was, and sends what it may see now.
    async fn send(&mut self, mut view: View) -> Result<M, Status> {
        if self.sent.is_some() {
            self.attested = self.api.attest_again(&self.caller, &self.attested).await?;
            view = self.current()?.0;
        } else {
            self.record();
        }
        Ok(M::compose(self.sent.insert(view)))
    }

    /// Before the first message: SVIDs of the caller's that are made when somebody asks for them. Only who has nothing yet waits
    /// for them: a server that is slow or away keeps nobody from what is there, and what it signs is published.
    async fn ask_for_what_is_missing(&self) {
        if !M::NEEDS_X509_SVID {
            return;
        }
        let missing = self.missing();
        let has_some = self.identities.borrow().next_end(&self.attested.selectors, (self.api.0.now)()).is_some();
        match missing.is_empty() || has_some {
            true => self.mention_what_is_missing(),
            false => self.api.0.requests.ask(missing).await,
        }
    }

    /// Asks for the same and does not wait; what comes of it is published.
    fn mention_what_is_missing(&self) {
        let missing = if M::NEEDS_X509_SVID { self.missing() } else { Vec::new() };
        if !missing.is_empty() {
            self.api.0.requests.mention(missing);
        }
    }

    fn missing(&self) -> Vec<String> {
        let all = self.identities.borrow();
        all.unsigned_for(&self.attested.selectors).into_iter().map(|terms| terms.id.clone()).collect()
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
    fn current(&mut self) -> Result<(View, Duration), Status> {
        let all = self.identities.borrow_and_update().clone();
        let Some(own) = all.bundle().cloned() else {
            //= WLE-07 SPIFFE Workload Endpoint 6: "if it is still initializing or it is performing load shedding"
            return Err(Status::unavailable("the agent is still starting"));
        };
        let now = (self.api.0.now)();
        let theirs: Vec<_> = all.for_selectors(&self.attested.selectors, now).into_iter().cloned().collect();
        let valid_for = if M::NEEDS_X509_SVID { self.svids_last(&all, now)? } else { self.entries_last(&all)? };
        //= WLA-02 SPIFFE Workload API 4.3: "MUST include the full set of information"
        Ok((View::of(&all, own, theirs), valid_for))
    }

    /// How long no X509-SVID of the caller's ends; `Err` if it has none.
    fn svids_last(&self, all: &Identities, now: i64) -> Result<Duration, Status> {
        let Some(expiry) = all.next_end(&self.attested.selectors, now) else {
            return Err(match all.is_entitled(&self.attested.selectors) {
                true => self.all_expired(),
                false if !all.unsigned_for(&self.attested.selectors).is_empty() => Status::unavailable(NOT_SIGNED_YET),
                false => self.no_identity(all),
            });
        };
        let seconds = u64::try_from(expiry.saturating_sub(now)).unwrap_or(0).max(1);
        Ok(Duration::from_secs(seconds))
    }

    /// The same of an entry, which does not end by itself.
    fn entries_last(&self, all: &Identities) -> Result<Duration, Status> {
        match all.entries_for(&self.attested.selectors).is_empty() {
            true => Err(self.no_identity(all)),
            false => Ok(MAX_SLEEP),
        }
    }

    fn no_identity(&self, all: &Identities) -> Status {
        self.api.no_identity(&self.caller.peer, &self.attested.selectors, M::METHOD, all)
    }

    fn all_expired(&self) -> Status {
        let text = "every identity of this workload has expired and could not be renewed";
        let (uid, pid) = (self.caller.peer.uid(), self.caller.peer.pid());
        if let Some(pass) = self.api.0.admission.should_log(uid, About::Expired, Instant::now()) {
            warn!(uid, pid, method = M::METHOD, suppressed = pass.suppressed, "{text}");
        }
        Status::unavailable(text)
    }
}

fn shutting_down() -> Status {
    Status::unavailable("the agent is shutting down")
}
