//! What becomes of chips with known faults.

use std::collections::BTreeSet;
use std::str::FromStr;

use ironroot_attest::node::tpm2::AttestedTpm;
use ironroot_attest::weak_chips::{FirmwareVersion, Maker, NONE, WeaknessList};
use ironroot_attest::{Selector, SelectorSet};

/// What becomes of a device whose chip has a known fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeakFirmware {
    /// It attests, and its selectors name the faults.
    #[default]
    Label,
    /// It is refused.
    Refuse,
}

impl FromStr for WeakFirmware {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "label" => Ok(Self::Label),
            "refuse" => Ok(Self::Refuse),
            _ => Err("use label (selectors name the faults of a chip) or refuse (it does not attest)"),
        }
    }
}

/// Before the name of a fault.
const FORM: &str = "weakness:";

/// What is known of a chip that has proven itself.
#[derive(Debug)]
pub(super) struct JudgedChip(BTreeSet<String>);

impl JudgedChip {
    /// `registered`: the maker that the operator has enrolled it with; empty if none.
    pub(super) fn of(chip: &AttestedTpm, registered: &str, known: &WeaknessList) -> Self {
        let maker = match chip.maker() {
            Maker::Claimed(_) | Maker::Unknown if !registered.is_empty() => Maker::Proven(registered.to_owned()),
            maker => maker.clone(),
        };
        Self(known.names(&maker, FirmwareVersion(chip.firmware_version()), chip.has_weak_key()))
    }

    /// Names of its faults; none if it has none that is known.
    pub(super) fn faults(&self) -> Option<String> {
        let faults: Vec<&str> = self.0.iter().map(String::as_str).filter(|name| *name != NONE).collect();
        (!faults.is_empty()).then(|| faults.join(", "))
    }

    /// `selectors`, and one for each fault, or the one that says that none is known.
    pub(super) fn with(&self, selectors: &SelectorSet) -> SelectorSet {
        let said = self.0.iter().filter_map(|name| Selector::new(super::tpm2::TYPE, &format!("{FORM}{name}")).ok());
        selectors.iter().cloned().chain(said).collect()
    }
}

/// What an agent's selectors tell of its chip: the version of its firmware, and its known faults.
pub fn told_of_chip(selectors: &SelectorSet) -> (Option<FirmwareVersion>, Vec<String>) {
    let values = || selectors.iter().filter(|s| s.kind() == super::tpm2::TYPE).map(Selector::value);
    let version = values().find_map(|value| u64::from_str_radix(value.strip_prefix("fw:")?, 16).ok());
    let faults = values().filter_map(|value| value.strip_prefix(FORM)).filter(|name| *name != NONE);
    (version.map(FirmwareVersion), faults.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_become_selectors_and_are_told_from_them_again() {
        let attested: SelectorSet =
            [Selector::new("tpm2", "fw:0007003d00000001").expect("legal")].into_iter().collect();
        for (names, faults, told) in
            [(&["roca", "x"][..], Some("roca, x"), &["roca", "x"][..]), (&["none"], None, &[]), (&[], None, &[])]
        {
            let judged = JudgedChip(names.iter().map(|name| (*name).to_owned()).collect());
            assert_eq!(judged.faults().as_deref(), faults);
            let selectors = judged.with(&attested);
            assert_eq!(selectors.len(), 1 + names.len());
            let (version, found) = told_of_chip(&selectors);
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            assert_eq!((version.map(|v| v.to_string()).as_deref(), &found[..]), (Some("7.61.0.1"), told));
        }
    }
}
