//! A connection that ends by itself when its client says nothing, has nothing to do, or must make room for another.

use std::hash::Hash;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;

use super::places::Place;

/// The first bytes of every HTTP/2 client. Source: RFC 9113 §3.4.
const PREFACE_BYTES: usize = 24;

/// How long a connection may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the preface to arrive.
    pub preface: Duration,
    /// Without a call.
    pub idle: Duration,
    /// In all.
    pub age: Option<Duration>,
}

/// What is going on on a connection.
#[derive(Debug)]
pub struct Activity(Mutex<Calls>);

#[derive(Debug)]
struct Calls {
    under_way: usize,
    idle_since: Instant,
}

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new(Calls { under_way: 0, idle_since: Instant::now() }))
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

    /// Since when none is.
    fn idle_since(&self) -> Option<Instant> {
        let calls = self.calls();
        (calls.under_way == 0).then_some(calls.idle_since)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        // Two plain values: nothing panics between.
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
    activity: Arc<Activity>,
}

impl<P> Watching<P> {
    /// Counts a call.
    pub fn begin_call(&self) -> CallMark {
        Activity::begin_call(&self.activity)
    }
}

/// A byte stream under watch.
#[derive(Debug)]
pub struct Watched<S, P, K: Eq + Hash> {
    stream: S,
    watching: Watching<P>,
    place: Place<K>,
    patience: Patience,
    read: usize,
    timer: Pin<Box<Sleep>>,
}

impl<S, P, K: Eq + Hash> Watched<S, P, K> {
    /// Watches `stream` from now on; `activity` is what `place` was taken with.
    pub fn new(stream: S, peer: P, activity: Arc<Activity>, place: Place<K>, patience: Patience) -> Self {
        let watching = Watching { peer, opened: Instant::now(), activity };
        let timer = Box::pin(sleep(patience.preface));
        Self { stream, watching, place, patience, read: 0, timer }
    }

    /// An error once the connection's time is over.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.place.poll_lost(cx) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "another connection needs the place"));
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let end = self.end();
            if end <= Instant::now() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(end);
        }
        Ok(())
    }

    /// When it is to end, as things stand.
    fn end(&self) -> Instant {
        if self.read < PREFACE_BYTES {
            return self.watching.opened + self.patience.preface;
        }
        // With a call under way it is looked at again when it could be idle for long enough.
        let idle = self.watching.activity.idle_since().unwrap_or_else(Instant::now) + self.patience.idle;
        self.patience.age.map_or(idle, |age| idle.min(self.watching.opened + age))
    }
}

impl<S, P: Clone + Send + Sync + 'static, K: Eq + Hash> Connected for Watched<S, P, K> {
    type ConnectInfo = Watching<P>;

    fn connect_info(&self) -> Watching<P> {
        self.watching.clone()
    }
}

impl<S: AsyncRead + Unpin, P: Unpin, K: Eq + Hash + Unpin> AsyncRead for Watched<S, P, K> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.read = this.read.saturating_add(buf.filled().len() - before);
        polled
    }
}

impl<S: AsyncWrite + Unpin, P: Unpin, K: Eq + Hash + Unpin> AsyncWrite for Watched<S, P, K> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::places::Places;
    use super::*;

    const PATIENCE: Patience = Patience {
        preface: Duration::from_millis(100),
        idle: Duration::from_millis(300),
        age: Some(Duration::from_millis(900)),
    };

    fn watched(places: &Places<u8>) -> (DuplexStream, Watched<DuplexStream, (), u8>) {
        let (client, server) = duplex(64);
        let activity = Arc::<Activity>::default();
        let place = places.take(1, activity.clone(), std::time::Instant::now()).expect("free");
        (client, Watched::new(server, (), activity, place, PATIENCE))
    }

    /// Reads the preface, then waits for the end.
    async fn ended_after(preface: usize, with_a_call: bool) -> Duration {
        let (mut client, mut connection) = watched(&Places::new(1, 1));
        let began = Instant::now();
        client.write_all(&vec![0; preface]).await.expect("written");
        connection.read_exact(&mut vec![0; preface]).await.expect("read");
        let _call = with_a_call.then(|| connection.connect_info().begin_call());
        let error = connection.read(&mut [0; 1]).await.expect_err("the client says nothing");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        began.elapsed()
    }

    #[tokio::test]
    async fn a_connection_without_a_preface_is_closed() {
        let ended = ended_after(PREFACE_BYTES - 1, false).await;
        assert!(ended >= PATIENCE.preface && ended < PATIENCE.idle, "{ended:?}");
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed() {
        let ended = ended_after(PREFACE_BYTES, false).await;
        assert!(ended >= PATIENCE.idle && Some(ended) < PATIENCE.age, "{ended:?}");
    }

    #[tokio::test]
    async fn a_connection_with_a_call_lives_to_its_age_and_no_longer() {
        assert!(Some(ended_after(PREFACE_BYTES, true).await) >= PATIENCE.age);
    }

    #[tokio::test]
    async fn a_connection_whose_place_went_to_another_is_closed() {
        let places = Places::new(1, 1);
        let (_client, mut connection) = watched(&places);
        let _other = places.take(2, Arc::default(), std::time::Instant::now()).expect("a newcomer gets in");
        let error = connection.read(&mut [0; 1]).await.expect_err("its place is gone");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
