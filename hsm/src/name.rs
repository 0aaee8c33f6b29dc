//! What a key is called in a token: CKA_ID, CKA_LABEL, or both.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest CKA_ID accepted, bytes.
const MAX_ID_BYTES: usize = 255;

/// A key's CKA_ID.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyId(Vec<u8>);

/// A text that is no CKA_ID.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "not a CKA_ID: write 1 to {MAX_ID_BYTES} bytes in hexadecimal, two digits each, as pkcs11-tool --list-objects prints them"
)]
pub struct KeyIdError;

impl KeyId {
    /// 1 to 255 bytes.
    pub fn new(id: &[u8]) -> Option<Self> {
        (1..=MAX_ID_BYTES).contains(&id.len()).then(|| Self(id.to_vec()))
    }

    /// CKA_ID as the token has it; text forms are hexadecimal.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Hexadecimal digits; colons between bytes are passed over.
impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        let digits: Option<Vec<u8>> = text.chars().filter(|c| *c != ':').map(hex_digit).collect();
        let digits = digits.ok_or(KeyIdError)?;
        let (pairs, rest) = digits.as_chunks::<2>();
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        Self::new(&bytes).filter(|_| rest.is_empty()).ok_or(KeyIdError)
    }
}

fn hex_digit(c: char) -> Option<u8> {
    c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// What a key is called in the token. A key of the label is only looked for if none has the CKA_ID: where a token chooses
/// CKA_IDs itself, or if no CKA_ID is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyName {
    id: Option<KeyId>,
    label: Option<String>,
}

impl KeyName {
    /// By both; an empty `label` is none.
    pub fn new(id: KeyId, label: &str) -> Self {
        Self { id: Some(id), label: some_text(label) }
    }

    /// By its label alone, which is not empty.
    pub fn labelled(label: &str) -> Option<Self> {
        Some(Self { id: None, label: Some(some_text(label)?) })
    }

    /// The CKA_ID, if it is known.
    pub fn id(&self) -> Option<&KeyId> {
        self.id.as_ref()
    }

    /// The CKA_LABEL, if keys may be found by it.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// With the CKA_ID that the token tells, if it tells one.
    pub(crate) fn told(self, id: Option<KeyId>) -> Self {
        Self { id: id.or(self.id), label: self.label }
    }
}

fn some_text(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// By its identifier alone.
impl From<&KeyId> for KeyName {
    fn from(id: &KeyId) -> Self {
        Self { id: Some(id.clone()), label: None }
    }
}

impl From<&KeyName> for KeyName {
    fn from(name: &KeyName) -> Self {
        name.clone()
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.id, &self.label) {
            (Some(id), Some(label)) => write!(f, "CKA_ID {id} (CKA_LABEL {label:?})"),
            (Some(id), None) => write!(f, "CKA_ID {id}"),
            (None, label) => write!(f, "CKA_LABEL {:?}", label.as_deref().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_read_as_tools_print_them() {
        for (text, bytes) in [("01ff", &[1u8, 0xff][..]), ("01:FF", &[1, 0xff]), ("a0", &[0xa0])] {
            assert_eq!(text.parse::<KeyId>().map(|id| id.as_bytes().to_vec()), Ok(bytes.to_vec()), "{text}");
        }
        for wrong in ["", ":", "0", "0x01", "01 02", "zz", &"00".repeat(256)] {
            assert_eq!(wrong.parse::<KeyId>(), Err(KeyIdError), "{wrong}");
        }
    }

    #[test]
    fn names_say_what_is_known() {
        let id = KeyId::new(&[1, 2]).unwrap();
        for (name, text) in [
            (KeyName::new(id.clone(), "ca"), "CKA_ID 0102 (CKA_LABEL \"ca\")"),
            (KeyName::from(&id), "CKA_ID 0102"),
            (KeyName::new(id.clone(), ""), "CKA_ID 0102"),
            (KeyName::labelled("ca 1").unwrap(), "CKA_LABEL \"ca 1\""),
            (KeyName::labelled("ca").unwrap().told(Some(id)), "CKA_ID 0102 (CKA_LABEL \"ca\")"),
        ] {
            assert_eq!(name.to_string(), text);
        }
        assert_eq!(KeyName::labelled(""), None);
    }
}
