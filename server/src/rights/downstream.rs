//! The right of a server below this one.

use ironroot_api::SpiffeId;

use super::{Caller, NoRight};

/// A server below this one: it shows an SVID of an entry that is `downstream`.
#[derive(Clone, Debug)]
#[must_use]
pub struct DownstreamServer {
    caller: Caller,
    id: SpiffeId,
}

impl DownstreamServer {
    /// Lets servers below pass. `is_downstream`: whether an entry says so of an ID.
    pub fn judge(
        caller: Caller,
        is_downstream: impl FnOnce(&SpiffeId) -> bool,
        now_unix: i64,
    ) -> Result<Self, NoRight> {
        let svid = caller.svid().ok_or(NoRight::NotDownstream)?;
        if svid.not_after_unix() <= now_unix {
            return Err(NoRight::DownstreamExpired);
        }
        let id = svid.spiffe_id().clone();
        if !is_downstream(&id) {
            return Err(NoRight::NotDownstream);
        }
        Ok(Self { caller, id })
    }

    /// The server and its connection.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The SPIFFE ID of the entry.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }
}
