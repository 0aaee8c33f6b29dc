//! Attestation type "tpm_devid": a certificate that the device was given for a key in its TPM (LDevID or IDevID), that key, and
//! proof that it lives in a genuine TPM. The messages are SPIRE's.
//!
//! ```text
//!  device                                                server
//!  Evidence   DevID certificates, DevID, EK and AK  ───►  Claim ─verify(authorities, makers)─► Verified
//!             nonce, credential for (EK, AK)        ◄───  Verified ─challenge─► Pending
//!  Response   nonce signed by DevID, secret         ───►  Pending ─complete─► AttestedDevId
//! ```
//! What is proven: the authority's certificate is for the DevID key; the device has that key; a restricted AK says that it is
//! loaded beside it; the AK is in the chip that a TPM maker certified. SPIRE's server compares neither the certificate with
//! the key that was certified nor what kind of keys they are; here each step is about the key of the step before. The
//! certificate request is bound to none of it, since SPIRE's messages have no room for that: "tpm2" has.
//!
//! Source: SPIRE, pkg/common/plugin/tpmdevid and its two plugins.

mod certificate;
mod challenge;
mod claim;
mod messages;
mod pending;
mod refusal;
mod verified;

pub use claim::Claim;
pub use messages::{Challenge, Evidence, Response};
pub use pending::{AttestedDevId, Pending};
pub use refusal::TpmDevIdRefusal;
pub use verified::Verified;

/// Attestation type on the wire, and the type of the selectors that it gives.
pub const ATTESTATION_TYPE: &str = "tpm_devid";

/// Most certificates accepted: the device's and four intermediates.
pub const MAX_CERTIFICATES: usize = 5;

/// The nonce that the DevID key signs, bytes. Source: SPIRE, `devIDChallengeNonceSize`.
pub const NONCE_BYTES: usize = 32;
