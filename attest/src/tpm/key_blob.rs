//! A key or secret as the chip hands it out: wrapped, safe at rest.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tss_esapi::structures::{Private, Public};
use tss_esapi::traits::{Marshall, UnMarshall};

use super::error::TpmError;
use crate::structures::{Curve, PublicKey};

/// Longest field accepted from storage, bytes. The longest honest one is an RSA-2048 private part, under 1 KiB.
const MAX_FIELD_BYTES: usize = 4096;

/// A TPM object outside the TPM. The private part is encrypted and authenticated by its parent key: whoever steals it can
/// do nothing without the chip. In JSON: base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyBlob {
    /// TPMT_PUBLIC (Part 2 §12.2.4).
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub public: Vec<u8>,
    /// Content of TPM2B_PRIVATE (Part 2 §12.3.7), without its size.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub private: Vec<u8>,
    /// Name of the parent key (Part 1 §16). Sessions are salted to the parent only if it has this name, so that nothing
    /// on the bus can put its own key in the parent's place.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub parent: Vec<u8>,
}

impl KeyBlob {
    pub(super) fn new(public: &Public, private: &Private, parent: Vec<u8>) -> Result<Self, TpmError> {
        Ok(Self { public: marshal("TPM2_Create", public)?, private: private.value().to_vec(), parent })
    }

    /// DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) of a P-256 key.
    pub fn spki_der(&self) -> Result<Vec<u8>, TpmError> {
        let key = match self.esys_public()? {
            Public::Ecc { unique, .. } => PublicKey::ecc(Curve::P256, unique.x().value(), unique.y().value()),
            _ => return Err(TpmError::Argument("the key blob is not of an elliptic curve key")),
        };
        let key = key.map_err(|_| TpmError::Argument("the key blob's public key is not on P-256"))?;
        Ok(key.to_spki_der())
    }

    pub(super) fn esys_public(&self) -> Result<Public, TpmError> {
        Public::unmarshall(&self.public).map_err(|_| TpmError::Argument("the key blob's public part is damaged"))
    }

    pub(super) fn esys_private(&self) -> Result<Private, TpmError> {
        Private::try_from(self.private.as_slice())
            .map_err(|_| TpmError::Argument("the key blob's private part is damaged"))
    }
}

/// The bytes of a structure that the library parsed from a response to `command`.
pub fn marshal(command: &'static str, structure: &impl Marshall) -> Result<Vec<u8>, TpmError> {
    structure.marshall().map_err(|e| TpmError::of(command, e))
}

pub(super) fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

pub(super) fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.len() > MAX_FIELD_BYTES.div_ceil(3) * 4 {
        return Err(de::Error::custom("key blob field is too long"));
    }
    STANDARD.decode(text).map_err(de::Error::custom)
}
