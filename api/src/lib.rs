//! What is said on the wire, and its parsed form.
//!
//! `pb` holds the generated messages and service glue; every other module turns wire values into values that cannot be
//! wrong (bounds are checked here, once) or carries them (TLS, unix sockets). Nothing here decides who may do what.
//!
//! ```text
//!  bytes ── pb ──► spiffe_id · certificate · csr · jwt · bundle · permission ──► server, agent   (selectors: ironroot-attest)
//!                  arriving (messages before they are decoded)
//!  what is issued ── issuing (a certificate's fields and DER) ──► server, agent
//!  sockets ── tls (SPIFFE mTLS) · unix_socket (any client's :authority) · watched (connections that end by themselves)
//!                  grpc_message (how refusals are spelt)
//!  where sockets and state may stand ── directory
//!  what an agent holds, as one value ── view ──► server, agent
//! ```

pub mod pb;

pub mod arriving;
pub mod bundle;
pub mod certificate;
pub mod csr;
pub mod directory;
pub mod gathered;
pub mod grpc_message;
pub mod issuance_head;
pub mod issuing;
pub mod jwt;
mod ml_dsa;
pub mod permission;
pub mod spiffe_id;
pub mod tls;
pub mod unix_socket;
mod utc;
pub mod view;
pub mod watched;

pub use ml_dsa::MlDsa;
pub use spiffe_id::{SpiffeId, SpiffeIdError, TrustDomain};
pub use utc::{from_utc, spire_time, utc, utc_with_fraction};
