//! Why a list is not taken.

use thiserror::Error;

use super::{MAX_DATA_BYTES, MAX_ENTRIES, MAX_PART_BYTES, MAX_PARTS, MAX_TEMPLATE_NAME_BYTES};

/// What is wrong with a list. Entries are named by their place in it, from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum ImaError {
    /// Over the cap; nothing was parsed.
    #[error("a part of it is {bytes} bytes long, at most {MAX_PART_BYTES} are accepted")]
    PartTooLong { bytes: usize },
    /// It never ends.
    #[error("it comes in more than {MAX_PARTS} parts")]
    TooManyParts,
    /// More than any device measures.
    #[error("it has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    /// A field reaches past the end.
    #[error("it is truncated in entry {entry}")]
    Truncated { entry: u64 },
    /// One entry alone is longer than any real one.
    #[error("entry {entry} has {bytes} bytes of data, at most {MAX_DATA_BYTES} are accepted")]
    EntryTooLong { entry: u64, bytes: usize },
    /// No kernel calls a template that.
    #[error(
        "entry {entry} has a template with a name of {bytes} bytes, 1 to {MAX_TEMPLATE_NAME_BYTES} of ASCII are accepted"
    )]
    TemplateName { entry: u64, bytes: usize },
    /// The form of kernels before 3.13, with SHA-1 alone.
    #[error(
        "entry {entry} has the template \"ima\", which kernels had before 3.13: start the kernel with ima_template=ima-ng"
    )]
    OldTemplate { entry: u64 },
    /// The data is not what was measured.
    #[error("entry {entry} has another digest than its data")]
    OtherDigest { entry: u64 },
    /// The list is not the one that made the quoted register.
    #[error("extended again its {entries} entries do not give the PCR 10 that the chip quotes")]
    DoesNotLead { entries: u64 },
}

impl ImaError {
    /// Whether an honest device may show such a list: it is too long for us, or of an old kernel.
    pub fn may_be_honest(&self) -> bool {
        matches!(self, Self::TooManyParts | Self::TooManyEntries | Self::OldTemplate { .. })
    }
}
