//! `NodeAttestor "join_token"`: a secret of the server's administrator, good once.

use std::fmt;

use zeroize::Zeroizing;

/// The attestation type.
pub(super) const TYPE: &str = "join_token";

/// A single-use token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken(Zeroizing<String>);

impl JoinToken {
    /// From text; surrounding blanks are dropped.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.trim().to_owned()))
    }

    /// What is sent to the server.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(redacted)")
    }
}
