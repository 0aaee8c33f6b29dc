//! The embedded engine: one SQLite file, one thread that owns its connection.
//!
//! Everything that knows SQL is in here. The rest of the store, and whoever uses it, sees facts: [`Facts`] to read them,
//! [`Transaction`] to change them.

mod agents;
mod boots;
mod ca_journal;
mod change_log;
mod contradictions;
mod copy;
mod devices;
mod entries;
mod error;
mod federation;
mod file;
mod join_tokens;
mod older_state;
mod pcr_policies;
mod replace;
mod schema;
#[cfg(test)]
mod tests;
mod tiers;
mod transaction;
mod writer;

#[cfg(test)]
pub(super) use change_log::MAX_CHANGES;
pub(super) use copy::{copy, peek, read, summary};
pub(super) use file::{open, recognise};
pub use replace::StoppedStore;
pub(super) use schema::is_spires;
pub use transaction::{Facts, Transaction};
pub use writer::Queued;
pub(super) use writer::Writer;
