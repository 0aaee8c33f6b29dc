//! Who is this? Nodes (TPM 2.0 evidence) and workloads (local unix processes).
//!
//! Pure by default: parsing and judging TPM evidence takes bytes, `now` and a nonce, and gives a verdict; it needs no TPM,
//! no C library, no network and no clock. Feature `tpm` adds the device side (one thread that owns the ESYS context),
//! feature `workload` the kernel side of local attestation.
//!
//! ```text
//!  server:  payload ─► node::tpm2::Claim ─► AdmittedEk ─► Pending ─► AttestedTpm        (refusal: node::Refusal)
//!           event_log: what the device says it started, against what its chip quotes
//!           ima: which files it measured since, against the same quote
//!  device:  Tpm (one OS thread) ─► ek · ak · activate · quote · certify · sign · seal · counter
//!  local:   Peer (peercred, pidfd) ─► unix selectors, read through the pinned process
//! ```
//!
//! Not here: gRPC, sockets to the server, SPIFFE IDs, certificates that we sign.

mod authorities;
pub mod ek_certificate;
pub mod event_log;
pub mod ima;
mod link;
pub mod node;
mod other_forms;
pub mod pcr_policy;
pub mod selector;
pub mod structures;
#[cfg(feature = "tpm")]
pub mod tpm;
pub mod weak_chips;
#[cfg(feature = "workload")]
pub mod workload;

pub use selector::{Selector, SelectorError, SelectorSet};
