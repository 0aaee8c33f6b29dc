//! A connection that ends when it is of no use or must give way: without an HTTP/2 preface soon, without a stream for long,
//! or when the books say so.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use super::admission::ConnectionSlot;
use super::caller::Caller;

/// How long a client has to send the HTTP/2 preface.
pub(super) const PREFACE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection may be without a stream. Clients connect again when they need one.
pub(super) const IDLE_DEADLINE: Duration = Duration::from_secs(300);
/// Source: RFC 9113 §3.4.
const PREFACE_BYTES: usize = 24;

/// See the module. `IO` is the connection itself.
#[derive(Debug)]
pub(super) struct Guarded<IO> {
    io: IO,
    slot: Arc<ConnectionSlot>,
    preface_left: usize,
    alarm: Pin<Box<Sleep>>,
}

impl<IO: Connected<ConnectInfo = Caller>> Guarded<IO> {
    /// Guards a connection of which nothing has been read, from now on.
    pub fn new(io: IO) -> Self {
        let slot = io.connect_info().connection().clone();
        let alarm = Box::pin(tokio::time::sleep(PREFACE_DEADLINE));
        Self { io, slot, preface_left: PREFACE_BYTES, alarm }
    }
}

impl<IO> Guarded<IO> {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.slot.eviction().poll_asked(cx) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "gave way to another connection"));
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let next = match self.preface_left {
                0 => next_look(self.slot.idle_since(), Instant::now()),
                _ => None,
            };
            let next = next.ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "of no use for too long"))?;
            self.alarm.as_mut().reset(next.into());
        }
        Ok(())
    }
}

/// When to look at the connection again; `None`: it has been idle too long.
fn next_look(idle_since: Option<Instant>, now: Instant) -> Option<Instant> {
    let end = idle_since.unwrap_or(now) + IDLE_DEADLINE;
    (end > now).then_some(end)
}

impl<IO: Connected> Connected for Guarded<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> IO::ConnectInfo {
        self.io.connect_info()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Guarded<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        this.preface_left = this.preface_left.saturating_sub(buf.filled().len() - before);
        match this.check(cx) {
            Ok(()) => read,
            Err(end) => Poll::Ready(Err(end)),
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Guarded<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_looked_at_until_it_has_been_idle_too_long() {
        let now = Instant::now();
        let (busy, idle) = (next_look(None, now), next_look(Some(now), now + Duration::from_secs(1)));
        assert_eq!((busy, idle), (Some(now + IDLE_DEADLINE), Some(now + IDLE_DEADLINE)));
        assert_eq!(next_look(Some(now), now + IDLE_DEADLINE), None);
    }
}
