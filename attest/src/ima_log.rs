//! The kernel's list of files that it measured before they were used (IMA), and PCR 10, which it extends with each.
//!
//! The list grows while it is read, and the chip is quoted at another moment: the quoted value is reached somewhere in the
//! list, and what lies behind is not proven yet. From one attestation to the next only what was added is sent: [`Progress`]
//! says up to where the list is proven, and is where the next replay begins.
//!
//! ```text
//!  Progress (or the start) ─ extend with entries ─► reaches the quoted PCR 10 ─► Progress, the entries up to there
//! ```
//! Source: Linux, security/integrity/ima (`ima_template.c`, `ima_fs.c`), of a little-endian machine and from 5.8 on, where each
//! bank is extended with a digest of its own hash.

mod bounds;
mod entry;
mod error;
mod replay;

pub use bounds::{MAX_ENTRIES, MAX_PART_BYTES, MAX_TEMPLATE_BYTES};
pub use entry::Entry;
pub use error::ImaLogError;
pub use replay::{Progress, Reached};

/// Parses a part of a list (`binary_runtime_measurements`): whole entries. An entry that the end cuts off is left out, since the
/// list was read while it grew or up to a bound.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, ImaLogError> {
    if bytes.len() > MAX_PART_BYTES {
        return Err(ImaLogError::TooLong { bytes: bytes.len() });
    }
    let (mut rest, mut entries) = (bytes, Vec::new());
    while let Some((entry, behind)) = Entry::read(rest, entries.len())? {
        if entries.len() == MAX_ENTRIES {
            return Err(ImaLogError::TooManyEntries);
        }
        entries.push(entry);
        rest = behind;
    }
    Ok(entries)
}
