//! What is said on the wire, and its parsed form.
//!
//! `pb` holds the generated messages and service glue; every other module turns wire values into values that cannot be
//! wrong (bounds are checked here, once) or carries them (TLS, unix sockets). Nothing here decides who may do what.
//!
//! ```text
//!  bytes ── pb ──► entry · bundle · svid · mask · permission ──► server, agent
//!                  spiffe_id (selectors: ironroot-attest)
//!  sockets ── tls (SPIFFE mTLS) · unix_socket (any client's :authority) · watched (connections that end by themselves)
//!  the process's own place ── directory · process
//!  files, flags ── settings (HCL with lines) · command_line · logging
//! ```

pub mod pb;

pub mod agent;
pub mod certificate;
pub mod command_line;
pub mod csr;
mod describe;
pub mod device;
pub mod directory;
pub mod entry;
pub mod health;
pub mod logging;
pub mod mask;
pub mod page;
pub mod permission;
pub mod process;
pub mod settings;
pub mod spiffe_id;
pub mod tls;
pub mod unix_socket;
pub mod watched;

pub use describe::describe;
pub use spiffe_id::{SpiffeId, SpiffeIdError, TrustDomain};
