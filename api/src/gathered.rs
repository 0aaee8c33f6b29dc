//! A server's side of an HTTP/2 connection whose small writes leave together: one TLS record, one system call, one client woken.
//!
//! ```text
//!  SETTINGS, before the client has spoken ─┐
//!  its acknowledgement of the client's     ├─► waiting ── flushed, and every call that was ready has run ──► stream
//!  HEADERS, DATA, trailers of each answer ─┘
//! ```
//!
//! A flush gives way once to the tasks that are ready to run: those of the calls whose requests were just read. What they answer
//! leaves with it. Nothing waits for time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that waits, bytes: the content of one TLS record. Source: RFC 8446 §5.1.
pub const MAX_WAITING_BYTES: usize = 16 * 1024;

/// A byte stream on which the other side speaks first.
#[derive(Debug)]
pub struct Gathered<S> {
    stream: S,
    waiting: Vec<u8>,
    /// Whether the other side has spoken.
    has_heard: bool,
    /// Whether the flush that is under way has let others run.
    gave_way: bool,
}

impl<S> Gathered<S> {
    /// Of which nothing has been read.
    pub fn new(stream: S) -> Self {
        Self { stream, waiting: Vec::new(), has_heard: false, gave_way: false }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Hands on what waits, and gives its memory back: most connections are idle.
    fn poll_hand_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.drain(..written);
        }
        self.waiting = Vec::new();
        self.gave_way = false;
        Poll::Ready(Ok(()))
    }

    /// Makes room for so many bytes; whether there can be as much.
    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<bool>> {
        if self.waiting.len() + bytes > MAX_WAITING_BYTES {
            ready!(self.poll_hand_on(cx))?;
        }
        Poll::Ready(Ok(bytes <= MAX_WAITING_BYTES))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.has_heard |= buf.filled().len() > before;
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        if !ready!(this.poll_room(cx, bytes))? {
            return Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        }
        slices.iter().for_each(|slice| this.waiting.extend_from_slice(slice));
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // RFC 9113 §3.4: the client's preface comes without waiting for ours.
        if !this.has_heard {
            return Poll::Ready(Ok(()));
        }
        if !this.waiting.is_empty() && !this.gave_way {
            this.gave_way = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(this.poll_hand_on(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_hand_on(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A stream that counts how often it is written to.
    struct Counted(DuplexStream, usize);

    impl AsyncRead for Counted {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.1 += 1;
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    fn gathered(capacity: usize) -> (DuplexStream, Gathered<Counted>) {
        let (client, server) = duplex(capacity);
        (client, Gathered::new(Counted(server, 0)))
    }

    #[tokio::test]
    async fn what_is_written_before_the_other_side_has_spoken_leaves_with_the_first_answer() {
        let (mut client, mut server) = gathered(64);
        server.write_all(b"SETTINGS ").await.expect("it waits");
        server.flush().await.expect("nobody has spoken");
        assert_eq!(server.stream.1, 0);
        client.write_all(b"preface").await.expect("written");
        server.read_exact(&mut [0; 7]).await.expect("read");
        for part in ["ACK ", "HEADERS ", "DATA"] {
            server.write_all(part.as_bytes()).await.expect("it waits");
        }
        server.flush().await.expect("written");
        let mut read = [0; 25];
        client.read_exact(&mut read).await.expect("read");
        assert_eq!((&read[..], server.stream.1), (&b"SETTINGS ACK HEADERS DATA"[..], 1));
        assert_eq!(server.waiting.capacity(), 0, "an idle connection holds nothing");
    }

    #[tokio::test]
    async fn a_flush_lets_those_run_who_are_ready_and_takes_along_what_they_write() {
        let (mut client, mut server) = gathered(64);
        client.write_all(b"?").await.expect("written");
        server.read_exact(&mut [0; 1]).await.expect("read");
        server.write_all(b"a").await.expect("it waits");
        let other = tokio::spawn(async {});
        server.flush().await.expect("written");
        assert!(other.is_finished(), "it ran before anything was written");
        assert_eq!(server.stream.1, 1);
    }

    #[tokio::test]
    async fn no_more_waits_than_a_record_holds_and_what_is_larger_goes_straight_on() {
        let (mut client, mut server) = gathered(4 * MAX_WAITING_BYTES);
        server.write_all(&vec![1; MAX_WAITING_BYTES]).await.expect("it waits");
        assert_eq!((server.stream.1, server.waiting.len()), (0, MAX_WAITING_BYTES));
        server.write_all(&[2]).await.expect("what waited leaves");
        assert_eq!((server.stream.1, server.waiting.len()), (1, 1));
        server.write_all(&vec![3; MAX_WAITING_BYTES + 1]).await.expect("passed on");
        assert_eq!((server.stream.1, server.waiting.len()), (3, 0));
        drop(server);
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.expect("read");
        let runs: Vec<_> = read.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
        assert_eq!(runs, [(1, MAX_WAITING_BYTES), (2, 1), (3, MAX_WAITING_BYTES + 1)], "in their order");
    }

    #[tokio::test]
    async fn what_waits_leaves_before_the_end() {
        let (mut client, mut server) = gathered(64);
        server.write_all(b"GOAWAY").await.expect("it waits");
        server.shutdown().await.expect("shut down");
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.expect("read");
        assert_eq!(read, b"GOAWAY");
    }
}
