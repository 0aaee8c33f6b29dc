//! One open stream: sends what its question sees when that differs from what was sent last.
//!
//! A stream computes its message when the connection has room for it, so a slow reader skips to the newest state and
//! nothing queues up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::{iter, unfold};
use ironroot_shell::telemetry::otlp::SPANS;
use tokio::sync::watch;
use tonic::Status;
use tracing::info;

use super::{Attested, Heard, MessageStream, Question, Seen, Serving};
use crate::endpoints::caller::Known;
use crate::identities::Identities;
use crate::server_answers::EntryKey;
use crate::trusted_time::Jumps;

/// What is missing is mentioned this often: nobody may have had room for the last time.
const MENTION_AGAIN: Duration = Duration::from_secs(60);
/// How long what does not end lasts.
pub(in crate::endpoints) const NEVER: Duration = Duration::MAX;

/// See the module.
pub(in crate::endpoints) struct Subscription<Q: Question> {
    serving: Serving,
    caller: Known,
    attested: Attested,
    identities: watch::Receiver<Arc<Identities>>,
    jumps: Jumps,
    stopping: watch::Receiver<bool>,
    question: Q,
    sent: Option<Q::View>,
    has_answered: bool,
    /// Whether time has passed since the caller was looked at, in which it may have become another.
    is_to_be_seen: bool,
}

impl<Q: Question> Subscription<Q> {
    /// Composes the first message at once, so that a refusal is the answer to the call itself.
    pub async fn begin(
        serving: Serving,
        caller: Known,
        attested: Attested,
        question: Q,
    ) -> Result<MessageStream<Q::Answer>, Status> {
        let mut this = Self::new(serving, caller, attested, question);
        this.ask_for_what_is_missing().await;
        //= WLA-03 SPIFFE Workload API 4.3: "MUST be sent as soon as possible, without delay"
        let first = this.next().await?;
        let rest = if first.is_some() { this.rest() } else { futures_util::stream::empty().boxed() };
        Ok(iter(first.map(Ok)).chain(rest).boxed())
    }

    /// Answers when it is asked: the caller may say on the stream what it wants.
    pub fn open(serving: Serving, caller: Known, attested: Attested, question: Q) -> MessageStream<Q::Answer> {
        Self { is_to_be_seen: true, ..Self::new(serving, caller, attested, question) }.rest()
    }

    fn new(serving: Serving, caller: Known, attested: Attested, question: Q) -> Self {
        let (identities, jumps) = (serving.0.identities.clone(), serving.0.jumps.clone());
        let (stopping, sent) = (serving.0.stopping.clone(), None);
        let (has_answered, is_to_be_seen) = (false, false);
        Self { serving, caller, attested, identities, jumps, stopping, question, sent, has_answered, is_to_be_seen }
    }

