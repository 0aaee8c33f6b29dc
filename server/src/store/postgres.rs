//! The shared engine: a database of PostgreSQL, on which several servers may run.
//!
//! Each server has one connection, owned by the store's thread: what the store does is a row of short, blocking questions. The
//! connection lives in a small runtime of that thread's own, so that each question has a deadline and words of the database that
//! nobody asked for (NOTIFY) are heard while the thread waits.
//!
//! ```text
//!  BEGIN, lock the counter ─► work.. ─► change log, COMMIT ─► own followers ─► NOTIFY ─► others look, as they do each second
//! ```
//! The counter of revisions is locked first, so writing transactions of all servers come one after the other, as with SQLite: what
//! one has read (a token that is good, an ID that is free) is true until it has committed. When a commit's answer is lost, the next
//! connection takes the same lock, which is free once the lost transaction is over, and looks for the commit's random ID in the log.

mod address;
mod claim;
mod connection;
mod database;
mod error;
mod reading;
mod schema;
#[cfg(test)]
mod tests;
mod tls;

pub use address::{Address, AddressError};
pub use connection::Connection;
pub(super) use database::open;
pub(super) use reading::{begin_reading, connect, peek, recognise, summary};
pub(super) use schema::is_spires;
