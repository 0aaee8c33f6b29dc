//! Byte strings as standard base64 with padding, length checked before decoding.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// At most `MAX` bytes.
pub(super) struct Base64<const MAX: usize>(pub Vec<u8>);

/// Exactly 32 bytes.
pub(super) struct Base64Digest(pub [u8; 32]);

impl<const MAX: usize> Serialize for Base64<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Base64<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(AtMost::<MAX>).map(Self)
    }
}

impl Serialize for Base64Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = deserializer.deserialize_str(AtMost::<32>)?;
        bytes.try_into().map(Self).map_err(|_| D::Error::custom("expected 32 bytes of base64"))
    }
}

struct AtMost<const MAX: usize>;

impl<const MAX: usize> Visitor<'_> for AtMost<MAX> {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "base64 of at most {MAX} bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
        if text.len() > MAX.div_ceil(3) * 4 {
            return Err(E::custom(format_args!("longer than base64 of {MAX} bytes")));
        }
        let bytes = STANDARD.decode(text).map_err(|_| E::custom("not standard base64 with padding"))?;
        if bytes.len() > MAX { Err(E::custom(format_args!("longer than {MAX} bytes"))) } else { Ok(bytes) }
    }
}
