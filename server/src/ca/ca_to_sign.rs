//! For whom a CA is certified: a server below this one, or an agent.

use ironroot_api::csr::{Csr, Spki};

use crate::rights::{CaScope, DownstreamServer};

/// The CA of a server below. Its key comes from the request that was proven with it, its name from this server.
///
/// ```compile_fail
/// # fn forge(csr: &ironroot_api::csr::Csr) {
/// drop(ironroot_server::ca::CaToSign::of(csr, 0));
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct CaToSign {
    pub(super) spki: Spki,
    /// 0: the server's default.
    pub(super) ttl_seconds: i64,
    /// What it may sign, by its entries.
    pub(super) scope: CaScope,
}

impl CaToSign {
    /// What `server` asks for. `preferred_ttl_seconds` below 1: the default.
    pub fn of(server: &DownstreamServer, csr: &Csr, preferred_ttl_seconds: i32) -> Self {
        Self { spki: csr.spki().clone(), ttl_seconds: i64::from(preferred_ttl_seconds).max(0), scope: server.scope() }
    }
}
