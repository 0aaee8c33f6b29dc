//! The right to administer.

use ironroot_api::SpiffeId;

use super::{Caller, NoRight};

/// The right to administer: the admin socket, an admin ID of the configuration, or an entry with `admin`.
#[derive(Clone, Debug)]
#[must_use]
pub struct Administrator(Caller);

impl Administrator {
    /// Lets administrators pass. `is_admin`: whether configuration or registry say so of an ID.
    pub fn judge(caller: Caller, is_admin: impl FnOnce(&SpiffeId) -> bool, now_unix: i64) -> Result<Self, NoRight> {
        if let Caller::Remote(peer) = &caller {
            let svid = peer.svid.as_ref().ok_or(NoRight::NotAdministrator)?;
            if svid.not_after_unix() <= now_unix {
                return Err(NoRight::AdministratorExpired);
            }
            if !is_admin(svid.spiffe_id()) {
                return Err(NoRight::NotAdministrator);
            }
        }
        Ok(Self(caller))
    }

    /// The administrator: `local`, or an ID at an address; audit lines name it.
    pub fn caller(&self) -> &Caller {
        &self.0
    }
}
