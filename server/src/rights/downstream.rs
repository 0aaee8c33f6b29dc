//! The right to a CA below this server's.

use ironroot_api::SpiffeId;

use super::{Caller, NoRight, Provenance};

/// A server below this one, or an agent with a CA of its own: it shows an SVID of an entry that is `downstream`.
#[derive(Clone, Debug)]
#[must_use]
pub struct DownstreamServer {
    caller: Caller,
    id: SpiffeId,
    scope: CaScope,
}

/// What a CA below this server's is for, by the entries that say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaScope {
    /// A server's, which may have others below it: as SPIRE has it, there is no bound in the certificate.
    Server,
    /// An agent's, for its own workloads while this server is away: it signs SVIDs and no CAs.
    LocalAuthority,
}

impl DownstreamServer {
    /// Lets servers below pass. `provenance`: what their certificates must come from. `downstream`: what an entry says of an ID, if
    /// one lets it have a CA.
    pub fn judge(
        caller: Caller,
        provenance: Provenance<'_>,
        downstream: impl FnOnce(&SpiffeId) -> Option<CaScope>,
        now_unix: i64,
    ) -> Result<Self, NoRight> {
        let svid = caller.svid().ok_or(NoRight::NotDownstream)?;
        if svid.not_after_unix() <= now_unix {
            return Err(NoRight::DownstreamExpired);
        }
        let id = svid.spiffe_id().clone();
        let scope = downstream(&id).ok_or(NoRight::NotDownstream)?;
        let _own = provenance.judge(svid)?;
        Ok(Self { caller, id, scope })
    }

    /// The server and its connection.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The SPIFFE ID of the entry.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// What its CA may sign.
    pub fn scope(&self) -> CaScope {
        self.scope
    }
}
