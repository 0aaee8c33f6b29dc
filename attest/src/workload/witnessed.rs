//! A connection that knows, of each byte, who wrote it; and whether its peer has spoken HTTP/2 since it was accepted.
//!
//! ```text
//!  accept ─► Peer (executable noted) ─► begin: counts what waits, before any byte of ours goes out ─► HTTP/2
//!                                        later: the peer writes again ─► SecondWrite ─► its executable may be told
//! ```
//! What waits at accept may have been written before its process became another program (`exec`). How much that may be the
//! kernel bounds (a socket's send buffer), and nothing of it is kept here: a client may have sent a whole request of 64 KiB
//! before it hears our SETTINGS (RFC 9113 §6.9.2), and a busy agent accepts late. What is written later
//! was written by what ran at accept, or by what the process became since, which the attestor sees. Every HTTP/2 client
//! acknowledges our SETTINGS (RFC 9113 §6.5.3), which go out after [`Witnessed::begin`]; a program that only inherited the
//! connection, be it as its output, does not.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::ioctl_fionread;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::acknowledgement::Frames;
use super::peer::Peer;
use super::writer::{ConnectionWriter, Received, Writer, WriterRefusal, control_buffer, receive};

/// Most bytes read at once. More would touch more of the reader's buffer than requests of this API need.
const READ_BYTES: usize = 1024;

/// Told when a connection ends because of who wrote.
pub type Report = Arc<dyn Fn(&WriterRefusal) + Send + Sync>;

/// What has been heard since a connection was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    /// The peer's acknowledgement.
    Peer,
    /// Another process of the peer's user, too: the peer's executable says nothing about who asks.
    Others,
}

/// An accepted connection. Reads fail for ever once somebody wrote who may not.
pub struct Witnessed {
    stream: UnixStream,
    check: Option<Check>,
    frames: Frames,
    /// Bytes that are to be read before one that was written after accept.
    waiting: u64,
    control: Box<[u8]>,
}

struct Check {
    peer: Peer,
    writers: ConnectionWriter,
    heard: watch::Sender<Heard>,
    report: Report,
}

/// The ear of a connection: says whether its peer has written since it was accepted.
#[derive(Clone, Debug)]
pub struct Voice(watch::Receiver<Heard>);

/// Why nothing may be told of the executable of the process that connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Silence {
    /// What asked may have been another program of the same process.
    #[error(
        "the process has not acknowledged our HTTP/2 settings since it was accepted: it may have become another program"
    )]
    NotSince,
    /// Who asked may be another process.
    #[error("other processes of its user write into the connection too")]
    Others,
}

/// The peer, and nobody else, has acknowledged our SETTINGS since it was accepted and its executable noted.
#[derive(Clone, Copy, Debug)]
pub struct SecondWrite(());

impl Witnessed {
    /// Takes over `stream`, which was just accepted from `peer` by a socket with SO_PASSCRED, and counts what waits in it.
    /// Nothing may have been written to it. Does not block.
    pub fn begin(
        stream: UnixStream,
        peer: Peer,
        writers: ConnectionWriter,
        report: Report,
    ) -> Result<(Self, Voice), WriterRefusal> {
        let (heard, voice) = watch::channel(Heard::Nothing);
        let counted = ioctl_fionread(&stream);
        let waiting = counted.map_err(|errno| WriterRefusal::Read { peer: peer.pid(), source: errno.into() })?;
        let check = Check { peer, writers, heard, report };
        Ok((Self { waiting, ..Self::over(stream, Some(check)) }, Voice(voice)))
    }

    /// A connection whose peer is not known, and to which nobody's identity is told: it does not matter who writes.
    pub fn of_nobody(stream: UnixStream) -> Self {
        Self::over(stream, None)
    }

    fn over(stream: UnixStream, check: Option<Check>) -> Self {
        Self { stream, check, frames: Frames::new(), waiting: 0, control: control_buffer() }
    }

    /// Reads what there is, and of what waited at accept nothing together with what came later.
    fn receive(&mut self, room: &mut [u8]) -> io::Result<Received> {
        let waiting = usize::try_from(self.waiting).unwrap_or(usize::MAX);
        let fits = if waiting > 0 { room.len().min(waiting) } else { room.len() };
        let (stream, control) = (&self.stream, &mut self.control);
        stream.try_io(Interest::READABLE, || receive(stream, &mut room[..fits], control))
    }

    /// Whether what was `received` may come in, which is noted.
    fn judge(&mut self, received: &Received, bytes: &[u8]) -> Result<(), WriterRefusal> {
        let waited = self.waiting > 0;
        self.waiting = self.waiting.saturating_sub(bytes.len() as u64);
        let Some(check) = &self.check else { return Ok(()) };
        let writer = check.writers.judge(&check.peer, received).inspect_err(|refusal| (check.report)(refusal))?;
        check.note(writer, &mut self.frames, (bytes, waited));
        Ok(())
    }
}

impl Check {
    fn note(&self, writer: Writer, frames: &mut Frames, (bytes, waited): (&[u8], bool)) {
        let acknowledged = frames.acknowledge(bytes, writer == Writer::Peer && !waited);
        let heard = match writer {
            Writer::Peer if acknowledged => Heard::Peer,
            Writer::Nobody | Writer::Peer => return,
            Writer::SameUser => Heard::Others,
        };
        self.heard.send_if_modified(|before| {
            let news = *before != Heard::Others && *before != heard;
            if news {
                *before = heard;
            }
            news
        });
    }
}

impl Voice {
    /// Waits until the peer has acknowledged our SETTINGS since it was accepted, at most for `patience`.
    pub async fn second_write(&self, patience: Duration) -> Result<SecondWrite, Silence> {
        let mut heard = self.0.clone();
        let something = heard.wait_for(|heard| *heard != Heard::Nothing);
        match tokio::time::timeout(patience, something).await.map(|heard| heard.map(|heard| *heard)) {
            Ok(Ok(Heard::Peer)) => Ok(SecondWrite(())),
            Ok(Ok(Heard::Others)) => Err(Silence::Others),
            Ok(Ok(Heard::Nothing) | Err(_)) | Err(_) => Err(Silence::NotSince),
        }
    }
}

impl AsyncRead for Witnessed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.stream.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled_to(buf.remaining().min(READ_BYTES));
            let received = match this.receive(room) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if let Err(refusal) = this.judge(&received, &room[..received.bytes]) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, refusal)));
            }
            buf.advance(received.bytes);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Witnessed {
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

impl fmt::Debug for Witnessed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witnessed").field("stream", &self.stream).finish_non_exhaustive()
    }
}
