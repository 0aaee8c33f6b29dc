//! The order of signed policies.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How many epochs open what is sealed: TPM2_PolicyOR takes eight branches, and one is the state of now.
pub const OPEN_EPOCHS: u32 = 7;
/// The last epoch that can be signed, so that those after it can be counted.
const LAST: u32 = 1_000_000_000;
/// What the operator signs beside the digest, before the epoch: a signature made for something else is none for this.
const PURPOSE: &[u8; 14] = b"ironroot-cache";

/// Not an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an epoch is a number from 1 to {LAST}")]
pub struct EpochError;

/// Which policies were signed together; raised to withdraw those of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Epoch(u32);

impl Epoch {
    /// What a device believes that has seen nothing signed.
    pub const FIRST: Epoch = Epoch(1);

    /// The epochs that open what was sealed when this one was the highest known.
    pub fn open(self) -> RangeInclusive<Epoch> {
        self..=Epoch(self.0 + OPEN_EPOCHS - 1)
    }

    /// The same, one by one.
    pub(super) fn each_open(self) -> impl Iterator<Item = Epoch> {
        (self.0..self.0 + OPEN_EPOCHS).map(Epoch)
    }

    /// policyRef of TPM2_PolicyAuthorize.
    pub(crate) fn policy_ref(self) -> [u8; PURPOSE.len() + 4] {
        let mut reference = [0; PURPOSE.len() + 4];
        let (purpose, number) = reference.split_at_mut(PURPOSE.len());
        purpose.copy_from_slice(PURPOSE);
        number.copy_from_slice(&self.0.to_be_bytes());
        reference
    }
}

impl TryFrom<u32> for Epoch {
    type Error = EpochError;

    fn try_from(number: u32) -> Result<Self, EpochError> {
        if (1..=LAST).contains(&number) { Ok(Self(number)) } else { Err(EpochError) }
    }
}

impl From<Epoch> for u32 {
    fn from(epoch: Epoch) -> u32 {
        epoch.0
    }
}

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, EpochError> {
        text.parse::<u32>().map_err(|_| EpochError)?.try_into()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_bounded_so_that_those_after_the_last_can_be_counted() {
        for number in [0, LAST + 1, u32::MAX] {
            assert_eq!(Epoch::try_from(number), Err(EpochError));
        }
        assert!("0".parse::<Epoch>().is_err() && "-1".parse::<Epoch>().is_err() && "x".parse::<Epoch>().is_err());
        let last: Epoch = LAST.to_string().parse().expect("legal");
        assert_eq!(last.each_open().count(), OPEN_EPOCHS as usize);
        let open = Epoch::FIRST.open();
        assert!(open.contains(&Epoch(1)) && open.contains(&Epoch(7)) && !open.contains(&Epoch(8)));
        assert!(Epoch::FIRST.each_open().all(|epoch| open.contains(&epoch)));
    }

    #[test]
    fn what_is_signed_names_its_purpose_and_its_epoch() {
        assert_eq!(Epoch(258).policy_ref(), *b"ironroot-cache\0\0\x01\x02");
    }
}
