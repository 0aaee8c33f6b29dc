//! A live server of SPIRE's is taken over: what it knows becomes ours, in one change of an empty data store, or nothing does.
//!
//! ```text
//!  SpireFacts (its database), its keys ── plan: pure ──► Takeover: other trust domains, entries, agents, tokens, the CA's journal, keys
//!                                              │                        │
//!                                              └► Report: what is left behind, and why   take: keys to their file, then one transaction
//! ```
//! SPIRE's own files are only read: whoever starts its server again has what it had.

mod above;
mod agents;
mod authorities;
mod entries;
mod error;
mod federation;
mod journal_blob;
mod keys;
mod plan;
mod report;
mod take;
mod tokens;

pub use error::TakeoverError;
pub use plan::{KeyPlace, Rules, Takeover};
pub use report::{KeysTaken, LeftBehind, Report, What};
