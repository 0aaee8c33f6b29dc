//! A connection that is read when it has paid for what it sent before (at once, unless its user takes more than its share of the agent), and
//! when its user has not had enough of this round.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::admission::{ConnectionSlot, Ticket};

/// See the module. Writing is as ever.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    slot: Arc<ConnectionSlot>,
    turn: Turn,
    ticket: Option<Ticket>,
}

/// Whether the connection may be read.
#[derive(Debug)]
enum Turn {
    Come,
    /// It was just read. What was in that is dealt with first: so its cost is known, and others have their turn.
    Over,
    /// It may be read again once what it owes is paid.
    Next,
    Waiting(Pin<Box<Sleep>>),
}

impl<S> Paced<S> {
    /// Paid for by the user whose connection `slot` is.
    pub fn new(stream: S, slot: Arc<ConnectionSlot>) -> Self {
        Self { stream, slot, turn: Turn::Come, ticket: None }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.turn {
            Turn::Come => return Poll::Ready(()),
            Turn::Over => {
                self.turn = Turn::Next;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Turn::Next => {
                let wait = self.slot.pay(Instant::now());
                if !wait.is_zero() {
                    self.turn = Turn::Waiting(Box::pin(sleep(wait)));
                    return self.poll_turn(cx);
                }
            }
            Turn::Waiting(timer) => ready!(timer.as_mut().poll(cx)),
        }
        self.turn = Turn::Come;
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_turn(cx));
        ready!(this.slot.rounds().poll(&mut this.ticket, cx));
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.slot.was_read();
            this.turn = Turn::Over;
        } else {
            this.slot.rounds().give_back();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
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
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::admission::{Admission, Limits, SubordinateUids};
    use super::*;

    /// Requests turned away that no user can pay for at once.
    const NOISE: usize = 1000;

    fn connected(admission: &Admission, uid: u32) -> (DuplexStream, Paced<DuplexStream>) {
        let (client, server) = duplex(64);
        (client, Paced::new(server, Arc::new(admission.connect(uid, Instant::now()).expect("room"))))
    }

    /// Sends a byte and has it read.
    async fn heard(client: &mut DuplexStream, server: &mut Paced<DuplexStream>) -> bool {
        client.write_all(&[1]).await.expect("written");
        let mut read = [0; 8];
        let reading = async { server.read(&mut read).await.expect("read") };
        tokio::select! {
            biased;
            bytes = reading => bytes == 1,
            // The reader has been asked until it waits for the clock.
            () = async { for _ in 0..4 { tokio::task::yield_now().await; } } => false,
        }
    }

    #[tokio::test]
    async fn who_is_turned_away_all_the_time_is_read_later_and_written_to_at_once_and_nobody_else_notices() {
        let admission = Admission::new(Limits::default(), SubordinateUids::default());
        let (mut noisy, mut at_noisy) = connected(&admission, 1000);
        let (mut other, mut at_other) = connected(&admission, 1001);
        let (mut quiet, mut at_quiet) = connected(&admission, 1000);
        // The first is on credit: a user's whole share, at once.
        for _ in 0..2 {
            (0..NOISE).for_each(|_| at_noisy.slot.turned_away());
            at_noisy.turn = Turn::Over;
            heard(&mut noisy, &mut at_noisy).await;
        }
        assert!(!heard(&mut noisy, &mut at_noisy).await, "not its turn");
        assert!(heard(&mut other, &mut at_other).await, "another user");
        assert!(heard(&mut quiet, &mut at_quiet).await, "the same user's other connection");
        at_noisy.write_all(&[1]).now_or_never().expect("at once").expect("written");
    }

    #[tokio::test]
    async fn after_each_read_others_have_their_turn() {
        let admission = Admission::new(Limits::default(), SubordinateUids::default());
        let (mut client, mut server) = connected(&admission, 1000);
        client.write_all(&[1, 2]).await.expect("written");
        assert_eq!(server.read_u8().now_or_never().expect("at once").expect("read"), 1);
        assert!(server.read_u8().now_or_never().is_none(), "there is more, and it is somebody else's turn");
        assert_eq!(server.read_u8().now_or_never().expect("its next turn").expect("read"), 2);
    }
}
