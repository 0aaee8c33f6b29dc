//! The server's word that something has changed, and what, where the server gives it. Then it is asked more rarely.
//!
//! ```text
//!  Quiet { until } ──listen: the server holds a stream──► Listening ──the stream ends──► Quiet { until: now, or a back-off }
//!        └──listen: it has no such method──► Quiet { until: an hour }
//!  Unwanted: the agent asks rarely, and wants no connection between
//! ```
//! A word that says nothing else has no authority: all that it brings about is a sync, no more often than [`SPACING`]. A delta has what
//! a sync's answer has, and counts if it leads to where it says (`deltas`). A server without either (SPIRE's, an older one) is polled
//! as ever.

mod listening;

use std::time::{Duration, Instant};

use ironroot_api::pb::change::{Delta, WatchChangesRequest};
use ironroot_api::permission::denial_reason;
use tonic::{Code, Status};
use tracing::{debug, info};

use super::schedule::{backoff, unit, within_age};
use crate::server_channel::{Channel, within};
use listening::Listening;

/// Longest wait for the server's first word. Each try that it does not come delays a sync by that much.
const OPENING_DEADLINE: Duration = Duration::from_secs(5);
/// After the end of a stream the server, or the next one, is asked within this time, drawn from 0 upwards: a fleet whose server has died
/// comes back over it. Unless the server has said another time, which is taken within [`COME_BACK_BOUNDS`].
const COME_BACK: Duration = Duration::from_secs(5);
/// A server can neither have all agents come at once nor keep them away.
const COME_BACK_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// Pause before a server without the method is asked for it again: it may have been replaced by a newer one.
const ABSENT_PAUSE: Duration = Duration::from_secs(3600);
/// First pause after a stream that was refused or has ended; doubles up to [`LONGEST_PAUSE`], and is drawn from 0 upwards.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// See [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// A stream that lasted this long was none that failed.
const LASTED: Duration = Duration::from_secs(60);
/// Syncs that pushes bring about are at least this far apart: many changes cost one sync a second, and so does a hostile server.
pub(super) const SPACING: Duration = Duration::from_secs(1);
/// The same of deltas, which ask for nothing: those that come meanwhile are taken in together.
pub(super) const DELTA_SPACING: Duration = Duration::from_millis(20);
/// While the server pushes, it is polled this many times more rarely: only in case a push was lost.
const POLL_FACTOR: u32 = 12;
/// While it tells what changes, and every four minutes where that has led, it is polled this many times more rarely, but at least every
/// [`LONGEST_POLL`].
const DELTA_POLL_FACTOR: u32 = 720;
/// See [`DELTA_POLL_FACTOR`].
const LONGEST_POLL: Duration = Duration::from_secs(3600);
/// An agent whose `sync_interval` is above this is told of no changes and keeps no connection. A connection with a held stream is never
/// silent for more than some minutes, which wakes a radio and costs on a metered link: who has an agent ask this rarely wants silence
/// between. Told in agent.conf and the handbook.
const LONGEST_TOLD_INTERVAL: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug)]
pub(super) struct Pushes {
    state: State,
    /// Streams in a row that failed.
    failures: u32,
    /// No push is told before: see [`SPACING`] and [`DELTA_SPACING`].
    not_before: Instant,
    /// No push brings about a sync before.
    no_sync_before: Instant,
    /// See [`COME_BACK`].
    come_back: Duration,
    /// The server has no such method: it is another software's.
    are_unknown: bool,
}

#[derive(Debug)]
enum State {
    Unwanted,
    Quiet { until: Instant },
    Listening(Listening),
}

/// What comes first on a stream of deltas.
#[derive(Debug)]
pub(super) struct Opened {
    /// What has changed since the server was last heard.
    pub delta: Delta,
    /// The head of its issuance log that the server has shown, if it is another one than was kept.
    pub head: Option<Vec<u8>>,
}

/// What the server said on the stream of changes, or its end.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// Something has changed, by this revision of the server's change log.
    Revision(i64),
    /// This has changed, one after the other; never empty.
    Deltas(Vec<Delta>),
    /// The server says that this agent may not go on. What that means, a sync finds out.
    Denial,
    /// The stream has ended: there is only polling now.
    End,
}

impl Pushes {
    /// For an agent that asks every `sync_interval` by itself. Nobody has been listened to.
    pub fn new(sync_interval: Duration) -> Self {
        let now = Instant::now();
        let is_wanted = sync_interval <= LONGEST_TOLD_INTERVAL;
        let state = if is_wanted { State::Quiet { until: now } } else { State::Unwanted };
        Self { state, failures: 0, not_before: now, no_sync_before: now, come_back: COME_BACK, are_unknown: false }
    }

    /// Whether the server is ever asked for its word: see [`LONGEST_TOLD_INTERVAL`].
    pub fn are_wanted(&self) -> bool {
        !matches!(self.state, State::Unwanted)
    }

    /// Whether the server gives word of changes.
    pub fn is_listening(&self) -> bool {
        matches!(self.state, State::Listening(_))
    }

    /// Within which time after the end of a stream the server is asked.
    pub fn come_back(&self) -> Duration {
        self.come_back
    }

