//! Extending PCR 10 again, up to where the chip was quoted.

use super::{Entry, ImaLogError};
use crate::node::tpm2::PcrHash;

/// Up to where a list is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    bank: PcrHash,
    /// Entries that are proven.
    entries: u64,
    /// Bytes of the list that they take.
    bytes: u64,
    /// PCR 10 behind them.
    value: Vec<u8>,
}

/// A list that reaches the quoted register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Where the next replay begins.
    pub progress: Progress,
    /// How many entries were proven by this replay: they are the first ones of the part.
    pub proven: usize,
    /// How many lie behind what was quoted: the list was read later, or the chip was quoted earlier.
    pub ahead: usize,
    /// How many of the proven ones are violations.
    pub violations: usize,
}

impl Progress {
    /// The beginning of a list, after a boot.
    pub fn start(bank: PcrHash) -> Self {
        Self { bank, entries: 0, bytes: 0, value: vec![0; bank.bytes()] }
    }

    /// Where the next part of the list begins, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many entries are proven.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Goes on with `part`, the entries behind this place, until PCR 10 has the quoted value. Entries behind that are not
    /// proven yet; the list may be ahead of the quote, the quote never of the list.
    pub fn reach(self, part: &[Entry], quoted: &[u8]) -> Result<Reached, ImaLogError> {
        let mut progress = self;
        let (mut proven, mut violations) = (0, 0);
        for entry in part {
            if progress.value == quoted {
                break;
            }
            progress.value = progress.bank.digest(&[&progress.value, &entry.digest(progress.bank)]).as_ref().to_vec();
            progress.entries += 1;
            progress.bytes += entry.length as u64;
            proven += 1;
            violations += usize::from(entry.hashed.is_none());
        }
        if progress.value != quoted {
            return Err(ImaLogError::NotReached { entries: part.len() });
        }
        Ok(Reached { progress, proven, ahead: part.len() - proven, violations })
    }

    /// Whether a list that begins with `part` begins with what was booted: the digest of PCRs 0 to 9 (0 to 7 in the SHA-1 bank)
    /// in the quoted bank, whose values are `pcrs`, in order.
    pub fn check_boot_aggregate(&self, part: &[Entry], pcrs: &[&[u8]]) -> Result<(), ImaLogError> {
        let aggregate = self.bank.digest(pcrs);
        let is_right =
            self.entries > 0 || part.first().is_some_and(|first| first.is_boot_aggregate(aggregate.as_ref()));
        if is_right { Ok(()) } else { Err(ImaLogError::BootAggregate) }
    }
}
