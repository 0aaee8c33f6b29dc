//! Authorization by a hierarchy.

use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::Auth;

use super::connection::{Connection, NO_SESSION};
use super::error::TpmError;
use super::hierarchy::KeyHierarchy;

impl Connection {
    /// Runs `command` with an authorization by `hierarchy`. A refusal names the hierarchy.
    ///
    /// The empty password goes as it is. Another one is proven in an HMAC session and never crosses the bus.
    pub fn authorized_by<T>(
        &mut self,
        hierarchy: KeyHierarchy,
        command: impl FnOnce(&mut Self, AuthSession) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let password = self.settings().password(hierarchy).clone();
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
