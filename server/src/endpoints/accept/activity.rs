//! What is going on on a connection, and the place it holds.

use std::hash::Hash;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

use ironroot_api::watched::Tenure;
use tokio::time::Instant;

use super::super::entry_api::SentView;
use super::places::Place;

/// A client that is told that its connection is of no use any more has this long to read so.
const FAREWELL: Duration = Duration::from_secs(1);

/// What is going on on a connection.
#[derive(Debug)]
pub struct Activity(Mutex<Calls>);

#[derive(Debug)]
struct Calls {
    under_way: usize,
    idle_since: Instant,
    useless_since: Option<Instant>,
}

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new(Calls { under_way: 0, idle_since: Instant::now(), useless_since: None }))
    }
}

impl Activity {
    /// A call has begun; it is over when the mark is dropped.
    pub fn begin_call(this: &Arc<Self>) -> CallMark {
        this.calls().under_way += 1;
        CallMark(this.clone())
    }

    /// Whether no call is under way.
    pub fn is_idle(&self) -> bool {
        self.calls().under_way == 0
    }

    /// Whether its client was told long enough ago that it is of no use any more.
    fn is_over(&self) -> bool {
        self.calls().useless_since.is_some_and(|since| since.elapsed() >= FAREWELL)
    }

    /// Since when none is.
    fn idle_since(&self) -> Option<Instant> {
        let calls = self.calls();
        (calls.under_way == 0).then_some(calls.idle_since)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        // Plain values: nothing panics between.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way on a connection.
#[derive(Debug)]
pub struct CallMark(Arc<Activity>);

impl Drop for CallMark {
    fn drop(&mut self) {
        let mut calls = self.0.calls();
        calls.under_way -= 1;
        calls.idle_since = Instant::now();
    }
}

/// What handlers find among a request's extensions: who is at the other end, and where calls are counted.
#[derive(Clone, Debug)]
pub struct Watching<P> {
    /// Who is at the other end.
    pub peer: P,
    /// When the connection was opened.
    pub opened: Instant,
    /// What went over it.
    pub sent: Arc<SentView>,
    activity: Arc<Activity>,
}

impl<P> Watching<P> {
    /// Counts a call.
    pub fn begin_call(&self) -> CallMark {
        Activity::begin_call(&self.activity)
    }

    /// Its client is being told that every call on this connection is refused from now on. What the client does next ends it, for there are
    /// clients that dial anew for nothing less.
    pub fn is_useless(&self) {
        self.activity.calls().useless_since.get_or_insert_with(Instant::now);
    }
}

/// A connection's place among those of its role, for as long as nobody with more right needs it.
#[derive(Debug)]
pub struct Seat<P, K: Eq + Hash> {
    watching: Watching<P>,
    place: Place<K>,
}

impl<P, K: Eq + Hash> Seat<P, K> {
    /// From now on; `activity` is what `place` was taken with.
    pub fn new(peer: P, activity: Arc<Activity>, place: Place<K>) -> Self {
        Self { watching: Watching { peer, opened: Instant::now(), sent: Arc::default(), activity }, place }
    }
}

impl<P: Clone + Send + Sync + 'static, K: Eq + Hash> Tenure for Seat<P, K> {
    type Info = Watching<P>;

    fn info(&self) -> Watching<P> {
        self.watching.clone()
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.place.poll_lost(cx) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "another connection needs the place"));
        }
        if self.watching.activity.is_over() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "every call on it is refused"));
        }
        Ok(())
    }

    fn idle_since(&self) -> Option<Instant> {
        self.watching.activity.idle_since()
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::watched::{Patience, Watched};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::places::Places;
    use super::*;

    fn seat(places: &Places<u8>) -> Seat<(), u8> {
        let activity = Arc::<Activity>::default();
        let place = places.take(1, activity.clone(), std::time::Instant::now()).expect("free");
        Seat::new((), activity, place)
    }

    #[test]
    fn a_seat_is_idle_while_no_call_is_under_way() {
        let seat = seat(&Places::new(1, 1));
        let opened = seat.idle_since().expect("no call yet");
        let call = seat.info().begin_call();
        assert_eq!(seat.idle_since(), None);
        drop(call);
        assert!(seat.idle_since().is_some_and(|since| since >= opened));
    }

    #[tokio::test]
    async fn a_connection_of_no_use_ends_at_the_next_word_of_its_client() {
        let (places, hour) = (Places::new(1, 1), Duration::from_secs(3600));
        let seat = seat(&places);
        let watching = seat.info();
        let (mut client, server) = duplex(64);
        let mut connection = Watched::new(server, seat, Patience { preface: hour, idle: hour, age: None });
        watching.is_useless();
        client.write_all(b"a").await.expect("it is open");
        assert_eq!(connection.read(&mut [0; 1]).await.expect("the answer may still be on its way"), 1);
        tokio::time::sleep(FAREWELL).await;
        client.write_all(b"b").await.expect("it is open");
        let error = connection.read(&mut [0; 1]).await.expect_err("it was told");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_connection_whose_place_went_to_another_is_closed() {
        let (places, hour) = (Places::new(1, 1), Duration::from_secs(3600));
        let patience = Patience { preface: hour, idle: hour, age: None };
        let (_client, server) = duplex(64);
        let mut connection = Watched::new(server, seat(&places), patience);
        let _other = places.take(2, Arc::default(), std::time::Instant::now()).expect("a newcomer gets in");
        let error = connection.read(&mut [0; 1]).await.expect_err("its place is gone");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
