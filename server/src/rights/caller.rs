//! The other end of an RPC.

use std::fmt;
use std::net::IpAddr;

use ironroot_api::tls::{TlsPeer, VerifiedSvid};
use ironroot_api::unix_socket::PeerCredentials;

/// The other end of an RPC.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Someone with access to the admin socket.
    Local(PeerCredentials),
    /// A TLS client, with an X509-SVID or without.
    Remote(TlsPeer),
}

impl Caller {
    /// The source address of a remote caller.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Local(_) => None,
            Self::Remote(peer) => Some(peer.address.ip()),
        }
    }

    /// The certificate of a remote caller that has shown one.
    pub fn svid(&self) -> Option<&VerifiedSvid> {
        match self {
            Self::Local(_) => None,
            Self::Remote(peer) => peer.svid.as_ref(),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.svid()) {
            (Self::Local(_), _) => f.write_str("local"),
            (Self::Remote(peer), Some(svid)) => write!(f, "{} at {}", svid.spiffe_id(), peer.address),
            (Self::Remote(peer), None) => write!(f, "{}", peer.address),
        }
    }
}

/// The right to what anyone may do.
#[derive(Clone, Debug)]
#[must_use]
pub struct Visitor(Caller);

impl Visitor {
    /// Everybody passes.
    pub fn judge(caller: Caller) -> Self {
        Self(caller)
    }

    /// The connection: an address, or the admin socket, with whatever certificate it shows.
    pub fn caller(&self) -> &Caller {
        &self.0
    }
}
