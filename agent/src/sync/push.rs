//! The server's word that something has changed, where the server gives it. Then it is asked at once, and otherwise more rarely.
//!
//! ```text
//!  Quiet { until } ──listen: the server holds a stream──► Listening ──the stream ends──► Quiet { until: now, or a back-off }
//!        └──listen: it has no such method──► Quiet { until: an hour }
//!  Unwanted: the agent asks rarely, and wants no connection between
//! ```
//! The word has no authority: all that it brings about is a sync, no more often than [`SPACING`]. A server without it (SPIRE's, an
//! older one) is polled as ever.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use ironroot_api::pb::change::change_client::ChangeClient;
use ironroot_api::pb::change::{WatchChangesRequest, WatchChangesResponse};
use ironroot_api::permission::denial_reason;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info};

use super::schedule::{backoff, unit, within_age};
use crate::server_channel::{Channel, within};

/// Longest wait for the server's first word. Each try that it does not come delays a sync by that much.
const OPENING_DEADLINE: Duration = Duration::from_secs(5);
/// After the end of a stream the server is asked within this time, drawn from 0 upwards: a fleet whose server starts again comes
/// back over it.
pub(super) const COME_BACK: Duration = Duration::from_secs(5);
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
/// Words that are taken off the stream at once before a sync that answers them all. More of them cost another sync.
const MAX_WAITING: usize = 256;
/// While the server pushes, it is polled this many times more rarely: only in case a push was lost.
const POLL_FACTOR: u32 = 12;
/// An agent whose `sync_interval` is above this is told of no changes and keeps no connection. Both ends of one with a held stream
/// send a PING, every 30 s and every minute, which wakes a radio and costs on a metered link: who has an agent ask this rarely
/// wants silence between. Told in agent.conf and the handbook.
const LONGEST_TOLD_INTERVAL: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug)]
pub(super) struct Pushes {
    state: State,
    /// Streams in a row that failed.
    failures: u32,
    /// No push is told before: see [`SPACING`].
    not_before: Instant,
}

#[derive(Debug)]
enum State {
    Unwanted,
    Quiet { until: Instant },
    Listening(Listening),
}

#[derive(Debug)]
struct Listening {
    stream: Box<Streaming<WatchChangesResponse>>,
    since: Instant,
    /// The newest revision that was heard of and that no sync has answered.
    unanswered: Option<i64>,
}

