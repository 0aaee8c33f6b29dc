//! Authorization by a hierarchy, or by the password of a key.

use tss_esapi::handles::ObjectHandle;
use tss_esapi::interface_types::session_handles::AuthSession;

use super::connection::{Connection, NO_SESSION};
use super::endorsement_kind::EndorsementKind;
use super::error::TpmError;
use super::hierarchy::KeyHierarchy;
use super::primary::Primary;
use super::settings::HierarchyPassword;

impl Connection {
    /// Runs `command` with an authorization by `hierarchy`. A refusal names the hierarchy.
    ///
    /// The empty password goes as it is. Another one is proven in an HMAC session and never crosses the bus. Where a key is persistent the
    /// session is salted to it; where none is, whoever listens can try passwords against what was proven, as fast as he likes.
    pub fn authorized_by<T>(
        &mut self,
        hierarchy: KeyHierarchy,
        command: impl FnOnce(&mut Self, AuthSession) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let password = self.settings().password(hierarchy).clone();
        if password.is_empty() {
            return command(self, AuthSession::Password).map_err(|error| error.of_hierarchy(hierarchy));
        }
        let auth = password.to_auth()?;
        self.command("Esys_TR_SetAuth", NO_SESSION, |esys| esys.tr_set_auth(hierarchy.handle(), auth.clone()))?;
        let session = self.proving_session()?;
        let value = command(self, session).map_err(|error| error.of_hierarchy(hierarchy))?;
        self.end_session(session)?;
        Ok(value)
    }

    /// What authorizes the use of `object` by its own password, in the same way; the session ends with the task.
    pub fn authorized_for(
        &mut self,
        object: ObjectHandle,
        password: &HierarchyPassword,
    ) -> Result<AuthSession, TpmError> {
        if password.is_empty() {
            return Ok(AuthSession::Password);
        }
        let auth = password.to_auth()?;
        self.command("Esys_TR_SetAuth", NO_SESSION, |esys| esys.tr_set_auth(object, auth.clone()))?;
        self.proving_session()
    }

    /// Making a key to salt to would take the very password.
    fn proving_session(&mut self) -> Result<AuthSession, TpmError> {
        let endorsement_keys = EndorsementKind::ALL.map(Primary::Endorsement);
        for primary in [Primary::StorageRoot].into_iter().chain(endorsement_keys) {
            // One that cannot be read is none to salt to.
            if let Ok(Some(key)) = self.persistent(primary) {
                return self.password_session(Some(&key));
            }
        }
        self.password_session(None)
    }
}
