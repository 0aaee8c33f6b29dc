//! Who may certify hosts: public keys, a line each, as in `authorized_keys`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::key::SshKey;
use super::refusal::SshPopRefusal;

/// Most authorities.
const MAX_AUTHORITIES: usize = 1024;
/// Longest line accepted, bytes: a key of RSA with 8192 bits has 1,400.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// Keys that may certify hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAuthorities(Vec<SshKey>);

/// Why a line names no authority.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotAnAuthority {
    /// It is no key.
    #[error("it is no key as authorized_keys has it: a type, base64, and a comment if you like")]
    Form,
    /// It is none that is known here.
    #[error(transparent)]
    Key(#[from] SshPopRefusal),
}

/// Why lines name no authorities.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthoritiesError {
    /// One of them.
    #[error("line {line}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        error: NotAnAuthority,
    },
    /// No line has a key.
    #[error("there is no key")]
    Empty,
    /// More than are read.
    #[error("there are more than {MAX_AUTHORITIES} keys")]
    TooMany,
}

impl HostAuthorities {
    /// Reads lines; empty ones and those that begin with `#` say nothing.
    pub fn from_lines(text: &str) -> Result<Self, AuthoritiesError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line_text = line.trim();
            if line_text.is_empty() || line_text.starts_with('#') {
                continue;
            }
            if keys.len() == MAX_AUTHORITIES {
                return Err(AuthoritiesError::TooMany);
            }
            let key = authority(line_text).map_err(|error| AuthoritiesError::Line { line: number + 1, error })?;
            keys.push(key);
        }
        if keys.is_empty() { Err(AuthoritiesError::Empty) } else { Ok(Self(keys)) }
    }

    /// These and those.
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    pub(super) fn have(&self, key: &SshKey) -> bool {
        self.0.contains(key)
    }
}

fn authority(line: &str) -> Result<SshKey, NotAnAuthority> {
    let mut words = line.split_ascii_whitespace();
    let (kind, blob) = words.next().zip(words.next()).ok_or(NotAnAuthority::Form)?;
    if line.len() > MAX_LINE_BYTES {
        return Err(NotAnAuthority::Form);
    }
    let key = SshKey::parse(&STANDARD.decode(blob).map_err(|_| NotAnAuthority::Form)?)?;
    if key.kind() == kind { Ok(key) } else { Err(NotAnAuthority::Form) }
}
