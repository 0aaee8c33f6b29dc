//! What a backup says of itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::store::Summary;

/// What a backup says of itself; it stands before the parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the server's programs that made it.
    pub made_by: String,
    /// When, UNIX seconds.
    pub made_at: i64,
    /// Whose it is.
    pub trust_domain: String,
    /// `server_name` of the configuration it was made with; empty if it has none.
    pub server_name: String,
    /// What the database holds.
    pub datastore: Summary,
    /// In the order in which they follow; each name at most once.
    pub parts: Vec<Part>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// What it is.
    pub name: PartName,
    /// How long it is.
    pub bytes: u64,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
}

/// What files a backup may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartName {
    /// The database, with every CA's journal in it.
    Datastore,
    /// The file of KeyManager "disk".
    Keys,
}

impl Manifest {
    /// That part, if it is there.
    pub fn part(&self, name: PartName) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Datastore => "data store",
            Self::Keys => "key file",
        })
    }
}
