//! A real PostgreSQL for tests: Debian's programs, in a temporary directory, run by a user who is not root.
//!
//! It listens on a unix socket, where whoever asks is let in, and on loopback, where it proves the name `localhost` by TLS and asks for a
//! password. It ends with the process that started it, however that ends: its shell reads from a pipe that is closed then.

mod cluster;
pub mod ports;
mod programs;
mod proof;

pub use cluster::Cluster;
