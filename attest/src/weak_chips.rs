//! Chips with known faults: which makers' firmware, and which keys.
//!
//! What proves what:
//!
//! - The version of the firmware is in the quote (firmwareVersion of TPMS_ATTEST), signed by an attestation key that lives in the
//!   same chip as the endorsement key. TPM2_GetCapability says it too, and nobody signs that.
//! - Who made the chip is said by its endorsement key certificate, which is proven if it leads to a maker's root; the operator's
//!   word in the registry counts as much. A certificate that nobody verified is believed when it accuses, never when it clears.
//! - A key of Infineon's weak library ([`has_roca_fingerprint`]) shows in its modulus, whatever certificate and version say. That is
//!   the one fault by which a chip's word about its firmware itself could be forged: who has computed the endorsement key's private
//!   half speaks for the chip.
//!
//! Not here: faults that need the chip in hand (voltage glitches, taps on the bus), and Intel's firmware TPMs, whose advisory
//! (INTEL-SA-00241) names versions of the CSME and not those that the TPM tells. Operators add what they know of their fleet.

mod firmware_version;
mod roca;
mod shipped;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

pub use firmware_version::{FirmwareVersion, FirmwareVersionError};
pub use roca::has_roca_fingerprint;

/// The name of the fault that [`has_roca_fingerprint`] tells.
pub const ROCA: &str = "roca";
/// What a chip without a known fault is said to have; no fault can be called so.
pub const NONE: &str = "none";
/// Longest name of a fault, bytes.
const MAX_NAME_BYTES: usize = 32;

/// A fault of one maker's firmware, in a range of versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weakness {
    /// What selectors call it, such as `roca`.
    pub name: String,
    /// The maker, as its certificates say (TCG TPM Vendor ID Registry).
    pub maker: String,
    /// The first version that has it.
    pub first: FirmwareVersion,
    /// The last one.
    pub last: FirmwareVersion,
    /// Who says so: an advisory, or the operator.
    pub source: String,
}

/// Who made a chip, and on whose word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Its endorsement key certificate leads to a maker that is trusted, or the operator has said so.
    Proven(String),
    /// A certificate for its key says so, which nobody has verified.
    Claimed(String),
    /// Nobody says.
    Unknown,
}

/// Not a fault in the operator's list.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WeaknessError {
    /// Another form.
    #[error("{0:?} is not of the form MAKER:FIRST-LAST:NAME, such as NTC:1.3-1.3.2.8:cve-2023-1017")]
    Form(String),
    /// A bound is none.
    #[error(transparent)]
    Version(#[from] FirmwareVersionError),
    /// An empty range.
    #[error("{first} comes after {last}")]
    Order {
        /// The first version.
        first: FirmwareVersion,
        /// The last one.
        last: FirmwareVersion,
    },
    /// It becomes part of a selector, and says something else.
    #[error("the name must be 1 to {MAX_NAME_BYTES} of a-z, 0-9, '.', '_' and '-', and not {NONE:?}")]
    Name,
}

impl Weakness {
    /// Whether a chip of that maker with that firmware has it.
    pub fn is_of(&self, maker: &str, version: FirmwareVersion) -> bool {
        self.maker == maker && (self.first..=self.last).contains(&version)
    }
}

impl FromStr for Weakness {
    type Err = WeaknessError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || WeaknessError::Form(text.chars().take(80).collect());
        let [maker, versions, name] =
            text.split(':').map(str::trim).collect::<Vec<_>>().try_into().map_err(|_| form())?;
        let (first, last) = versions.split_once('-').ok_or_else(form)?;
        let (first, last) = (FirmwareVersion::first_of(first)?, FirmwareVersion::last_of(last)?);
        if maker.is_empty() || !maker.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(form());
        }
        if first > last {
            return Err(WeaknessError::Order { first, last });
        }
        if !is_name(name) {
            return Err(WeaknessError::Name);
        }
        let (name, maker, source) = (name.to_owned(), maker.to_owned(), "the operator's list".to_owned());
        Ok(Self { name, maker, first, last, source })
    }
}

fn is_name(name: &str) -> bool {
    let is_legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_legal) && name != NONE
}

/// Faults that are known: those of the shipped list, and the operator's. Clones share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeaknessList(Arc<[Weakness]>);

impl WeaknessList {
    /// The shipped list, and these besides.
    pub fn with(own: Vec<Weakness>) -> Self {
        Self(shipped::weaknesses().chain(own).collect())
    }

