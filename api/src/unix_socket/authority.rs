//! Makes the `:authority` of foreign gRPC clients legal on its way in.
//!
//! Over a unix socket gRPC-core and Java send the socket's path, percent-encoded, as `:authority`; `h2` answers with
//! PROTOCOL_ERROR before any handler runs (hyperium/h2#487). This walks HTTP/2 frames (RFC 9113 §4, §6) and HPACK
//! literals and overwrites the bytes that no host has, in place and without changing a length, so that no table and no
//! other frame is touched. Nobody reads the authority of a local socket, so nothing is lost. [`Tolerant`] is a connection that is
//! read through it.

mod hpack;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use hpack::Block;

/// The most bytes [`AuthorityFix::fix`] leaves for the next call: an unfinished Huffman symbol (30 bits at any offset).
pub const MAX_HELD_BYTES: usize = 4;

/// Readers with less room than this are served from a copy: what is held back must fit in front of what is read.
const SMALL_READ_BYTES: usize = 64;
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: u32 = 5;

/// Where in the connection the next byte is.
#[derive(Debug)]
enum Step {
    Preface {
        seen: usize,
    },
    FrameHeader {
        seen: usize,
        bytes: [u8; FRAME_HEADER_BYTES],
    },
    /// The pad length comes next, of a HEADERS frame with `left` bytes including it.
    PadLength {
        left: u32,
        flags: u8,
    },
    /// The priority comes next: `skip` bytes of it, then `left` of the block, then `padding`.
    Priority {
        skip: u32,
        left: u32,
        padding: u32,
        flags: u8,
    },
    Fragment {
        left: u32,
        padding: u32,
        ends_block: bool,
    },
    Skip {
        left: u32,
    },
    /// Not HTTP/2 as we know it; the server behind says why.
    Off,
}

/// The client's half of one HTTP/2 connection as it passes by, in pieces of any size.
///
/// State is a few dozen bytes whatever arrives. What is not HTTP/2 passes through untouched.
#[derive(Debug)]
pub struct AuthorityFix {
    step: Step,
    /// The header block that is open, over all its frames.
    block: Option<Block>,
}

impl Default for AuthorityFix {
    fn default() -> Self {
        Self { step: Step::Preface { seen: 0 }, block: None }
    }
}

impl AuthorityFix {
    /// Walks the next bytes. Returns how many of them are final.
    ///
    /// The rest, at most [`MAX_HELD_BYTES`], must be offered again in front of the bytes that follow (or, if none
    /// follow, passed on as they are).
    pub fn fix(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let used = match self.step {
                Step::Off => bytes.len() - at,
                Step::Skip { .. } => self.skip(bytes.len() - at),
                Step::Fragment { .. } => {
                    let used = self.fragment(&mut bytes[at..]);
                    if used == 0 {
                        return at;
                    }
                    used
                }
                _ => {
                    self.byte(bytes[at]);
                    1
                }
            };
            at += used;
        }
        at
    }

    fn byte(&mut self, byte: u8) {
        match &mut self.step {
            Step::Preface { seen } if byte != PREFACE[*seen] => self.step = Step::Off,
            Step::Preface { seen } if *seen + 1 == PREFACE.len() => self.next_frame(),
            Step::Preface { seen } => *seen += 1,
            Step::FrameHeader { seen, bytes } => {
                bytes[*seen] = byte;
                *seen += 1;
                if *seen == FRAME_HEADER_BYTES {
                    let [a, b, c, kind, flags, ..] = *bytes;
                    self.frame(u32::from_be_bytes([0, a, b, c]), kind, flags);
                }
            }
            Step::PadLength { left, flags } => match (*left - 1).checked_sub(u32::from(byte)) {
                Some(left) => self.step = after_padding(left, byte.into(), *flags),
                None => self.step = Step::Off,
            },
            Step::Priority { skip, left, padding, flags } => {
                *skip -= 1;
                if *skip == 0 {
                    self.step =
                        Step::Fragment { left: *left, padding: *padding, ends_block: *flags & END_HEADERS != 0 };
                }
            }
            Step::Fragment { .. } | Step::Skip { .. } | Step::Off => {}
        }
        self.leave_empty_fragment();
    }

    fn next_frame(&mut self) {
        self.step = Step::FrameHeader { seen: 0, bytes: [0; FRAME_HEADER_BYTES] };
    }

    /// A frame header is complete.
    fn frame(&mut self, length: u32, kind: u8, flags: u8) {
        self.step = match (kind, self.block.is_some()) {
            (HEADERS, false) => {
                self.block = Some(Block::new());
                match (flags & PADDED != 0, length) {
                    (true, 0) => Step::Off,
                    (true, left) => Step::PadLength { left, flags },
                    (false, left) => after_padding(left, 0, flags),
                }
            }
            (CONTINUATION, true) => Step::Fragment { left: length, padding: 0, ends_block: flags & END_HEADERS != 0 },
            // RFC 9113 §6.10: nothing but CONTINUATION may follow in an open block.
            (_, true) => Step::Off,
            (_, false) => Step::Skip { left: length },
        };
        if let Step::Skip { left: 0 } = self.step {
            self.next_frame();
        }
    }

    /// Returns how many bytes are final.
    fn fragment(&mut self, bytes: &mut [u8]) -> usize {
        let (Step::Fragment { left, .. }, Some(block)) = (&mut self.step, &mut self.block) else { return bytes.len() };
        let n = bytes.len().min(*left as usize);
        let Ok(used) = block.walk(&mut bytes[..n], n == *left as usize) else {
            self.step = Step::Off;
            return n;
        };
        *left -= used as u32;
        self.leave_empty_fragment();
        used
    }

    fn leave_empty_fragment(&mut self) {
        if let Step::Fragment { left: 0, padding, ends_block } = self.step {
            if ends_block {
                self.block = None;
            }
            match padding {
                0 => self.next_frame(),
                left => self.step = Step::Skip { left },
            }
        }
    }

    fn skip(&mut self, available: usize) -> usize {
        let Step::Skip { left } = &mut self.step else { return available };
        let n = available.min(*left as usize);
        *left -= n as u32;
        if *left == 0 {
            self.next_frame();
        }
        n
    }
}

/// What follows the pad length (or its absence) of a HEADERS frame with `left` bytes of priority and block.
fn after_padding(left: u32, padding: u32, flags: u8) -> Step {
    match (flags & PRIORITY != 0, left.checked_sub(PRIORITY_BYTES)) {
        (false, _) => Step::Fragment { left, padding, ends_block: flags & END_HEADERS != 0 },
        (true, Some(left)) => Step::Priority { skip: PRIORITY_BYTES, left, padding, flags },
        (true, None) => Step::Off,
    }
}

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

    /// The connection below; what is read from it directly is not corrected.
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

#[cfg(test)]
mod tests;
