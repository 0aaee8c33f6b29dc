//! Which platform configuration registers are quoted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Highest PCR that may be selected: 16 and 23 can be reset by software, 17 to 22 belong to dynamic launch.
const LAST_PCR: u32 = 15;

/// A PCR that may not be selected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a PCR index from 0 to {LAST_PCR}")]
pub struct PcrSelectionError(String);

/// PCRs 0 to 15 of the SHA-256 bank, as a bit mask (bit n: PCR n). May be empty.
///
/// As text: indices with commas, such as `0,2,4,7`. In JSON: the mask as a number.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PcrSelection {
    mask: u32,
}

impl PcrSelection {
    /// No PCR at all: the quote then proves clock, counters and firmware version only.
    pub const NONE: PcrSelection = PcrSelection { mask: 0 };

    /// From PCR indices, each 0 to 15. Repeats are harmless.
    pub fn from_indices(indices: impl IntoIterator<Item = u8>) -> Result<Self, PcrSelectionError> {
        let mut mask = 0;
        for index in indices {
            if u32::from(index) > LAST_PCR {
                return Err(PcrSelectionError(index.to_string()));
            }
            mask |= 1 << index;
        }
        Ok(Self { mask })
    }

    /// From a mask whose bit n stands for PCR n, n from 0 to 15.
    pub fn from_mask(mask: u32) -> Result<Self, PcrSelectionError> {
        if mask >> (LAST_PCR + 1) == 0 { Ok(Self { mask }) } else { Err(PcrSelectionError(format!("{mask:#x}"))) }
    }

    /// Bit n: PCR n.
    pub fn mask(self) -> u32 {
        self.mask
    }

    /// The selected indices, ascending.
    pub fn indices(self) -> impl Iterator<Item = u8> {
        (0..=LAST_PCR as u8).filter(move |index| self.contains(*index))
    }

    /// Whether PCR `index` is selected.
    pub fn contains(self, index: u8) -> bool {
        u32::from(index) <= LAST_PCR && self.mask >> index & 1 == 1
    }

    /// The number of selected PCRs, 0 to 16.
    pub fn len(self) -> usize {
        self.mask.count_ones() as usize
    }

    /// Whether none is selected.
    pub fn is_empty(self) -> bool {
        self.mask == 0
    }
}

impl TryFrom<u32> for PcrSelection {
    type Error = PcrSelectionError;

    fn try_from(mask: u32) -> Result<Self, Self::Error> {
        Self::from_mask(mask)
    }
}

impl From<PcrSelection> for u32 {
    fn from(selection: PcrSelection) -> u32 {
        selection.mask
    }
}

impl FromStr for PcrSelection {
    type Err = PcrSelectionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Ok(Self::NONE);
        }
        let parse =
            |part: &str| part.trim().parse::<u8>().map_err(|_| PcrSelectionError(part.chars().take(32).collect()));
        let indices = text.split(',').map(parse).collect::<Result<Vec<u8>, _>>()?;
        Self::from_indices(indices)
    }
}

impl fmt::Display for PcrSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, index) in self.indices().enumerate() {
            write!(f, "{}{index}", if position == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Debug for PcrSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PcrSelection({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let selection: PcrSelection = "0, 2,4,15".parse().expect("legal");
        assert_eq!(selection.mask(), 0x8015);
        assert_eq!(selection.to_string(), "0,2,4,15");
        assert_eq!(format!("{selection:?}"), "PcrSelection(0,2,4,15)");
        assert_eq!(selection.indices().collect::<Vec<_>>(), [0, 2, 4, 15]);
        assert_eq!(selection.len(), 4);
        assert_eq!(PcrSelection::from_mask(0x8015), Ok(selection));
        assert_eq!("".parse(), Ok(PcrSelection::NONE));
    }

    #[test]
    fn refuses_registers_that_software_can_reset() {
        assert!("16".parse::<PcrSelection>().is_err());
        assert!("0,x".parse::<PcrSelection>().is_err());
        for pcr in [16, 17, 23, 31] {
            assert!(PcrSelection::from_mask(1 << pcr).is_err(), "{pcr}");
        }
        assert!(PcrSelection::from_indices([3, 23]).is_err());
        assert!(!PcrSelection::NONE.contains(200));
    }
}
