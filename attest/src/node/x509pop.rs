//! Attestation type "x509pop": a certificate that the device was given, and possession of its key. The messages are SPIRE's.
//!
//! ```text
//!  device                                          server
//!  Evidence   certificate, intermediates   ───►  Evidence ─verify(authorities)─► Verified
//!             Challenge  nonce             ◄───  Verified ─challenge(nonce)─► Pending
//!  Response   nonce, signature over both   ───►  Pending ─complete─► AttestedCertificate
//! ```
//! What SPIRE's agents sign is the two nonces and nothing else: neither this trust domain nor the key of the certificate
//! request. So a server that the device attests to can, meanwhile, attest elsewhere as the device; and whoever copies the
//! device's key file is the device. Where there is a TPM, "tpm2" has neither weakness.
//!
//! Source: SPIRE, pkg/common/plugin/x509pop and its two plugins.

mod certificate;
mod family;
mod holder;
mod messages;
mod pending;
mod proof_key;
mod refusal;
mod signed_sha256;
mod verified;

pub use crate::authorities::{Authorities, AuthoritiesError, NoAuthority, NotAnAuthority};
pub use family::Family;
pub use holder::{Holder, HolderError};
pub use messages::{Challenge, Evidence, Response};
pub use pending::{AttestedCertificate, Pending};
pub use refusal::X509PopRefusal;
pub use verified::Verified;

/// Attestation type on the wire, and the type of the selectors that it gives.
pub const ATTESTATION_TYPE: &str = "x509pop";

/// Most certificates accepted: the device's and four intermediates. Source: SPIRE's default of `max_intermediates`.
pub const MAX_CERTIFICATES: usize = 5;

/// Nonces of both sides, bytes.
pub const NONCE_BYTES: usize = 32;

/// How long an answer may take, seconds. A device signs in a moment, and has the key in a file.
pub const ANSWER_SECONDS: i64 = 60;
