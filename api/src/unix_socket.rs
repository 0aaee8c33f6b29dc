//! Unix sockets that any gRPC client can talk to.
//!
//! ```text
//!  bind: safe directory · lock · mode ─► SocketListener ─► incoming(admit) ─► UnixConnection (peer facts, tolerant :authority)
//! ```
//! gRPC-core and Java clients send the socket's path as `:authority`, which `h2` refuses; [`authority::AuthorityFix`] makes
//! those bytes legal in place, so every connection is read through it. Who the peer is and what it may do is decided by
//! the caller of [`incoming`].

pub mod authority;
mod client;
mod connection;
mod directory;
mod hpack;
mod huffman;
mod incoming;
mod listener;
mod tolerant;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use client::connect;
pub use connection::{PeerCredentials, UnixConnection};
pub use incoming::{LocalPeer, incoming, local_incoming};
pub use listener::SocketListener;
pub use tolerant::Tolerant;

/// Why a unix socket cannot be served or reached.
#[derive(Debug, Error)]
pub enum UnixSocketError {
    /// The path is relative, has no file name, or does not fit into a socket address.
    #[error("socket path {0:?} must be absolute and at most {max} bytes long", max = listener::MAX_PATH_BYTES)]
    Path(PathBuf),
    /// Another user could replace the socket.
    #[error("socket path is not safe: {path:?} {why}")]
    UnsafeDirectory {
        /// The offending directory or link.
        path: PathBuf,
        /// What is wrong with it, as the rest of a sentence.
        why: &'static str,
    },
    /// Something that is not a socket is in the way; it is left alone.
    #[error("{0:?} exists and is not a socket: move it away or choose another path")]
    NotASocket(PathBuf),
    /// The socket's file belongs to another user.
    #[error("{path:?} belongs to user {uid}, not to us: remove it or choose another path")]
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Another process serves this socket.
    #[error("another process is already serving {0:?}")]
    InUse(PathBuf),
    /// A system call failed.
    #[error("cannot {doing} {path:?}")]
    Io {
        /// Which step, as a verb.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Nobody answers on the socket.
    #[error("cannot connect to {path:?}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// tonic's reason.
        #[source]
        source: tonic::transport::Error,
    },
}
