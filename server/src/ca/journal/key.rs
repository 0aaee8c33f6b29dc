//! Which key in the token an authority has, and which keys were ever used.

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_hsm::{KeyId, KeyName};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A key in the token, by the name that it is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "StoredKey", into = "StoredKey")]
pub struct KeyRecord {
    /// What the token calls it.
    pub name: KeyName,
    /// Whether this server may destroy it.
    pub origin: Origin,
    /// Of an administrator's key, which one had that name when it was taken; none in a journal of before that was kept.
    mark: Option<KeyMark>,
}

/// Who made a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// This server: it destroys the key when its time is over.
    Made,
    /// The HSM's administrator: the key is never destroyed here, only used no more.
    Given,
}

impl KeyRecord {
    /// Of a key that this server makes.
    pub fn made(name: KeyName) -> Self {
        Self { name, origin: Origin::Made, mark: None }
    }

    /// Of a key that an administrator made, and that is taken now.
    pub fn given(name: KeyName, mark: KeyMark) -> Self {
        Self { name, origin: Origin::Given, mark: Some(mark) }
    }

    /// Which key had that name when it was taken, if it is an administrator's.
    pub fn mark(&self) -> Option<&KeyMark> {
        self.mark.as_ref()
    }
}

/// A key that has been used, whatever it is called: the first half of the SHA-256 of its public half, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyMark(String);

impl KeyMark {
    /// `spki`: DER SubjectPublicKeyInfo.
    pub fn of(spki: &[u8]) -> Self {
        let hash = digest(&SHA256, spki);
        Self(hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "id_to_hex",
        deserialize_with = "id_from_hex"
    )]
    id: Option<KeyId>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    label: String,
    origin: Origin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<KeyMark>,
}

impl From<KeyRecord> for StoredKey {
    fn from(record: KeyRecord) -> Self {
        let KeyRecord { name, origin, mark } = record;
        Self { id: name.id().cloned(), label: name.label().unwrap_or_default().to_owned(), origin, mark }
    }
}

impl TryFrom<StoredKey> for KeyRecord {
    type Error = &'static str;

    fn try_from(stored: StoredKey) -> Result<Self, Self::Error> {
        let StoredKey { id, label, origin, mark } = stored;
        let name = match id {
            Some(id) => Some(KeyName::new(id, &label)),
            None => KeyName::labelled(&label),
        };
        Ok(Self { name: name.ok_or("a key has neither CKA_ID nor CKA_LABEL")?, origin, mark })
    }
}

fn id_to_hex<S: Serializer>(id: &Option<KeyId>, serializer: S) -> Result<S::Ok, S::Error> {
    id.as_ref().map(KeyId::to_string).serialize(serializer)
}

fn id_from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<KeyId>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote_and_wants_a_name() {
        let id = KeyId::new(&[1, 0xff]).unwrap();
        for record in [
            KeyRecord::made(KeyName::new(id.clone(), "ca")),
            KeyRecord::given(KeyName::from(&id), KeyMark::of(b"one")),
            KeyRecord::given(KeyName::labelled("ca").unwrap(), KeyMark::of(b"two")),
            KeyRecord { mark: None, ..KeyRecord::given(KeyName::labelled("ca").unwrap(), KeyMark::of(b"two")) },
        ] {
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<KeyRecord>(&text).unwrap(), record, "{text}");
        }
        for wrong in [r#"{"origin":"made"}"#, r#"{"id":"zz","origin":"made"}"#, r#"{"label":"a","origin":"x"}"#] {
            assert!(serde_json::from_str::<KeyRecord>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mark_is_of_the_public_half_alone() {
        assert_eq!(KeyMark::of(b"one"), KeyMark::of(b"one"));
        assert_ne!(KeyMark::of(b"one"), KeyMark::of(b"two"));
        assert_eq!(KeyMark::of(b"").0, "e3b0c44298fc1c149afbf4c8996fb924");
    }
}
