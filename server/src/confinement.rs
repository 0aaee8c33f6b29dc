//! What the process gives up before it serves anybody: being read or dumped, and every capability that a server has no use for.
//!
//! Source: capabilities(7). A server started without privilege has nothing to give up and loses nothing here.

use ironroot_shell::process::{self, Capability, CapabilityError, ProcessError};
use thiserror::Error;

/// What a server keeps of root's rights: files and devices of the token's library may belong to another user, and ports below
/// 1024 may be configured.
const KEPT: [Capability; 2] = [Capability::CAP_DAC_OVERRIDE, Capability::CAP_NET_BIND_SERVICE];

/// Why a server cannot be confined.
#[derive(Debug, Error)]
pub enum ConfinementError {
    /// What it has cannot be given up.
    #[error(transparent)]
    Kept(#[from] CapabilityError),
    /// It cannot be closed to others.
    #[error(transparent)]
    Open(#[from] ProcessError),
}

/// Closes the process and drops capabilities, for good. Must run while the process has one thread, so before the log, which may
/// have one.
pub fn confine() -> Result<(), ConfinementError> {
    process::drop_all_except(&KEPT)?;
    Ok(process::close()?)
}
