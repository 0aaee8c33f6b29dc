//! When and where from a node attests.

use std::net::IpAddr;

use crate::rights::Provenance;

/// What an attestor may look at besides the message.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// UNIX seconds.
    pub now_unix: i64,
    /// The other end of the connection; none of a node on this machine's socket.
    pub address: Option<IpAddr>,
    /// The authorities that verify this trust domain's SVIDs, DER, without tainted ones.
    pub own_authorities: &'a [Vec<u8>],
    /// Whose signature below them counts at this server, and through whom an SVID was fetched.
    pub provenance: Provenance<'a>,
}
