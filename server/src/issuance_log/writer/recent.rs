//! The newest records' hashes.

use std::collections::VecDeque;

use crate::issuance_log::chain::Head;

/// Hashes of the newest records that are remembered, 32 bytes each: so far back a head that somebody has kept is compared.
pub const RECENT: usize = 64 * 1024;

/// The newest records' hashes.
pub(super) struct Recent {
    /// Of the newest.
    pub head: Head,
    /// The oldest first; the newest is the head's, and each has the sequence number behind the one before.
    hashes: VecDeque<[u8; 32]>,
}

impl Recent {
    /// None yet, behind `head`.
    pub fn behind(head: Head) -> Self {
        Self { head, hashes: VecDeque::new() }
    }

    /// One more; the oldest makes room for it.
    pub fn push(&mut self, head: Head) {
        if self.hashes.len() == RECENT {
            self.hashes.pop_front();
        }
        self.hashes.push_back(head.hash);
        self.head = head;
    }

    /// The hash of the record of that number; none if it is not remembered.
    pub fn hash_of(&self, sequence: u64) -> Option<&[u8; 32]> {
        let back = usize::try_from(self.head.sequence.checked_sub(sequence)?).ok()?;
        self.hashes.get(self.hashes.len().checked_sub(back + 1)?)
    }
}
