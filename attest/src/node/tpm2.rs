//! Attestation type "tpm2": a TPM 2.0 proves who it is, what booted, and that the agent's key lives in it.
//!
//! ```text
//!  device                                    server
//!  Evidence   EK certificates, EK, AK  ───►  Claim ─admit─► AdmittedEk
//!             Challenge                ◄───  credential for (EK, AK), nonce, PCR selection   ─► Pending
//!  Response   secret, quote, log, key  ───►  Pending ─complete─► AttestedTpm
//!             ImaRequest               ◄───  from which entry, if the device has a list of files (IMA)
//!  entries    as the kernel has them   ───►  ima::Replay ─► PCR 10 as quoted; until then, the next request
//! ```
//!
//! Two round trips on the AttestAgent stream, and one for each part of a list of files. Quote and certify carry [`binding`] as extraData, so that evidence is good
//! for one trust domain, one nonce and one certificate request.

mod admitted;
mod attested;
mod boot;
mod challenge;
mod claim;
mod clock;
mod clock_order;
mod event_log_policy;
mod ima;
mod messages;
mod pcr_hash;
mod pcr_selection;
mod pending;

use aws_lc_rs::digest::{Context, SHA256};

pub use admitted::{AdmittedEk, Expectation, Voucher};
pub use attested::AttestedTpm;
pub use boot::{BootLog, BootState, ProvenLog};
pub use claim::{Admission, Claim};
pub use clock::ClockReading;
pub use event_log_policy::EventLogPolicy;
pub use ima::{ImaQuote, ImaState};
pub use messages::{CertifiedKey, Challenge, Evidence, ImaRequest, MAX_RESPONSE_BYTES, Response};
pub use pcr_hash::{PcrHash, UnknownPcrHash, list_banks};
pub use pcr_selection::{PcrSelection, PcrSelectionError};
pub use pending::Pending;

pub use super::json::MAX_MESSAGE_BYTES;

/// Attestation type on the wire, and the type of the selectors that it gives.
pub const ATTESTATION_TYPE: &str = "tpm2";

/// How long an attestation may take, seconds: a server waits as long for the answer to its challenge as an agent works on it.
/// A slow chip that has to make its RSA keys first needs minutes; the kernel gives it 300 s for a single command.
pub const CHALLENGE_SECONDS: i64 = 300;

/// extraData of quote and certify: SHA-256("ironroot tpm2 v1" || u16 length || trust domain || nonce || SPKI of the CSR).
///
/// `trust_domain`: its name without scheme, at most 255 bytes by the SPIFFE ID standard. `nonce`: the server's challenge.
/// `spki_der`: DER SubjectPublicKeyInfo of the certificate request, byte for byte.
pub fn binding(trust_domain: &str, nonce: &[u8; 32], spki_der: &[u8]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    hash.update(b"ironroot tpm2 v1");
    hash.update(&(trust_domain.len() as u16).to_be_bytes());
    hash.update(trust_domain.as_bytes());
    hash.update(nonce);
    hash.update(spki_der);
    hash.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}
