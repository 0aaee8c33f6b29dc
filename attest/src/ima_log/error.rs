//! Why a list is not taken.

use thiserror::Error;

use super::{MAX_ENTRIES, MAX_PART_BYTES, MAX_TEMPLATE_BYTES};

/// What is wrong with a part of a list. Entries are named by their place in the part; the first is 0.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum ImaLogError {
    /// Over the cap; nothing was parsed.
    #[error("it is {bytes} bytes long, at most {MAX_PART_BYTES} are accepted at once")]
    TooLong { bytes: usize },
    /// More entries than fit honestly.
    #[error("it has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    /// Not the register that this list is about.
    #[error("entry {entry} is of PCR {pcr}, not of PCR 10")]
    PcrIndex { entry: usize, pcr: u32 },
    /// A template whose fields this build does not know how to hash.
    #[error("entry {entry} has the template {name:?}, known are ima, ima-ng, ima-sig, ima-buf and ima-modsig")]
    Template { entry: usize, name: String },
    /// One entry alone is longer than any real one.
    #[error("entry {entry} has {bytes} bytes, at most {MAX_TEMPLATE_BYTES} are accepted")]
    EntryTooLong { entry: usize, bytes: usize },
    /// The digest beside the entry is not the entry's.
    #[error("entry {entry} has the digest of something else")]
    Digest { entry: usize },
    /// No place in the list gives the quoted register.
    #[error("the quoted PCR 10 is nowhere among its {entries} entries")]
    NotReached { entries: usize },
    /// The list begins with what was booted, and that is not what the chip quotes.
    #[error("its first entry is not the boot_aggregate of the quoted PCRs")]
    BootAggregate,
}
