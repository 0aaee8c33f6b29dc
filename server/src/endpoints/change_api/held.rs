//! One held stream: it looks whether anything of the agent's is another than when it last told, and tells.
//!
//! ```text
//!  look: right? ─no─► the reason, and the end        news of the registry, a new bundle, or a while ─► a turn ─► look
//!        └yes─► view and bundle as told? ─no─► the last word read? ─yes─► what has changed since it
//!                                                             └no─► looked at again once it is
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
use super::super::entry_api::SentView;
use super::super::fair_share::Share;
use super::super::roles::Role;
use super::telling::{Look, Telling};
use crate::chance;
use crate::registry::{AuthorizedView, News};
use crate::rights::AuthenticatedAgent;

/// Without news the stream looks again after this time all the same: entries and certificates end without anybody's doing.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// One word to be read, and the last one: who does not read is told no more, and then of all that has changed meanwhile.
const UNREAD: usize = 2;
/// An agent that is told what changes hears this often that nothing has: routers between forget a connection that is silent for five
/// minutes, and neither end would learn of it.
const HEARTBEAT: Duration = Duration::from_secs(240);
/// Heartbeats come earlier or later by up to this share: agents that came together are not told together.
const JITTER: f64 = 0.1;

/// What a stream is held over.
pub(super) struct Line {
    /// When its connection was opened.
    pub opened: Instant,
    /// What has been sent over that.
    pub sent: Arc<SentView>,
    /// Its place among all.
    pub _place: Share<Source>,
}

/// Holds a stream in a task of its own: until the agent hangs up or loses its right, until its connection has reached its age, or the
/// server is `stopping`.
pub(super) fn hold(
    server: Arc<ServerState>,
    agent: AuthenticatedAgent,
    line: Line,
    mut telling: Telling,
    mut stopping: watch::Receiver<bool>,
) -> ReceiverStream<Result<WatchChangesResponse, Status>> {
    let (answers, stream) = mpsc::channel(UNREAD);
    let end = line.opened + Role::Agent.limits().connection_age.unwrap_or_default();
    let held = HeldStream { server, agent, answers, line };
    tokio::spawn(async move {
        tokio::select! {
            status = held.follow(&mut telling) => held.refuse(status),
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
    line: Line,
}

impl HeldStream {
    /// Until the agent may not go on: why.
    async fn follow(&self, telling: &mut Telling) -> Status {
        let mut told = None;
        let mut news = self.server.registry.news();
        let mut bundle = self.server.ca.bundle();
        let mut federated = self.server.federation.changes();
        let (mut foreign, mut beat) = (false, next_beat());
        loop {
            // What comes after this is news, also of what its right depends on.
            foreign |= federated.has_changed().unwrap_or_default();
            federated.borrow_and_update();
            let bundle_now = bundle.borrow_and_update().clone();
            let revision = news.revision();
            let view = self.view(&mut news);
            if let Err(status) = self.server.agent_still_stands(&self.agent) {
                return status;
            }
            self.server.registry.agent_is_heard_of(self.agent.id(), self.server.now_unix());
            let now =
                Look { foreign: foreign && federates(&view), view, bundle: bundle_now, suspected: self.is_suspected() };
            let has_room = self.answers.capacity() == UNREAD;
            if has_room {
                let kept = |name: &[u8]| self.server.pushes.kept(self.agent.id(), name);
                if let Some(mut delta) = telling.of(told.as_ref(), &now, kept, Instant::now() >= beat) {
                    delta.iter_mut().for_each(|it| telling.show_head(it, self.server.heads.newest().as_deref()));
                    let come_back_ms = self.server.pushes.come_back().as_millis() as u32;
                    self.tell(WatchChangesResponse { revision, delta, come_back_ms }, telling, &now);
                    (foreign, beat) = (false, next_beat());
                    told = Some(now);
                }
            }
            let again = Instant::now() + LOOK_AGAIN;
            let again = if has_room && telling.is_of_deltas() { again.min(beat) } else { again };
            tokio::select! {
                () = news.come() => {}
                Ok(()) = bundle.changed() => {}
                Ok(()) = federated.changed() => foreign = true,
                () = tokio::time::sleep_until(again) => {}
                Ok(_) = self.answers.reserve_many(UNREAD), if !has_room => continue,
            }
            self.server.pushes.turn().await;
        }
    }

    fn view(&self, news: &mut News) -> AuthorizedView {
        news.look(&self.server.registry, self.agent.id(), self.server.now_unix())
    }

    fn is_suspected(&self) -> bool {
        let devices = &self.server.devices;
        let device = || self.server.registry.agent(self.agent.id())?.ek_sha256;
        devices.suspects_any() && device().is_some_and(|device| devices.suspects(&device, self.line.opened))
    }

    fn tell(&self, word: WatchChangesResponse, telling: &Telling, now: &Look) {
        // There is room, or the agent has hung up.
        let _ = self.answers.try_send(Ok(word));
        if let Some(mask) = telling.mask() {
            self.line.sent.note(&now.view, Some(mask));
            self.server.pushes.keep(self.agent.id(), now.view.clone());
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

fn next_beat() -> Instant {
    Instant::now() + HEARTBEAT.mul_f64(jittered(chance::unit()))
}

fn jittered(unit: f64) -> f64 {
    1.0 + JITTER * (2.0 * unit - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_come_within_five_minutes_and_not_together() {
        let at = |unit| HEARTBEAT.mul_f64(jittered(unit)).as_secs();
        assert_eq!([at(0.0), at(0.5), at(1.0)], [216, 240, 264]);
    }
}
