//! The public half of a key that signs JWT-SVIDs, and the ID that it has in bundles.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_api::csr::Spki;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What verifies JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtKey {
    key_id: KeyId,
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    spki: Spki,
}

impl JwtKey {
    /// A key under this ID.
    pub fn new(key_id: KeyId, spki: Spki) -> Self {
        Self { key_id, spki }
    }

    /// The `kid` of bundles and tokens.
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// The public half.
    pub fn spki(&self) -> &Spki {
        &self.spki
    }
}

/// Length of a key ID. Source: SPIRE `newKeyID`.
const KEY_ID_CHARS: usize = 32;
const ALPHABET: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// The `kid` of a key: random, since keys of other servers of the trust domain stand beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl KeyId {
    /// Another one at each call.
    //= WIT-03 WIT-SVID 2.1: "The issuer MUST ensure that the value set within the `kid` parameter is unique to each issuing key-pair."
    pub fn random() -> Self {
        let mut choices = [0; KEY_ID_CHARS];
        rand::fill(&mut choices).expect("the kernel's random numbers do not fail");
        Self::of(choices)
    }

    fn of(choices: [u8; KEY_ID_CHARS]) -> Self {
        Self(choices.iter().map(|choice| char::from(ALPHABET[usize::from(*choice) % ALPHABET.len()])).collect())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for KeyId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_one = text.len() == KEY_ID_CHARS && text.bytes().all(|byte| ALPHABET.contains(&byte));
        is_one.then_some(Self(text)).ok_or("a key ID is damaged")
    }
}

impl From<KeyId> for String {
    fn from(key_id: KeyId) -> Self {
        key_id.0
    }
}

fn to_base64<S: Serializer>(spki: &Spki, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(spki.as_der()))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Spki, D::Error> {
    let der = STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)?;
    Spki::parse(&der).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    //= WIT-03
    // Vector: SPIRE pkg/server/ca/manager, keyIDFromBytes.
    #[test]
    fn a_key_id_is_32_letters_and_digits_and_never_the_same() {
        let choices = std::array::from_fn(|n| u8::try_from(n * 8).unwrap());
        assert_eq!(KeyId::of(choices).as_str(), "aiqyGOW4cksAIQY6emuCKS08gowEMU2a");
        assert_ne!(KeyId::random(), KeyId::random());
        for wrong in ["", "aiqyGOW4cksAIQY6emuCKS08gowEMU2", "aiqyGOW4cksAIQY6emuCKS08gowEMU2-"] {
            assert!(KeyId::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
