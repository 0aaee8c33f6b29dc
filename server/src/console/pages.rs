//! What the pages look like. Whatever the server tells is text: maud escapes it.

mod authorities;
mod device;
mod entries;
mod fleet;
mod frame;
mod words;

pub use authorities::authorities;
pub use device::{DevicePage, device};
pub use entries::{EntriesPage, entries};
pub use fleet::{fleet, row, row_id, tiles};
pub use frame::{opened, refusal};

/// The pages' only style sheet.
pub const STYLE: &str = include_str!("pages/style.css");
/// The pages' only script: they can be read without it.
pub const SCRIPT: &str = include_str!("pages/live.js");
