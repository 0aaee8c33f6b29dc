//! One login: what sessions and object handles belong to.

use cryptoki::session::{Session, SessionState};

use crate::error::HsmError;

/// One login. Sessions and object handles belong to the login they were made in: a key has new handles after the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    /// The module's epoch that it was made in.
    pub(crate) epoch: u64,
    /// Counted from the start of the process.
    pub(crate) number: u64,
    /// The token shows private objects only to who is logged in.
    pub(crate) is_needed: bool,
}

/// Whether this session sees private objects.
pub(crate) fn is_logged_in(session: &Session) -> Result<bool, HsmError> {
    let state = session.get_session_info()?.session_state();
    Ok(matches!(state, SessionState::RoUser | SessionState::RwUser))
}