    fn rest(self) -> MessageStream<Q::Answer> {
        //= FLT-A8 agent faults: "nothing is queued for it"
        let rest = unfold(Some(self), |this| async move {
            let mut this = this?;
            match this.next().await.transpose()? {
                Ok(message) => Some((Ok(message), Some(this))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Box::pin(rest)
    }

    /// Waits for a message that differs from the last, or is asked for. `None`, or `Err`, ends the stream.
    async fn next(&mut self) -> Result<Option<Q::Answer>, Status> {
        loop {
            if *self.stopping.borrow() {
                return Err(shutting_down());
            }
            let mut valid_for = NEVER;
            if self.question.is_asked() {
                let suffices = self.attested.suffices_for(&self.identities.borrow());
                let (knows_enough, _) = self.question.knows_enough(&self.identities.borrow());
                if !suffices || !knows_enough || self.is_to_be_seen {
                    let before = suffices.then_some(&self.attested);
                    self.attested = self.question.attest(&self.serving, &self.caller, before).await?;
                    self.is_to_be_seen = false;
                }
                let (view, lasts) = self.current()?;
                //= FLT-A23 agent faults: "nothing while its own does not change"
                if !self.sent.as_ref().is_some_and(|sent| self.question.is_same(sent, &view)) {
                    return self.send(view).await.map(Some);
                }
                let longest = if self.mention_what_is_missing() { MENTION_AGAIN } else { NEVER };
                let (_, known_for) = self.question.knows_enough(&self.identities.borrow());
                valid_for = lasts.min(longest).min(self.attested.lasts()).min(known_for);
            }
            tokio::select! {
                published = self.identities.changed() => published.map_err(|_| shutting_down())?,
                _ = self.stopping.changed() => return Err(shutting_down()),
                heard = self.question.heard() => match heard? {
                    Heard::Ended => return Ok(None),
                    Heard::Asked => {
                        self.sent = None;
                        self.ask_for_what_is_missing().await;
                    }
                },
                () = tokio::time::sleep(valid_for) => {}
                () = self.jumps.next() => {}
            }
        }
    }

    /// Before an update, makes sure that the caller still is who it was, and sends what it may see now.
    async fn send(&mut self, mut view: Q::View) -> Result<Q::Answer, Status> {
        if self.has_answered {
            let before = Some(&self.attested);
            self.attested = self.question.attest(&self.serving, &self.caller, before).await?;
            view = self.current()?.0;
        } else {
            self.record(&view);
        }
        self.has_answered = true;
        Ok(self.question.answer(self.sent.insert(view)))
    }

    /// Before the first message: SVIDs of the caller's that are made when somebody asks for them. Only who has nothing yet waits
    /// for them: a server that is slow or away keeps nobody from what is there, and what it signs is published.
    async fn ask_for_what_is_missing(&mut self) {
        if !self.question.wants_svids() {
            return;
        }
        let missing = self.missing();
        let about = self.question.about(&self.attested);
        let has_some = self.identities.borrow().next_end(about, (self.serving.0.now)()).is_some();
        match missing.is_empty() || has_some {
            true => _ = self.mention_what_is_missing(),
            false => self.serving.0.requests.ask(missing).await,
        }
    }

    /// Asks for the same and does not wait; what comes of it is published. Whether something is missing.
    fn mention_what_is_missing(&self) -> bool {
        let missing = if self.question.wants_svids() { self.missing() } else { Vec::new() };
        let is_any = !missing.is_empty();
        if is_any {
            self.serving.0.requests.mention(missing);
        }
        is_any
    }

    fn missing(&self) -> Vec<EntryKey> {
        let all = self.identities.borrow();
        let missing = all.unsigned_for(self.question.about(&self.attested));
        missing
            .into_iter()
            .flat_map(|terms| std::iter::once(terms).chain(all.standbys_of(terms)))
            .map(|terms| terms.key())
            .collect()
    }

    fn record(&self, view: &Q::View) {
        let now = (self.serving.0.now)();
        let all = self.identities.borrow();
        let theirs = all.for_selectors(self.question.about(&self.attested), now);
        let spiffe_ids = self.question.named(view).unwrap_or_else(|| {
            self.serving.hides(&self.caller.peer, self.question.about(&self.attested), Q::METHOD, &all);
            theirs.iter().map(|identity| identity.spiffe_id().as_str()).collect()
        });
        spiffe_ids.iter().for_each(|spiffe_id| info!(target: SPANS, spiffe_id, what = Q::WHAT, "served"));
        let (uid, pid) = (self.caller.peer.uid(), self.caller.peer.pid());
        if let Some(pass) = self.serving.0.admission.should_log_served(uid, Instant::now()) {
            info!(uid, pid, ?spiffe_ids, what = Q::WHAT, suppressed = pass.suppressed, "served a workload");
        }
    }

    /// What may be seen now, and how long nothing of it expires.
    fn current(&mut self) -> Result<(Q::View, Duration), Status> {
        self.identities.mark_unchanged();
        let all = self.serving.started()?;
        let own = all.bundle().ok_or_else(shutting_down)?;
        self.question.view(&Seen {
            serving: &self.serving,
            caller: &self.caller,
            attested: &self.attested,
            about: self.question.about(&self.attested),
            all: &all,
            own,
            now: (self.serving.0.now)(),
            method: Q::METHOD,
        })
    }
}

fn shutting_down() -> Status {
    Status::unavailable("the agent is shutting down")
}