    /// What is known of a chip: names of its faults; [`NONE`] alone if none is known of a chip whose maker is proven; nothing at all if
    /// the maker is not. `has_weak_key`: see [`has_roca_fingerprint`].
    pub fn names(&self, maker: &Maker, version: FirmwareVersion, has_weak_key: bool) -> BTreeSet<String> {
        let (name, is_proven) = match maker {
            Maker::Proven(name) => (name.as_str(), true),
            Maker::Claimed(name) => (name.as_str(), false),
            Maker::Unknown => ("", false),
        };
        let by_firmware = self.of(name, version).map(|weakness| weakness.name.clone());
        let names: BTreeSet<String> = by_firmware.chain(has_weak_key.then(|| ROCA.to_owned())).collect();
        if names.is_empty() && is_proven { [NONE.to_owned()].into() } else { names }
    }

    /// What is known of chips of that maker with that firmware.
    pub fn of(&self, maker: &str, version: FirmwareVersion) -> impl Iterator<Item = &Weakness> {
        self.0.iter().filter(move |weakness| weakness.is_of(maker, version))
    }
}

impl Default for WeaknessList {
    fn default() -> Self {
        Self::with(Vec::new())
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} firmware {} to {}; {})", self.name, self.maker, self.first, self.last, self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(maker: &str, version: &str) -> Vec<String> {
        let version = FirmwareVersion::first_of(version).expect("a version");
        WeaknessList::default().of(maker, version).map(|weakness| weakness.name.clone()).collect()
    }

    //= TPM-40
    #[test]
    fn firmware_of_the_shipped_list_is_known_to_its_last_version_and_not_beyond() {
        for (maker, version, expected) in [
            ("IFX", "5.61.2785.0", &["roca"][..]),
            ("IFX", "5.62.3126.0", &[]),
            ("IFX", "7.61", &["roca"]),
            ("IFX", "7.62", &[]),
            ("IFX", "7.85", &[]),
            ("IFX", "4.39", &[]),
            ("IFX", "4.40", &["roca"]),
            ("IFX", "133.32", &["roca"]),
            ("NTC", "7.61", &[]),
            ("STM", "73.4", &["tpm-fail"]),
            ("STM", "73.8.17568.4452", &["tpm-fail"]),
            ("STM", "73.12", &[]),
            ("STM", "73.20", &[]),
            ("STM", "74.16", &["tpm-fail"]),
            ("STM", "74.64", &[]),
            ("STM", "71.16", &[]),
            ("NTC", "1.3.2.8", &["cve-2023-1017"]),
            ("NTC", "1.3.2.20", &[]),
            ("", "7.61", &[]),
        ] {
            assert_eq!(names(maker, version), expected, "{maker} {version}");
        }
    }

    //= TPM-40
    #[test]
    fn a_certificate_that_nobody_verified_accuses_and_does_not_clear() {
        let (list, ifx) = (WeaknessList::default(), || "IFX".to_owned());
        let [weak, sound] = ["7.61", "7.85"].map(|text| FirmwareVersion::first_of(text).expect("a version"));
        for (maker, version, has_weak_key, expected) in [
            (Maker::Proven(ifx()), weak, false, &["roca"][..]),
            (Maker::Claimed(ifx()), weak, false, &["roca"]),
            (Maker::Proven(ifx()), sound, false, &["none"]),
            (Maker::Claimed(ifx()), sound, false, &[]),
            (Maker::Unknown, weak, false, &[]),
            (Maker::Proven(ifx()), sound, true, &["roca"]),
            (Maker::Unknown, sound, true, &["roca"]),
        ] {
            let names: Vec<String> = list.names(&maker, version, has_weak_key).into_iter().collect();
            assert_eq!(names, expected, "{maker:?} {version} {has_weak_key}");
        }
    }

    #[test]
    fn operators_add_what_they_know_and_mistakes_have_names() {
        let own: Weakness = "INTC:11.0-11.8.69: csme-11 ".parse().expect("legal");
        let list = WeaknessList::with(vec![own]);
        let of = |version: &str| list.of("INTC", FirmwareVersion::first_of(version).expect("a version")).count();
        assert_eq!((of("11.8.69.1000"), of("11.8.70"), of("10.9")), (1, 0, 0));
        for (text, error) in [
            ("INTC:11", WeaknessError::Form("INTC:11".into())),
            ("INTC:11:x", WeaknessError::Form("INTC:11:x".into())),
            (":1-2:x", WeaknessError::Form(":1-2:x".into())),
            ("INTC:1-2:none", WeaknessError::Name),
            ("INTC:1-2:A", WeaknessError::Name),
        ] {
            assert_eq!(text.parse::<Weakness>(), Err(error));
        }
        assert!(matches!("INTC:1-x:a".parse::<Weakness>(), Err(WeaknessError::Version(_))));
        assert!(matches!("INTC:2-1:a".parse::<Weakness>(), Err(WeaknessError::Order { .. })));
    }
}
