//! Attestation type "tpm": a TPM that is known by its endorsement key, as the agents of a plugin of SPIRE's have it
//! (spiffe/spire-tpm-plugin, before bloomberg/spire-tpm-plugin, over go-attestation).
//!
//! ```text
//!  agent                                                   server
//!  Evidence   EK (certificate and key), AK and its birth ───►  Claim ─admit─► AdmittedEk
//!             credential for (EK, AK)                    ◄───  AdmittedEk ─challenge─► Pending
//!  Response   secret                                     ───►  Pending ─complete─► AttestedKey
//! ```
//! What is proven: the AK was made by a TPM as a restricted key, and is in the TPM whose endorsement key is known, by its hash
//! or by its maker's certificate. The plugin's server never compares that certificate with the key that it challenges; here they
//! are one. Nothing is bound to the certificate request, no boot is proven: "tpm2" has both.
//!
//! Source: github.com/spiffe/spire-tpm-plugin, pkg/common; github.com/google/go-attestation, attest/activation.go.

mod claim;
mod messages;
mod pending;
mod refusal;

pub use claim::{Admission, AdmittedEk, Claim};
pub use messages::{Challenge, Evidence, Response};
pub use pending::{AttestedKey, Pending};
pub use refusal::TpmRefusal;

/// Attestation type on the wire, and the type of the selectors that it gives.
pub const ATTESTATION_TYPE: &str = "tpm";
