//! Who is at the other end of a TLS connection.

use std::net::SocketAddr;

use super::anchors::VerifiedSvid;

/// Who is at the other end: parsed once per connection, read by every handler.
#[derive(Clone, Debug)]
pub struct TlsPeer {
    /// Where it connects from, as the kernel says: behind a NAT, of many devices.
    pub address: SocketAddr,
    /// Which of our addresses it dialled.
    pub dialled: SocketAddr,
    /// Its X509-SVID, if it showed one.
    pub svid: Option<VerifiedSvid>,
}
