//! What the tables say and how they change, in SQL that every engine takes: one text for each verb.
//!
//! The rest of the store, and whoever uses it, sees facts: [`Facts`] to read them, [`Transaction`] to change them. Who runs a
//! statement is the [`Session`]'s business; parameters are written `?1`, `?2`.

mod agents;
mod boots;
mod ca_journal;
pub(super) mod change_log;
mod contradictions;
mod devices;
mod entries;
mod federation;
mod join_tokens;
mod older_state;
mod pcr_policies;
mod session;
mod summary;
mod tiers;
mod transaction;
mod used_tokens;
mod value;

/// Rows that one transaction sweeps out at most, agents or entries with what goes with each: a few answers of the database for each, while
/// nobody else writes. Other servers wait 3 s for their turn.
pub(crate) const SLICE: i64 = 200;

#[cfg(test)]
pub(super) use change_log::MAX_CHANGES;
pub(super) use session::Session;
pub use transaction::{Facts, Transaction};
pub(super) use value::{Column, Row, Value};
