//! One held stream: it looks whether anything of the agent's is another than when it last told, and tells.
//!
//! ```text
//!  look: right? ─no─► the reason, and the end        news of the registry, a new bundle, or a while ─► a turn ─► look
//!        └yes─► view and bundle as told? ─no─► the revision
//! ```

use std::sync::Arc;
use std::time::Duration;

use ironroot_api::pb::change::WatchChangesResponse;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::ServerState;
use super::super::caller::Source;
use super::super::fair_share::Share;
use super::super::roles::Role;
use crate::ca::TrustBundle;
use crate::registry::AuthorizedView;
use crate::rights::AuthenticatedAgent;

/// Without news the stream looks again after this time all the same: entries and certificates end without anybody's doing.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// One word to be read, and the last one: who does not read is told no more.
const UNREAD: usize = 2;

/// Holds a stream in a task of its own: until the agent hangs up or loses its right, until its connection, `opened` then, has
/// reached its age, or the server is `stopping`.
pub(super) fn hold(
    server: Arc<ServerState>,
    agent: AuthenticatedAgent,
    place: Share<Source>,
    opened: Instant,
    mut stopping: watch::Receiver<bool>,
) -> ReceiverStream<Result<WatchChangesResponse, Status>> {
    let (answers, stream) = mpsc::channel(UNREAD);
    let end = opened + Role::Agent.limits().connection_age.unwrap_or_default();
    let held = HeldStream { server, agent, answers, opened, _place: place };
    tokio::spawn(async move {
        tokio::select! {
            status = held.follow() => held.refuse(status),
            () = held.answers.closed() => {}
            () = tokio::time::sleep_until(end) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    });
    ReceiverStream::new(stream)
}

struct HeldStream {
    server: Arc<ServerState>,
    agent: AuthenticatedAgent,
    answers: mpsc::Sender<Result<WatchChangesResponse, Status>>,
    opened: Instant,
    _place: Share<Source>,
}

/// What an agent is told of changes to.
struct Told {
    view: AuthorizedView,
    bundle: Arc<TrustBundle>,
    /// Whether its chip is under suspicion and the next call over this connection proves a copy: one that lives is made to ask.
    suspected: bool,
}

impl HeldStream {
    /// Until the agent may not go on: why.
    async fn follow(&self) -> Status {
        let mut told = None;
        loop {
            // Before the look: what comes after it is news.
            let mut news = self.server.registry.news_of(self.agent.id());
            let mut bundle = self.server.ca.bundle();
            let mut federated = self.server.federation.changes();
            if let Err(status) = self.server.agent_still_stands(&self.agent) {
                return status;
            }
            let bundle_now = bundle.borrow_and_update().clone();
            let now = Told { view: self.view(), bundle: bundle_now, suspected: self.is_suspected() };
            if told.as_ref().is_none_or(|told| !now.is_same(told)) {
                self.tell(news.revision());
            }
            told = Some(now);
            tokio::select! {
                () = news.come() => {}
                Ok(()) = bundle.changed() => {}
                Ok(()) = federated.changed() => told = told.filter(|told| !federates(&told.view)),
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            self.server.pushes.turn().await;
        }
    }

    fn view(&self) -> AuthorizedView {
        self.server.registry.authorized_entries(self.agent.id(), self.server.now_unix())
    }

    fn is_suspected(&self) -> bool {
        let devices = &self.server.devices;
        let device = || self.server.registry.agent(self.agent.id())?.ek_sha256;
        devices.suspects_any() && device().is_some_and(|device| devices.suspects(&device, self.opened))
    }

    /// Who has not read the last word yet learns of this change with it.
    fn tell(&self, revision: i64) {
        if self.answers.capacity() == UNREAD {
            // There is room, or the agent has hung up.
            let _ = self.answers.try_send(Ok(WatchChangesResponse { revision }));
        }
    }

    fn refuse(&self, status: Status) {
        // The same: a word leaves room for the last one.
        let _ = self.answers.try_send(Err(status));
    }
}

/// Whether an entry of the view asks for a bundle of another trust domain. It is asked when such a bundle changes, which is rare.
fn federates(view: &AuthorizedView) -> bool {
    view.iter().any(|entry| !entry.entry().federates_with().is_empty())
}

impl Told {
    fn is_same(&self, other: &Self) -> bool {
        let same = self.view.count_same(&other.view);
        let same_view = self.view.len() == same && other.view.len() == same;
        same_view && Arc::ptr_eq(&self.bundle, &other.bundle) && self.suspected == other.suspected
    }
}
