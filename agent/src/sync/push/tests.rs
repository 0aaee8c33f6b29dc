use futures_util::FutureExt;
use ironroot_api::pb::change::WatchChangesResponse;

use super::listening::ended;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

impl Pushes {
    /// Listening for `age` to a server that says nothing, after `failures` streams that failed.
    pub(in crate::sync) fn listening(age: Duration, failures: u32) -> Self {
        Self { state: State::Listening(Listening::silent(age)), failures, ..Self::new(SECOND) }
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
fn a_server_says_over_how_long_agents_come_back_within_bounds() {
    let milliseconds = [0, 1, 250, 8192, u32::MAX].map(|told| come_back_of(told).as_millis());
    assert_eq!(milliseconds, [5_000, 100, 250, 8_192, 60_000]);
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
    assert_eq!(polled_every(5 * SECOND, false, None), 60 * SECOND);
    assert_eq!(polled_every(60 * SECOND, false, Some(600 * SECOND)), 75 * SECOND);
    assert_eq!(polled_every(5 * SECOND, false, Some(604_800 * SECOND)), 60 * SECOND);
    assert_eq!(
        polled_every(60 * SECOND, false, Some(60 * SECOND)),
        60 * SECOND,
        "never more often than it was told to"
    );
}

#[test]
fn a_server_that_tells_what_changes_is_polled_once_an_hour_at_least() {
    assert_eq!(polled_every(SECOND, true, None), 720 * SECOND);
    assert_eq!(polled_every(5 * SECOND, true, None), LONGEST_POLL);
    assert_eq!(polled_every(600 * SECOND, true, None), LONGEST_POLL);
    assert_eq!(polled_every(5 * SECOND, true, Some(600 * SECOND)), 75 * SECOND);
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

#[tokio::test]
async fn what_a_stream_ends_with_is_told_behind_the_words_that_came_with_it() {
    let words = [1, 2].map(|revision| WatchChangesResponse { revision, ..Default::default() });
    let mut listening = Listening::that_hears(&words, &Status::permission_denied("banned"));
    let heard = listening.next(Instant::now()).await.expect("the words");
    assert!(matches!(heard, Heard::Revision(2)), "{heard:?}");
    listening.forget();
    let end = listening.next(Instant::now()).await.expect_err("the end");
    assert_eq!((end.code(), end.message()), (Code::PermissionDenied, "banned"));
}
