//! A byte stream whose reader sees legal `:authority` values only.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::authority::{AuthorityFix, MAX_HELD_BYTES};

/// Readers with less room than this are served from a copy: what is held back must fit in front of what is read.
const SMALL_READ_BYTES: usize = 64;

/// A server's end of a connection, read through [`AuthorityFix`]. Writes pass unchanged.
#[derive(Debug)]
pub struct Tolerant<S> {
    inner: S,
    fix: AuthorityFix,
    /// Bytes read but not final yet.
    held: [u8; MAX_HELD_BYTES],
    held_bytes: usize,
    /// Final bytes that a small reader had no room for.
    surplus: Vec<u8>,
}

impl<S> Tolerant<S> {
    /// Wraps a connection of which nothing has been read.
    pub fn new(inner: S) -> Self {
        let held = [0; MAX_HELD_BYTES];
        Self { inner, fix: AuthorityFix::default(), held, held_bytes: 0, surplus: Vec::new() }
    }

    /// The connection itself.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: AsyncRead + Unpin> Tolerant<S> {
    /// Reads at least one final byte, or none at the end. `buf` has room for more than what is held back.
    fn poll_fixed(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        loop {
            buf.put_slice(&self.held[..self.held_bytes]);
            let read = Pin::new(&mut self.inner).poll_read(cx, buf);
            if !matches!(read, Poll::Ready(Ok(()))) {
                buf.set_filled(start);
                return read;
            }
            let offered = buf.filled().len() - start;
            // At the end of the stream nothing will complete the symbol: it goes on as it is.
            let ended = offered == self.held_bytes;
            let last = if ended { offered } else { self.fix.fix(&mut buf.filled_mut()[start..]) };
            let rest = &buf.filled()[start + last..];
            self.held_bytes = rest.len();
            self.held[..rest.len()].copy_from_slice(rest);
            buf.set_filled(start + last);
            if ended || last > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_small(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.surplus.is_empty() {
            let mut copy = [0; SMALL_READ_BYTES];
            let mut copy = ReadBuf::new(&mut copy);
            ready!(self.poll_fixed(cx, &mut copy))?;
            self.surplus.extend_from_slice(copy.filled());
        }
        let n = buf.remaining().min(self.surplus.len());
        buf.put_slice(&self.surplus[..n]);
        self.surplus.drain(..n);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tolerant<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match buf.remaining() {
            0 => Poll::Ready(Ok(())),
            room if room < SMALL_READ_BYTES || !this.surplus.is_empty() => this.poll_small(cx, buf),
            _ => this.poll_fixed(cx, buf),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tolerant<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
