//! A connection that ends by itself when its client says nothing, has nothing to do, or has to go.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;

/// The first bytes of every HTTP/2 client. Source: RFC 9113 §3.4.
const PREFACE_BYTES: usize = 24;

/// How long a connection may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the preface to arrive.
    pub preface: Duration,
    /// Without a call.
    pub idle: Duration,
    /// In all; no end of its own if none.
    pub age: Option<Duration>,
}

/// What a connection holds while it is open; given back by its drop.
pub trait Tenure {
    /// What handlers find among a request's extensions.
    type Info: Clone + Send + Sync + 'static;

    /// Who is at the other end, for handlers.
    fn info(&self) -> Self::Info;

    /// An error once the connection has to go whatever its client does; until then `cx` is woken when that changes.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> io::Result<()>;

    /// Since when nothing is done on it; none while something is.
    fn idle_since(&self) -> Option<Instant>;
}

/// A byte stream under watch.
#[derive(Debug)]
pub struct Watched<S, T> {
    stream: S,
    tenure: T,
    patience: Patience,
    opened: Instant,
    read: usize,
    timer: Pin<Box<Sleep>>,
}

impl<S, T: Tenure> Watched<S, T> {
    /// Watches `stream`, of which nothing has been read, from now on.
    pub fn new(stream: S, tenure: T, patience: Patience) -> Self {
        //= FLT-A10 agent faults: "that connection ends and nothing else"
        let timer = Box::pin(sleep(patience.preface));
        Self { stream, tenure, patience, opened: Instant::now(), read: 0, timer }
    }

    /// An error once the connection's time is over.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let end = self.end();
            if end <= Instant::now() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "of no use for too long"));
            }
            self.timer.as_mut().reset(end);
        }
        Ok(())
    }

    /// Our SETTINGS go out before the preface is read: until then only a write that has to wait asks for patience.
    fn poll_writing(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>>
    where
        S: Unpin,
    {
        self.tenure.poll_end(cx)?;
        let preface_is_due = self.read < PREFACE_BYTES;
        if !preface_is_due {
            self.poll_patience(cx)?;
        }
        let polled = write(Pin::new(&mut self.stream), cx);
        if preface_is_due && polled.is_pending() {
            self.poll_patience(cx)?;
        }
        polled
    }

    /// When it is to end, as things stand.
    fn end(&self) -> Instant {
        if self.read < PREFACE_BYTES {
            return self.opened + self.patience.preface;
        }
        // With a call under way it is looked at again when it could be idle for long enough.
        let idle = self.tenure.idle_since().unwrap_or_else(Instant::now) + self.patience.idle;
        self.patience.age.map_or(idle, |age| idle.min(self.opened + age))
    }
}

impl<S, T: Tenure> Connected for Watched<S, T> {
    type ConnectInfo = T::Info;

    fn connect_info(&self) -> T::Info {
        self.tenure.info()
    }
}

impl<S: AsyncRead + Unpin, T: Tenure + Unpin> AsyncRead for Watched<S, T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.tenure.poll_end(cx)?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.read = this.read.saturating_add(buf.filled().len() - before);
        // After reading: a preface that has arrived counts, however late we come to read it.
        this.poll_patience(cx)?;
        polled
    }
}

impl<S: AsyncWrite + Unpin, T: Tenure + Unpin> AsyncWrite for Watched<S, T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(cx, |stream, cx| stream.poll_write_vectored(cx, bytes))
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
mod tests;
