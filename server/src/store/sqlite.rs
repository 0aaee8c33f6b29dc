//! The embedded engine: one SQLite file, one thread that owns its connection.

mod copy;
mod error;
mod file;
mod replace;
mod schema;
#[cfg(test)]
mod tests;

pub(super) use copy::{copy, peek, read, summary};
pub(super) use file::{open, recognise};
pub use replace::StoppedStore;
pub(super) use schema::is_spires;
