//! For whom a WIT-SVID is signed.

use ironroot_api::{SpiffeId, TrustDomain};

use crate::ca::jwt::{NotForWorkloads, workload_id};
use crate::registry::AuthorizedEntry;
use crate::rights::Administrator;

/// An identity that a token may be signed for.
///
/// ```compile_fail
/// # fn forge(id: ironroot_api::SpiffeId) {
/// drop(ironroot_server::ca::WitSubject { id, ttl_seconds: 0 });
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct WitSubject {
    pub(super) id: SpiffeId,
    /// 0: the default.
    pub(super) ttl_seconds: u32,
}

impl WitSubject {
    /// The identity of an entry that an agent serves; its token lives as long as its X509-SVID, as in SPIRE.
    pub fn of_entry(entry: &AuthorizedEntry) -> Self {
        let entry = entry.entry();
        Self { id: entry.spiffe_id().clone(), ttl_seconds: entry.x509_svid_ttl() }
    }

    /// A workload's ID that an administrator asks a token for, `ttl_seconds` long.
    pub fn minted(
        _: &Administrator,
        id: SpiffeId,
        trust_domain: &TrustDomain,
        ttl_seconds: u32,
    ) -> Result<Self, NotForWorkloads> {
        Ok(Self { id: workload_id(id, trust_domain)?, ttl_seconds })
    }

    /// The identity.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }
}
