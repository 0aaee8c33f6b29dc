//! What the world verifies an authority's signatures with.

mod jwt_key;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_api::certificate::Certificate;
use ironroot_hsm::KeyKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::format::JournalError;
use crate::ca::key_kind::{certified_kind, kind_of};

pub use jwt_key::{JwtKey, KeyId};

/// What the world verifies an authority's signatures with. Parsed once, where it is made or read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// X.509: the CA's or the root's certificate.
    Certificate(CaCertificate),
    /// JWT: the key itself, under the ID that it has in bundles.
    JwtKey(JwtKey),
    /// WIT: likewise.
    WitKey(JwtKey),
}

impl Credential {
    /// The certificate, for what signs X.509; other kinds have none.
    pub fn certificate(&self) -> Option<&Certificate> {
        match self {
            Self::Certificate(certificate) => Some(&certificate.0),
            Self::JwtKey(_) | Self::WitKey(_) => None,
        }
    }

    /// The published key, for what signs JWT-SVIDs; other kinds have none.
    pub fn jwt_key(&self) -> Option<&JwtKey> {
        if let Self::JwtKey(key) = self { Some(key) } else { None }
    }

    /// The published key, for what signs tokens of either kind.
    pub fn token_key(&self) -> Option<&JwtKey> {
        match self {
            Self::Certificate(_) => None,
            Self::JwtKey(key) | Self::WitKey(key) => Some(key),
        }
    }

    /// What kind of key it is.
    pub fn key_kind(&self) -> KeyKind {
        match self {
            Self::Certificate(certificate) => certified_kind(&certificate.0),
            Self::JwtKey(key) | Self::WitKey(key) => kind_of(key.spki()),
        }
    }

    /// Whether signatures of the key with this public half, a DER SubjectPublicKeyInfo, verify with it.
    pub fn is_of(&self, spki_der: &[u8]) -> bool {
        match self {
            Self::Certificate(certificate) => certificate.0.spki_der() == spki_der,
            Self::JwtKey(key) | Self::WitKey(key) => key.spki().as_der() == spki_der,
        }
    }

    /// The public half, a DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> Vec<u8> {
        match self {
            Self::Certificate(certificate) => certificate.0.spki_der(),
            Self::JwtKey(key) | Self::WitKey(key) => key.spki().as_der().to_vec(),
        }
    }

    /// Makes sure that it ends at `not_after`.
    pub(super) fn check_end(&self, not_after: i64) -> Result<(), JournalError> {
        match self {
            Self::Certificate(certificate) if certificate.0.not_after_unix() != not_after => {
                Err(JournalError::Contradiction("an authority ends at another time than its certificate"))
            }
            _ => Ok(()),
        }
    }

    /// Makes sure that it is this trust domain's and ends at `not_after`.
    pub(super) fn check(&self, trust_domain: &str, not_after: i64) -> Result<(), JournalError> {
        match self {
            Self::Certificate(certificate) => {
                self.check_end(not_after)?;
                check_trust_domain(&certificate.0, trust_domain)
            }
            // It says nothing of its trust domain or its life: the journal alone does.
            Self::JwtKey(_) | Self::WitKey(_) => Ok(()),
        }
    }
}

impl From<Certificate> for Credential {
    fn from(certificate: Certificate) -> Self {
        Self::Certificate(CaCertificate(Arc::new(certificate)))
    }
}

impl From<JwtKey> for Credential {
    fn from(key: JwtKey) -> Self {
        Self::JwtKey(key)
    }
}

fn check_trust_domain(certificate: &Certificate, trust_domain: &str) -> Result<(), JournalError> {
    if certificate.spiffe_id()?.trust_domain_name() != trust_domain {
        return Err(JournalError::Contradiction("an authority is another trust domain's"));
    }
    Ok(())
}

/// A CA's certificate; written down as its DER in base64.
#[derive(Clone)]
pub struct CaCertificate(Arc<Certificate>);

impl CaCertificate {
    /// The certificate.
    pub fn parsed(&self) -> &Certificate {
        &self.0
    }
}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaCertificate({})", self.0.serial_decimal())
    }
}

impl CaCertificate {
    pub(super) fn der(&self) -> &[u8] {
        self.0.der()
    }
}

impl From<Certificate> for CaCertificate {
    fn from(certificate: Certificate) -> Self {
        Self(Arc::new(certificate))
    }
}

impl Hash for CaCertificate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.der().hash(state);
    }
}

impl PartialEq for CaCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der() == other.0.der()
    }
}

impl Eq for CaCertificate {}

impl Serialize for CaCertificate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0.der()))
    }
}

impl<'de> Deserialize<'de> for CaCertificate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let der = STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)?;
        let certificate = Certificate::parse(&der).map_err(de::Error::custom)?;
        Ok(Self(Arc::new(certificate)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::authority;

    #[test]
    fn certificates_are_told_apart_by_their_bytes_and_called_by_their_numbers() {
        let [one, other] = ["spiffe://example.org"; 2].map(|uri| authority(uri).credential);
        assert!(one == one.clone() && one != other);
        let number = one.certificate().unwrap().serial_decimal();
        assert_eq!(format!("{one:?}"), format!("Certificate(CaCertificate({number}))"));
    }
}
