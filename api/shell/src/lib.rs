//! What both daemons share of a process, and is no wire: files and flags in, lines and answers out, its own place.
//!
//! ```text
//!  files, flags ── settings (HCL with lines) · command_line
//!  words        ── logging (with its limits) · printable · describe (an error and its causes) · health, telemetry (over local_http)
//!  own place    ── process · clock · listen · serving_certificate · durable_file
//!  others       ── dial · web (servers that are asked)
//!  shares       ── token_bucket
//! ```

pub mod clock;
pub mod command_line;
mod describe;
pub mod dial;
pub mod durable_file;
pub mod health;
pub mod listen;
pub mod local_http;
pub mod logging;
pub mod printable;
pub mod process;
pub mod serving_certificate;
pub mod settings;
pub mod telemetry;
pub mod token_bucket;
pub mod web;

pub use describe::describe;
