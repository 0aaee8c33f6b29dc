//! A handshake that failed for want of a signature.

use std::error::Error;
use std::sync::Arc;

use ironroot_shell::describe;
use rustls::OtherError;
use thiserror::Error;

/// Why the device that holds the key did not sign, the whole chain: rustls shows an error without its causes, and the cause is what an
/// operator needs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("it did not sign: {0}")]
pub struct NotSigned(String);

impl NotSigned {
    pub(super) fn because(error: &(dyn Error + 'static)) -> Self {
        Self(describe(error).to_string())
    }
}

impl From<NotSigned> for rustls::Error {
    fn from(error: NotSigned) -> Self {
        Self::Other(OtherError(Arc::new(error)))
    }
}
