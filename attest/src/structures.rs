//! TPM 2.0 Part 2 structures as bounded Rust values.
//!
//! Every parser takes a whole structure and nothing more: a length beyond the input, bytes left over, an unknown tag or an
//! algorithm that is not accepted is a [`StructureError`]. What has a bound in the standard is kept in a buffer of that
//! bound, so that a hostile length cannot allocate. Source: TCG TPM 2.0 Library, Part 2 "Structures", and Part 1 for names.

mod algorithm;
mod attest;
mod credential;
mod name;
mod pcr;
mod plain_signature;
mod public;
mod public_key;
mod signature;
mod verifying_key;
mod wire;

pub use algorithm::{Curve, Hash};
pub use attest::{Attest, Attested, ClockInfo, Quote};
pub use credential::{Credential, CredentialError, make_credential};
pub(crate) use credential::{make_credential_by_template, sized};
pub use name::Name;
pub use pcr::PcrBank;
pub use public::{Attributes, Public, PublicError};
pub use public_key::{KeyError, PublicKey};
pub use signature::{Scheme, Signature};
pub use wire::StructureError;
