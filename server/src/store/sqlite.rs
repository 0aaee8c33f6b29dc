//! The embedded engine: one SQLite file, one thread that owns its connection.

mod copy;
mod error;
mod file;
mod replace;
mod rights;
mod schema;
#[cfg(test)]
mod tests;

pub(super) use copy::{copy, peek, read, summary};
pub(super) use file::{open, would_open};
pub use replace::{Belonging, StoppedStore};
pub(super) use rights::open_to_others;
pub(super) use schema::is_spires;
