//! A register's value, or a digest, as hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use ironroot_text::hex::hex;
use serde::{Deserialize, Serialize};

/// Longest value, bytes: SHA-512's.
const MAX_BYTES: usize = 64;

/// The value of a PCR. As text and in JSON: lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PcrValue(pub Vec<u8>);

impl PcrValue {
    /// Whether nothing was ever measured into the register.
    pub fn is_untouched(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}

impl fmt::Display for PcrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PcrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PcrValue {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_hex || text.len() > 2 * MAX_BYTES {
            return Err("not the hexadecimal digits of a digest");
        }
        let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes = text.as_bytes().chunks(2).map(byte).collect::<Option<Vec<u8>>>();
        bytes.map(Self).ok_or("not the hexadecimal digits of a digest")
    }
}

impl TryFrom<String> for PcrValue {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PcrValue> for String {
    fn from(value: PcrValue) -> String {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_refuses_what_is_no_digest() {
        let value = PcrValue(vec![0, 0xff, 0x1a]);
        assert_eq!((value.to_string().as_str(), format!("{value:?}").as_str()), ("00ff1a", "00ff1a"));
        assert_eq!("00FF1a".parse(), Ok(value));
        for bad in ["0", "0g", "+1", "é0", &"00".repeat(65)] {
            assert!(bad.parse::<PcrValue>().is_err(), "{bad}");
        }
        assert!(PcrValue(vec![0; 32]).is_untouched() && !PcrValue(vec![0, 1]).is_untouched());
    }
}
