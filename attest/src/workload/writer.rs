//! Whose bytes a connection takes: every read of a socket with SO_PASSCRED names the process that wrote.
//!
//! The kernel notes the writer's thread group at each write and never joins the bytes of two writers in one read. Only a
//! process with CAP_SYS_ADMIN may name another than itself. Source: unix(7), SCM_CREDENTIALS; net/unix/af_unix.c.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::str::FromStr;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg};
use thiserror::Error;

use super::peer::Peer;

/// The `connection_writer` of `agent.conf`. Source: ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionWriter {
    /// Only the process that opened it.
    #[default]
    Peer,
    /// Any process of that process's user: for programs that connect and fork. Then nothing is told of an executable once
    /// another process has written.
    User,
}

impl FromStr for ConnectionWriter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "peer" => Ok(Self::Peer),
            "user" => Ok(Self::User),
            _ => Err("use \"peer\" (only the process that connected writes) or \"user\" (any process of its user)"),
        }
    }
}

/// Why a connection is ended for what was written into it.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum WriterRefusal {
    /// It was handed on, inherited or taken.
    #[error("pid {peer} connected, pid {writer} (uid {writer_uid}) wrote")]
    Stranger {
        peer: i32,
        writer: i32,
        /// The writer's real user ID.
        writer_uid: u32,
    },
    /// The kernel names nobody whom the agent could know.
    #[error("pid {peer} connected, a process that the agent cannot see wrote")]
    Invisible { peer: i32 },
    /// Descriptors or other things came along; they are closed unseen.
    #[error("pid {peer} connected, and something came along with the bytes that has no place here (descriptors?)")]
    Ancillary { peer: i32 },
    /// The process that connected is gone, so its PID may be another's by now.
    #[error("pid {peer} connected and has exited")]
    PeerExited { peer: i32 },
    /// The socket cannot be read.
    #[error("cannot read what pid {peer} wrote")]
    Read {
        peer: i32,
        #[source]
        source: io::Error,
    },
}

/// What one read found.
#[derive(Debug)]
pub(super) struct Received {
    /// 0: the end of the stream, which nobody writes.
    pub bytes: usize,
    writer: Option<UnixCredentials>,
    has_more_than_writer: bool,
}

/// Whose bytes a read found, among those whose bytes are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// Nobody's: the stream has ended.
    Nobody,
    Peer,
    SameUser,
}

/// Room for the name of one writer and for nothing else: what else is sent along is cut off, and with it goes the connection.
pub(super) fn control_buffer() -> Box<[u8]> {
    // nix takes the buffer's length, not its capacity.
    vec![0; cmsg_space!(UnixCredentials).capacity()].into()
}

/// Reads what there is, without waiting.
pub(super) fn receive(socket: &impl AsFd, room: &mut [u8], control: &mut [u8]) -> io::Result<Received> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut room = [IoSliceMut::new(room)];
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut room, Some(control), flags)?;
    let has_more_than_writer = message.flags.contains(MsgFlags::MSG_CTRUNC);
    let writer = message.cmsgs().ok().and_then(|mut all| {
        all.find_map(|one| if let ControlMessageOwned::ScmCredentials(writer) = one { Some(writer) } else { None })
    });
    Ok(Received { bytes: message.bytes, writer, has_more_than_writer })
}

impl ConnectionWriter {
    /// Whether what `received` holds may come into `peer`'s connection.
    pub(super) fn judge(self, peer: &Peer, received: &Received) -> Result<Writer, WriterRefusal> {
        let pid = peer.pid();
        if received.bytes == 0 {
            return Ok(Writer::Nobody);
        }
        if received.has_more_than_writer {
            return Err(WriterRefusal::Ancillary { peer: pid });
        }
        let (writer, writer_uid) = match received.writer {
            Some(writer) if writer.pid() > 0 => (writer.pid(), writer.uid()),
            _ => return Err(WriterRefusal::Invisible { peer: pid }),
        };
        match self {
            // Looked at after the read: if it lives now, the PID was its own when the bytes were written.
            _ if writer == pid && peer.still_alive() => Ok(Writer::Peer),
            _ if writer == pid => Err(WriterRefusal::PeerExited { peer: pid }),
            Self::User if writer_uid == peer.uid() => Ok(Writer::SameUser),
            Self::Peer | Self::User => Err(WriterRefusal::Stranger { peer: pid, writer, writer_uid }),
        }
    }
}
