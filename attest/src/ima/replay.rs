//! Extending PCR 10 again, from nothing or from where the last time ended.

use super::{Entry, ImaError, MAX_ENTRIES, MAX_PART_BYTES, MAX_PARTS, Measured, PCR};
use crate::node::tpm2::PcrHash;

/// How far a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The register has the quoted value: everything told so far is proven, nothing is missing before it.
    Quoted,
    /// It has another one: what follows must be shown.
    NotYet,
}

/// A replay on its way to the quoted value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    bank: PcrHash,
    quoted: Vec<u8>,
    register: Vec<u8>,
    entries: u64,
    parts: usize,
}

impl Replay {
    /// From the start of the list; `quoted`: PCR 10 of `bank`.
    pub fn new(bank: PcrHash, quoted: Vec<u8>) -> Self {
        Self { bank, quoted, register: vec![0; bank.bytes()], entries: 0, parts: 0 }
    }

    /// From where an earlier one ended: so many entries, and the value that they led to.
    pub fn resumed(bank: PcrHash, quoted: Vec<u8>, entries: u64, register: Vec<u8>) -> Self {
        Self { entries, register, ..Self::new(bank, quoted) }
    }

    /// Entries that were extended: the next part begins with the one after these.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The register's value after them.
    pub fn register(&self) -> &[u8] {
        &self.register
    }

    /// Whether that is the quoted one.
    pub fn reached(&self) -> Reached {
        if self.register == self.quoted { Reached::Quoted } else { Reached::NotYet }
    }

    /// Extends the entries of `part`, whole ones, and tells each; stops at the quoted value. Entries of other registers prove nothing
    /// here, and are passed over.
    ///
    /// A part without entries is the end of the list: nothing more will lead to the quoted value.
    pub fn extend(&mut self, part: &[u8], mut tell: impl FnMut(Measured)) -> Result<Reached, ImaError> {
        if part.len() > MAX_PART_BYTES {
            return Err(ImaError::PartTooLong { bytes: part.len() });
        }
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(ImaError::TooManyParts);
        }
        let mut rest = part;
        while self.reached() == Reached::NotYet && !rest.is_empty() {
            if self.entries == MAX_ENTRIES {
                return Err(ImaError::TooManyEntries);
            }
            let (entry, behind) = Entry::read(rest, self.entries + 1)?;
            rest = behind;
            self.entries += 1;
            if entry.pcr == u32::from(PCR) {
                let extended = self.bank.digest(&[&self.register, &entry.extended(self.bank)]);
                self.register = extended.as_ref().to_vec();
                tell(Measured::of(&entry));
            }
        }
        match self.reached() {
            //= TPM-48 Linux, ima_queue.c: "a list that does not lead to the quoted register is refused"
            Reached::NotYet if part.is_empty() => Err(ImaError::DoesNotLead { entries: self.entries }),
            reached => Ok(reached),
        }
    }
}
