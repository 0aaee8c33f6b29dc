//! What a secret is sealed to that an operator's signature can open.

use super::digest::{any_of, authorized};
use super::{Epoch, OPEN_EPOCHS, PolicyDigest};
use crate::structures::Name;

/// Length of the stored form, bytes.
pub const BRANCHES_BYTES: usize = 32 + 4 + 34;

/// TPM2_PolicyOR of the state in which something was sealed, and of [`OPEN_EPOCHS`] epochs of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branches {
    /// The policy of the registers as they were.
    pub present: PolicyDigest,
    /// The first epoch whose signatures open it.
    pub first_epoch: Epoch,
    /// Name of the operator's key.
    pub key: Name,
}

impl Branches {
    /// The branches, as TPM2_PolicyOR takes them.
    pub fn digests(&self) -> [PolicyDigest; 1 + OPEN_EPOCHS as usize] {
        let mut digests = [self.present; 1 + OPEN_EPOCHS as usize];
        for (branch, epoch) in digests[1..].iter_mut().zip(self.first_epoch.each_open()) {
            *branch = authorized(&self.key, epoch);
        }
        digests
    }

    /// authPolicy of what is sealed so.
    pub fn policy(&self) -> PolicyDigest {
        any_of(&self.digests())
    }

    /// Stored form: `[32] present  u32 first epoch  [34] Name of the key`, big-endian. `None` for a key whose Name is not of SHA-256.
    pub fn to_bytes(&self) -> Option<[u8; BRANCHES_BYTES]> {
        let epoch = u32::from(self.first_epoch).to_be_bytes();
        [&self.present[..], &epoch, self.key.as_bytes()].concat().try_into().ok()
    }

    /// From the stored form. What is wrong with it shows when the chip refuses.
    pub fn from_bytes(bytes: &[u8; BRANCHES_BYTES]) -> Option<Self> {
        let (present, rest) = bytes.split_first_chunk::<32>()?;
        let (epoch, key) = rest.split_first_chunk::<4>()?;
        let first_epoch = Epoch::try_from(u32::from_be_bytes(*epoch)).ok()?;
        Some(Self { present: *present, first_epoch, key: Name::parse(key).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branches() -> Branches {
        let key = Name::parse(&[&[0, 0x0b][..], &[7; 32]].concat()).expect("a name");
        Branches { present: [1; 32], first_epoch: Epoch::FIRST, key }
    }

    #[test]
    fn reads_what_it_stores_and_refuses_an_epoch_or_a_name_that_there_is_not() {
        let bytes = branches().to_bytes().expect("a name of SHA-256");
        assert_eq!(Branches::from_bytes(&bytes), Some(branches()));
        for (place, value) in [(35, 0), (32, 0xff), (37, 0x04)] {
            let mut other = bytes;
            other[place] = value;
            assert_eq!(Branches::from_bytes(&other), None, "byte {place}");
        }
    }

    #[test]
    fn each_part_changes_what_is_sealed() {
        let sealed = branches().policy();
        let later = Branches { first_epoch: Epoch::try_from(2).expect("legal"), ..branches() };
        let elsewhere = Branches { present: [2; 32], ..branches() };
        assert!(later.policy() != sealed && elsewhere.policy() != sealed);
        // All but one epoch is open in both.
        assert_eq!(later.digests()[1..7], branches().digests()[2..]);
    }
}
