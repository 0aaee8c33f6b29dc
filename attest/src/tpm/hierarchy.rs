//! Authorization by a hierarchy.

use std::fmt;

use tss_esapi::handles::ObjectHandle;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::Auth;

use super::connection::{Connection, NO_SESSION};
use super::settings::HierarchyPassword;
use super::{TpmError, TpmSettings};

/// A hierarchy that an agent works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHierarchy {
    /// Of the machine's owner: storage root key, counter.
    Owner,
    /// Of the maker's endorsement keys.
    Endorsement,
}

impl KeyHierarchy {
    pub(super) fn esys(self) -> Hierarchy {
        match self {
            KeyHierarchy::Owner => Hierarchy::Owner,
            KeyHierarchy::Endorsement => Hierarchy::Endorsement,
        }
    }

    fn handle(self) -> ObjectHandle {
        match self {
            KeyHierarchy::Owner => ObjectHandle::Owner,
            KeyHierarchy::Endorsement => ObjectHandle::Endorsement,
        }
    }

    fn password(self, settings: &TpmSettings) -> &HierarchyPassword {
        match self {
            KeyHierarchy::Owner => &settings.owner_password,
            KeyHierarchy::Endorsement => &settings.endorsement_password,
        }
    }
}

impl fmt::Display for KeyHierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyHierarchy::Owner => "owner",
            KeyHierarchy::Endorsement => "endorsement",
        })
    }
}

impl Connection {
    /// Runs `command` with an authorization by `hierarchy`. A refusal names the hierarchy.
    ///
    /// The empty password goes as it is. Another one is proven in an HMAC session and never crosses the bus.
    pub fn authorized_by<T>(
        &mut self,
        hierarchy: KeyHierarchy,
        command: impl FnOnce(&mut Self, AuthSession) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let password = hierarchy.password(self.settings()).clone();
        if password.is_empty() {
            return command(self, AuthSession::Password).map_err(|error| error.of_hierarchy(hierarchy));
        }
        let auth = Auth::try_from(password.bytes()).map_err(|e| TpmError::of("Esys_TR_SetAuth", e))?;
        self.command("Esys_TR_SetAuth", NO_SESSION, |esys| esys.tr_set_auth(hierarchy.handle(), auth.clone()))?;
        let session = self.unsalted_session()?;
        let value = command(self, session).map_err(|error| error.of_hierarchy(hierarchy))?;
        self.end_session(session)?;
        Ok(value)
    }
}
