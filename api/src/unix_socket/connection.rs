//! One accepted connection, with what is known about its peer.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use nix::sys::socket::{getsockopt, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

use super::Tolerant;

/// Who connected, as the kernel recorded it at `connect`. Source: unix(7), SO_PEERCRED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process ID in our PID namespace; 0 if the process is not visible in it.
    pub pid: i32,
    /// Effective user ID.
    pub uid: u32,
    /// Effective group ID.
    pub gid: u32,
}

impl PeerCredentials {
    /// Asks the kernel about the other end of `stream`.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = getsockopt(stream, sockopt::PeerCredentials)?;
        Ok(Self { pid: peer.pid(), uid: peer.uid(), gid: peer.gid() })
    }
}

/// A connection that tolerates any client's `:authority`. Handlers find `info` among the request's extensions.
///
/// `S` is how it is read: plainly, or with an eye on who writes.
#[derive(Debug)]
pub struct UnixConnection<I, S = UnixStream> {
    io: Tolerant<S>,
    info: I,
    until: Option<AsyncFd<Arc<OwnedFd>>>,
}

impl<I, S> UnixConnection<I, S> {
    /// Wraps a connection of which HTTP/2 has read nothing.
    pub fn new(stream: S, info: I) -> Self {
        Self { io: Tolerant::new(stream), info, until: None }
    }

    /// Ends the connection as soon as `event` becomes readable: a pidfd does when its process exits.
    pub fn ending_with(mut self, event: Arc<OwnedFd>) -> io::Result<Self> {
        #[expect(deprecated, reason = "its successor is unsafe; an OwnedFd keeps its descriptor open and the same")]
        let event = AsyncFd::with_interest(event, Interest::READABLE)?;
        self.until = Some(event);
        Ok(self)
    }

    fn check_end(&self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.until.as_ref().map(|event| event.poll_read_ready(cx)) {
            Some(Poll::Ready(_)) => Err(io::ErrorKind::ConnectionReset.into()),
            Some(Poll::Pending) | None => Ok(()),
        }
    }
}

impl<I: Clone + Send + Sync + 'static, S> Connected for UnixConnection<I, S> {
    type ConnectInfo = I;

    fn connect_info(&self) -> I {
        self.info.clone()
    }
}

impl<I: Unpin, S: AsyncRead + Unpin> AsyncRead for UnixConnection<I, S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_end(cx)?;
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl<I: Unpin, S: AsyncWrite + Unpin> AsyncWrite for UnixConnection<I, S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_end(cx)?;
        Pin::new(&mut this.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_end(cx)?;
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
