//! Node attestation: one module per attestation type.
//!
//! Each is a line of values that own their data and are consumed: what the device sent, what was asked of it, what it
//! proved. Whatever is not proven is a [`Refusal`].

mod base64_bytes;
mod device_certificate;
pub mod http_challenge;
mod json;
mod refusal;
mod signed_sha256;
pub mod sshpop;
pub mod together;
pub mod tpm;
pub mod tpm2;
pub mod tpm_devid;
mod tpm_keys;
pub mod x509pop;

pub use refusal::{Part, Refusal};
