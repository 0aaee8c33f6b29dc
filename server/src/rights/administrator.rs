//! The right to administer.

use ironroot_api::SpiffeId;
use ironroot_api::unix_socket::PeerCredentials;

use super::{Caller, NoRight, Provenance};

/// The right to administer: the admin socket, an admin ID of the configuration, or an entry with `admin`.
#[derive(Clone, Debug)]
#[must_use]
pub struct Administrator(Caller);

impl Administrator {
    /// Whoever may open the admin socket.
    pub fn local(peer: PeerCredentials) -> Self {
        Self(Caller::Local(peer))
    }

    /// Lets administrators pass. `provenance`: what their certificates must come from. `is_admin`: whether configuration or registry
    /// say so of an ID.
    pub fn judge(
        caller: Caller,
        provenance: Provenance<'_>,
        is_admin: impl FnOnce(&SpiffeId) -> bool,
        now_unix: i64,
    ) -> Result<Self, NoRight> {
        if let Caller::Remote(peer) = &caller {
            let svid = peer.svid.as_ref().ok_or(NoRight::NotAdministrator)?;
            if svid.not_after_unix() <= now_unix {
                return Err(NoRight::AdministratorExpired);
            }
            if !is_admin(svid.spiffe_id()) {
                return Err(NoRight::NotAdministrator);
            }
            //= FLT-S25 server faults: "a CA below the server makes nobody an administrator, an agent or a server below"
            let _own = provenance.judge(svid)?;
        }
        Ok(Self(caller))
    }

    /// The administrator: `local`, or an ID at an address; audit lines name it.
    pub fn caller(&self) -> &Caller {
        &self.0
    }
}
