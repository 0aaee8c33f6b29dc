//! What a server is called beside others that share its token.

mod kept;

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

pub use kept::{KeptNameError, check_kept_name, keep_name};

/// Longest name accepted, bytes.
const MAX_BYTES: usize = 63;

/// A server's name: part of the names of its keys, and of its rows in the data store. A server that is alone needs none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServerName(String);

/// A text that is no server's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("use 1 to {MAX_BYTES} of a-z, 0-9, \".\", \"_\" and \"-\"")]
pub struct ServerNameError;

impl ServerName {
    /// The text; empty if it has no name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has none.
    pub fn is_unnamed(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for ServerName {
    type Err = ServerNameError;

    fn from_str(text: &str) -> Result<Self, ServerNameError> {
        let is_legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        let is_name = (1..=MAX_BYTES).contains(&text.len()) && text.chars().all(is_legal);
        is_name.then(|| Self(text.to_owned())).ok_or(ServerNameError)
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unnamed() { f.write_str("(without a name)") } else { f.write_str(&self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        for name in ["a", "server-1", "ca.north_2", &"a".repeat(MAX_BYTES)] {
            assert_eq!(name.parse::<ServerName>().map(|name| name.as_str().to_owned()), Ok(name.to_owned()));
        }
        for wrong in ["", "A", "a b", "ä", "a/b", &"a".repeat(MAX_BYTES + 1)] {
            assert_eq!(wrong.parse::<ServerName>(), Err(ServerNameError), "{wrong}");
        }
    }
}
