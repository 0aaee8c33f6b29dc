//! What authorities are for. A new kind is a line here, its certificate or key in `journal/credential.rs`, and how it is made.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Purpose {
    /// CAs; it is what bundles hold.
    #[serde(rename = "x509-Root")]
    Root,
    /// X509-SVIDs. Source of the name: SPIRE's slots `x509-CA-A`, `x509-CA-B`.
    #[serde(rename = "x509-CA")]
    X509Ca,
    /// JWT-SVIDs. Source of the name: SPIRE's slots `JWT-Signer-A`, `JWT-Signer-B`.
    #[serde(rename = "JWT-Signer")]
    Jwt,
    /// WIT-SVIDs. Source of the name: SPIRE's slots `WIT-Signer-A`, `WIT-Signer-B`.
    #[serde(rename = "WIT-Signer")]
    Wit,
}

impl Purpose {
    /// Each, in the order in which they are made: who signs others comes first.
    pub const ALL: [Self; 4] = [Self::Root, Self::X509Ca, Self::Jwt, Self::Wit];

    /// What metrics and programs call such an authority.
    pub fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::X509Ca => "x509_ca",
            Self::Jwt => "jwt_key",
            Self::Wit => "wit_key",
        }
    }

    /// What the log calls such an authority.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::X509Ca => "X509 CA",
            Self::Jwt => "JWT key",
            Self::Wit => "WIT key",
        }
    }

    /// Whether it is keys that sign tokens: they are published themselves, and no CA needs them.
    pub fn signs_tokens(self) -> bool {
        match self {
            Self::Root | Self::X509Ca => false,
            Self::Jwt | Self::Wit => true,
        }
    }
}

/// As keys in the token are called after it.
impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "x509-Root",
            Self::X509Ca => "x509-CA",
            Self::Jwt => "JWT-Signer",
            Self::Wit => "WIT-Signer",
        })
    }
}
