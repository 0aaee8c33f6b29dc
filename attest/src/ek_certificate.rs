//! Endorsement key certificates: profile, chain to manufacturer roots, manufacturer and model.
//!
//! Source: TCG EK Credential Profile for TPM Family 2.0, version 2.5, §3.2.

mod error;

pub use error::EkCertificateError;
