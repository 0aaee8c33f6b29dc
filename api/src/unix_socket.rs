//! Unix sockets that any gRPC client can talk to.
//!
//! ```text
//!  bind: safe directory · lock · mode ─► SocketListener ─► incoming(admit) ─► Tolerant (of any :authority)
//! ```
//! gRPC-core and Java clients send the socket's path as `:authority`, which `h2` refuses; [`authority::AuthorityFix`] makes
//! those bytes legal in place, so every connection is read through it. Who the peer is and what it may do is decided by
//! the caller of [`incoming`].

pub mod authority;
mod client;
mod incoming;
mod listener;
mod peer;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::directory::DirectoryError;

pub use authority::Tolerant;
pub use client::connect;
pub use incoming::incoming;
pub use listener::{MAX_PATH_BYTES, SocketListener};
pub use peer::PeerCredentials;

/// Why a unix socket cannot be served or reached.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum UnixSocketError {
    /// The path is relative, has no file name, or does not fit into a socket address.
    #[error("socket path {0:?} must be absolute and at most {max} bytes long", max = listener::MAX_PATH_BYTES)]
    Path(PathBuf),
    /// The directory cannot be made, or another user could replace the socket in it.
    #[error("the socket's directory cannot be used")]
    Directory(#[from] DirectoryError),
    /// Something that is not a socket is in the way; it is left alone.
    #[error("{0:?} exists and is not a socket: move it away or choose another path")]
    NotASocket(PathBuf),
    /// The socket's file belongs to another user.
    #[error("{path:?} belongs to user {uid}, not to us: remove it or choose another path")]
    OtherOwner { path: PathBuf, uid: u32 },
    /// Another process serves this socket.
    #[error("another process is already serving {0:?}")]
    InUse(PathBuf),
    /// A system call on the socket's file or its lock failed.
    #[error("cannot {doing} {path:?}")]
    Io {
        /// Which step, as a verb.
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A directory on the way to the socket lets this user not through.
    #[error("cannot reach {socket:?}: this user (uid {uid}) may not pass through {directory:?} (mode {mode:04o})")]
    NoWay {
        socket: PathBuf,
        uid: u32,
        directory: PathBuf,
        /// Its permission bits; 0 if even those cannot be seen.
        mode: u32,
    },
    /// Nobody answers on the socket.
    #[error("cannot connect to {path:?}")]
    Connect {
        path: PathBuf,
        #[source]
        source: tonic::transport::Error,
    },
}