    /// Whether the server has said that it knows no such thing, as SPIRE's does.
    pub fn are_unknown(&self) -> bool {
        self.are_unknown
    }

    /// Whether it tells what changes.
    pub fn are_deltas(&self) -> bool {
        matches!(&self.state, State::Listening(listening) if listening.tells_deltas())
    }

    /// Before a sync: sees to it that whatever changes from now on is heard, if the server gives its word. Words so far are answered by
    /// that sync. `held`: what the agent says that it holds, `kept`: the head of the server's issuance log that it keeps; both to a
    /// server that is asked now. Some if that one tells deltas.
    pub async fn listen(&mut self, channel: &Channel, held: WatchChangesRequest, kept: &[u8]) -> Option<Opened> {
        match &mut self.state {
            State::Listening(listening) if !listening.tells_deltas() => listening.forget(),
            State::Listening(_) | State::Unwanted => {}
            State::Quiet { until } if *until > Instant::now() => {}
            State::Quiet { .. } => return self.open(channel, held, kept).await,
        }
        None
    }

    async fn open(&mut self, channel: &Channel, held: WatchChangesRequest, kept: &[u8]) -> Option<Opened> {
        match within(OPENING_DEADLINE, Listening::open(channel, held, kept)).await {
            Ok((listening, first, head)) => {
                let deltas = listening.tells_deltas();
                info!(revision = first.revision, deltas, "the server tells of changes; it is polled more rarely");
                self.come_back = listening.come_back();
                (self.state, self.are_unknown) = (State::Listening(listening), false);
                first.delta.map(|delta| Opened { delta, head })
            }
            Err(status) => {
                self.fail(&status);
                None
            }
        }
    }

    fn fail(&mut self, status: &Status) {
        self.failures = self.failures.saturating_add(1);
        self.are_unknown = status.code() == Code::Unimplemented;
        let pause = pause_after(status.code(), self.failures, unit());
        debug!(code = ?status.code(), message = status.message(), next_ms = pause.as_millis() as u64, "the server tells of no changes");
        self.state = State::Quiet { until: Instant::now() + pause };
    }

    /// Waits for the server's word; forever if it gives none. Dropping the future loses nothing that was heard.
    pub async fn next(&mut self) -> Heard {
        let State::Listening(listening) = &mut self.state else { return std::future::pending().await };
        let heard = listening.next(self.not_before).await;
        self.come_back = listening.come_back();
        match heard {
            Ok(heard) => heard,
            Err(status) => {
                self.end(&status);
                if denial_reason(&status).is_some() { Heard::Denial } else { Heard::End }
            }
        }
    }

    /// A server ends each stream now and then, with its connection: the next one is opened with the next sync.
    fn end(&mut self, status: &Status) {
        match &self.state {
            State::Listening(listening) if listening.has_lasted() => self.hang_up(),
            _ => self.fail(status),
        }
    }

    /// What was heard is done: the next push may come after `spacing`.
    pub fn rest(&mut self, spacing: Duration) {
        self.not_before = Instant::now() + spacing;
    }

    /// A sync is over: the next push may come, if it brings about another one, after `spacing`, or after [`SPACING`] if that is less.
    pub fn rest_after_sync(&mut self, spacing: Duration) {
        self.no_sync_before = Instant::now() + spacing.min(SPACING);
        match self.are_deltas() {
            true => self.rest(DELTA_SPACING),
            false => self.not_before = self.no_sync_before,
        }
    }

    /// When a push may bring about a sync.
    pub fn next_sync(&self) -> Instant {
        self.no_sync_before
    }

    /// The connection is given up, and the stream with it. If that lasted, those that failed before it count no more.
    pub fn hang_up(&mut self) {
        let State::Listening(listening) = &self.state else { return };
        if listening.has_lasted() {
            self.failures = 0;
        }
        self.state = State::Quiet { until: Instant::now() };
    }
}

/// How often a server is polled that tells of changes (`deltas`: also what changes); never more often than `configured`, though
/// `max_age` asks for it.
pub(super) fn polled_every(configured: Duration, deltas: bool, max_age: Option<Duration>) -> Duration {
    let pause = match deltas {
        true => configured.saturating_mul(DELTA_POLL_FACTOR).min(LONGEST_POLL),
        false => configured.saturating_mul(POLL_FACTOR),
    };
    within_age(pause, max_age).max(configured)
}

/// What a server's word about coming back means. 0: it has said none.
fn come_back_of(milliseconds: u32) -> Duration {
    match milliseconds {
        0 => COME_BACK,
        told => Duration::from_millis(told.into()).clamp(COME_BACK_BOUNDS.0, COME_BACK_BOUNDS.1),
    }
}

/// The pause after a stream that the server refused, or ended, with `code`; `failures` in a row, this one included.
fn pause_after(code: Code, failures: u32, unit: f64) -> Duration {
    match code {
        Code::Unimplemented => ABSENT_PAUSE,
        _ => backoff(failures.saturating_sub(1), FIRST_PAUSE, LONGEST_PAUSE, unit),
    }
}

#[cfg(test)]
pub(super) mod tests;
