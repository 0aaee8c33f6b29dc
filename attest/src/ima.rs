//! The kernel's list of the files it measured before it used them (IMA), and the register that the list leads to.
//!
//! The list comes from the device and proves nothing by itself. Extended again, entry by entry, it must give the PCR 10 that the
//! chip quoted; then no entry before that can be missing, changed, or out of its place. The list goes on growing while the quote is
//! made: what comes behind the quoted value is left for the next time. So is what was shown the time before: a [`Replay`] goes on
//! from the value and the number of entries that it had reached.
//!
//! ```text
//!  bytes ─ Entry::read (bounded) ─► Entry ─ its digest is that of its data ─► Replay ─► PCR 10 as quoted: Measured, proven
//! ```
//! What extends PCR 10 is whatever kernel was booted: the list is worth as much as PCRs 0 to 9 say of that one.
//!
//! Source: Linux, security/integrity/ima/ima_fs.c (`ima_measurements_show`), ima_template.c, ima_queue.c.

mod aggregate;
mod bounds;
mod entry;
mod error;
mod measured;
mod part;
mod replay;

pub use aggregate::Aggregate;
pub use bounds::{MAX_DATA_BYTES, MAX_ENTRIES, MAX_NAME_CHARS, MAX_PART_BYTES, MAX_PARTS, MAX_TEMPLATE_NAME_BYTES};
pub use entry::Entry;
pub use error::ImaError;
pub use measured::Measured;
pub use part::read_part;
pub use replay::{Reached, Replay};

/// The register that the kernel extends, unless a rule of its policy names another one.
pub const PCR: u8 = 10;
/// The registers that are quoted beside it: what a list begins with (`boot_aggregate`) is their digest.
pub const BOOTED: std::ops::RangeInclusive<u8> = 0..=9;
