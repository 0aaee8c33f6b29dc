//! What both daemons share of a process, and is no wire: files and flags in, lines and answers out, its own place.
//!
//! ```text
//!  files, flags ── settings (HCL with lines) · command_line · hex
//!  words        ── logging (with its limits) · describe (an error and its causes) · health
//!  own place    ── process
//! ```

pub mod command_line;
mod describe;
pub mod health;
pub mod hex;
pub mod logging;
pub mod process;
pub mod settings;

pub use describe::describe;
