//! What the kernel recorded about whoever connected.

use std::io;

use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::UnixStream;

/// Who connected, as the kernel recorded it at `connect`. Source: unix(7), SO_PEERCRED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "effective IDs, named as SO_PEERCRED does")]
pub struct PeerCredentials {
    /// Process ID in our PID namespace; 0 if the process is not visible in it.
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

impl PeerCredentials {
    /// Asks the kernel about the other end of `stream`.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = getsockopt(stream, sockopt::PeerCredentials)?;
        Ok(Self { pid: peer.pid(), uid: peer.uid(), gid: peer.gid() })
    }
}
