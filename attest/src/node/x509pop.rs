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
//! What the certificate says (names, URIs, addresses) is handed on only with the proof; which agent that is, the caller says.
//!
//! Source: SPIRE, pkg/common/plugin/x509pop and its two plugins.

mod alternative_names;
mod certificate;
mod family;
mod holder;
mod messages;
mod names;
mod pending;
mod proof_key;
mod refusal;
mod size_limits;
mod verified;

pub use crate::authorities::{Authorities, AuthoritiesError, NoAuthority, NotAnAuthority};
pub use alternative_names::AlternativeNames;
pub use certificate::DeviceCertificate;
pub use family::Family;
pub use holder::{Holder, HolderError, Question, Shown, ShownKey, Signed};
pub use messages::{Challenge, Evidence, Response};
pub use names::{Names, NamesKind};
pub use pending::{AttestedCertificate, Pending};
pub use refusal::X509PopRefusal;
pub use size_limits::SizeLimits;
pub use verified::Verified;

/// Attestation type on the wire, and the type of the selectors that it gives.
pub const ATTESTATION_TYPE: &str = "x509pop";

/// Most certificates in a message: the device's and as many intermediates as a server may be told to look at.
pub const MAX_CERTIFICATES: usize = 1 + SizeLimits::MOST_INTERMEDIATES;

/// Nonces of both sides, bytes.
pub const NONCE_BYTES: usize = 32;

/// How long an answer may take, seconds. A device signs in a moment, and has the key in a file.
pub const ANSWER_SECONDS: i64 = 60;