/// One word of the server on the stream of changes, or its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Something has changed, by this revision of the server's change log.
    Revision(i64),
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
        Self { state, failures: 0, not_before: now }
    }

    /// Whether the server is ever asked for its word: see [`LONGEST_TOLD_INTERVAL`].
    pub fn are_wanted(&self) -> bool {
        !matches!(self.state, State::Unwanted)
    }

    /// Whether the server gives word of changes.
    pub fn is_listening(&self) -> bool {
        matches!(self.state, State::Listening(_))
    }

    /// Before a sync: sees to it that whatever changes from now on is heard, if the server gives its word. What was heard so far
    /// is answered by that sync.
    pub async fn listen(&mut self, channel: &Channel) {
        match &mut self.state {
            State::Listening(listening) => listening.unanswered = None,
            State::Unwanted => {}
            State::Quiet { until } if *until > Instant::now() => {}
            State::Quiet { .. } => self.open(channel).await,
        }
    }

    async fn open(&mut self, channel: &Channel) {
        match within(OPENING_DEADLINE, first_word(channel)).await {
            Ok((stream, revision)) => {
                info!(revision, "the server tells of changes; it is polled more rarely");
                let listening = Listening { stream: Box::new(stream), since: Instant::now(), unanswered: None };
                self.state = State::Listening(listening);
            }
            Err(status) => self.fail(&status),
        }
    }

    fn fail(&mut self, status: &Status) {
        self.failures = self.failures.saturating_add(1);
        let pause = pause_after(status.code(), self.failures, unit());
        debug!(code = ?status.code(), message = status.message(), next_ms = pause.as_millis() as u64, "the server tells of no changes");
        self.state = State::Quiet { until: Instant::now() + pause };
    }

    /// Waits for the server's word; forever if it gives none. Dropping the future loses nothing that was heard.
    pub async fn next(&mut self) -> Heard {
        let State::Listening(listening) = &mut self.state else { return std::future::pending().await };
        match listening.next(self.not_before).await {
            Ok(revision) => Heard::Revision(revision),
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

    /// A sync is over: the next push may come after `spacing`.
    pub fn rest(&mut self, spacing: Duration) {
        self.not_before = Instant::now() + spacing.min(SPACING);
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

impl Listening {
    fn has_lasted(&self) -> bool {
        self.since.elapsed() >= LASTED
    }

    async fn next(&mut self, not_before: Instant) -> Result<i64, Status> {
        if self.unanswered.is_none() {
            self.unanswered = Some(word(self.stream.message().await)?);
        }
        tokio::time::sleep_until(not_before.into()).await;
        for _ in 0..MAX_WAITING {
            let Some(Ok(Some(later))) = self.stream.message().now_or_never() else { break };
            self.unanswered = Some(later.revision);
        }
        self.unanswered.take().ok_or_else(ended)
    }
}

/// How often a server is polled that pushes; never more often than `configured`, though `max_age` asks for it.
pub(super) fn polled_every(configured: Duration, max_age: Option<Duration>) -> Duration {
    within_age(configured.saturating_mul(POLL_FACTOR), max_age).max(configured)
}

async fn first_word(channel: &Channel) -> Result<(Streaming<WatchChangesResponse>, i64), Status> {
    let mut stream = ChangeClient::new(channel.clone()).watch_changes(WatchChangesRequest {}).await?.into_inner();
    let revision = word(stream.message().await)?;
    Ok((stream, revision))
}

fn word(message: Result<Option<WatchChangesResponse>, Status>) -> Result<i64, Status> {
    Ok(message?.ok_or_else(ended)?.revision)
}

fn ended() -> Status {
    Status::unavailable("the stream has ended")
}

/// The pause after a stream that the server refused, or ended, with `code`; `failures` in a row, this one included.
fn pause_after(code: Code, failures: u32, unit: f64) -> Duration {
    match code {
        Code::Unimplemented => ABSENT_PAUSE,
        _ => backoff(failures.saturating_sub(1), FIRST_PAUSE, LONGEST_PAUSE, unit),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tonic::body::Body;
    use tonic_prost::ProstDecoder;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    impl Pushes {
        /// Listening for `age` to a server that says nothing, after `failures` streams that failed.
        pub(in crate::sync) fn listening(age: Duration, failures: u32) -> Self {
            let stream = Streaming::new_empty(ProstDecoder::<WatchChangesResponse>::default(), Body::empty());
            let since = Instant::now().checked_sub(age).expect("this machine has been up for longer");
            let listening = Listening { stream: Box::new(stream), since, unanswered: None };
            Self { state: State::Listening(listening), failures, not_before: Instant::now() }
        }
    }

    #[test]
    fn a_server_without_pushes_is_asked_for_them_once_an_hour_and_one_that_fails_after_a_back_off() {
        assert_eq!(pause_after(Code::Unimplemented, 1, 0.0), 3600 * SECOND);
        assert_eq!(pause_after(Code::ResourceExhausted, 1, 1.0), 5 * SECOND);
        assert_eq!(pause_after(Code::ResourceExhausted, 3, 0.5), 10 * SECOND);
        assert_eq!(pause_after(Code::Unavailable, u32::MAX, 1.0), 600 * SECOND);
    }

    #[test]
    fn failures_do_not_outlive_a_stream_that_lasted_whoever_ends_it() {
        type End = fn(&mut Pushes);
        let by_us: End = Pushes::hang_up;
        let by_the_server: End = |pushes| pushes.end(&ended());
        for (age, end, failures) in
            [(LASTED, by_us, 0), (LASTED, by_the_server, 0), (SECOND, by_us, 7), (SECOND, by_the_server, 8)]
        {
            let mut pushes = Pushes::listening(age, 7);
            end(&mut pushes);
            assert!(!pushes.is_listening());
            assert_eq!(pushes.failures, failures, "after {age:?}");
        }
    }

    #[test]
    fn a_server_that_pushes_is_polled_rarely_but_eight_times_within_max_age() {
        assert_eq!(polled_every(5 * SECOND, None), 60 * SECOND);
        assert_eq!(polled_every(60 * SECOND, Some(600 * SECOND)), 75 * SECOND);
        assert_eq!(polled_every(5 * SECOND, Some(604_800 * SECOND)), 60 * SECOND);
        assert_eq!(polled_every(60 * SECOND, Some(60 * SECOND)), 60 * SECOND, "never more often than it was told to");
    }

    #[test]
    fn an_agent_that_asks_more_rarely_than_every_ten_minutes_is_not_told_of_changes() {
        assert!(Pushes::new(LONGEST_TOLD_INTERVAL).are_wanted());
        assert!(!Pushes::new(LONGEST_TOLD_INTERVAL + SECOND).are_wanted());
        assert!(!Pushes::new(Duration::MAX).are_wanted());
    }

    #[tokio::test]
    async fn nothing_is_heard_of_a_server_that_is_not_listened_to() {
        for interval in [SECOND, 2 * LONGEST_TOLD_INTERVAL] {
            let mut pushes = Pushes::new(interval);
            pushes.hang_up();
            assert!(!pushes.is_listening());
            assert!(pushes.next().now_or_never().is_none());
        }
    }
}
