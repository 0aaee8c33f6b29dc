//! The version of a TPM's firmware.

use std::fmt;

use thiserror::Error;

/// Not a version.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no firmware version: give one to four numbers up to 65535 with dots, such as 7.61")]
pub struct FirmwareVersionError(String);

/// firmwareVersion of TPMS_ATTEST (Part 2 §10.12.12): the maker's, by custom four numbers of 16 bits. As text: `7.61.2785.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FirmwareVersion(pub u64);

impl FirmwareVersion {
    /// The first version that begins so: what is not said is 0.
    pub fn first_of(text: &str) -> Result<Self, FirmwareVersionError> {
        Self::filled(text, 0)
    }

    /// The last version that begins so.
    pub fn last_of(text: &str) -> Result<Self, FirmwareVersionError> {
        Self::filled(text, u16::MAX)
    }

    fn filled(text: &str, rest: u16) -> Result<Self, FirmwareVersionError> {
        let refusal = || FirmwareVersionError(text.chars().take(32).collect());
        let mut words = [rest; 4];
        for (place, part) in text.split('.').enumerate() {
            let word = words.get_mut(place).ok_or_else(refusal)?;
            let is_number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            *word = part.parse().ok().filter(|_| is_number).ok_or_else(refusal)?;
        }
        Ok(Self(words.iter().fold(0, |version, word| version << 16 | u64::from(*word))))
    }
}

impl fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |shift: u32| (self.0 >> shift) & 0xffff;
        write!(f, "{}.{}.{}.{}", word(48), word(32), word(16), word(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_four_numbers_and_those_not_said_are_the_first_or_the_last() {
        let first = FirmwareVersion::first_of("7.61").expect("a version");
        assert_eq!((first, first.to_string().as_str()), (FirmwareVersion(0x0007_003d_0000_0000), "7.61.0.0"));
        assert_eq!(FirmwareVersion::last_of("7.61").expect("a version").to_string(), "7.61.65535.65535");
        let within = FirmwareVersion::first_of("7.61.1.2").expect("a version");
        assert!(first < within && within < FirmwareVersion::last_of("7.61").expect("a version"));
        for text in ["", "7.", ".7", "7.61.1.2.3", "65536", "+7", "-1", "7 61"] {
            assert!(FirmwareVersion::first_of(text).is_err(), "{text}");
        }
    }
}
