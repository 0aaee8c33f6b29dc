//! Policies of what may have booted, as a TPM itself enforces them: digests, and the operator's signatures over them.
//!
//! Something sealed with [`Branches`] opens in the state in which it was sealed (TPM2_PolicyPCR), or in one that the holder of
//! the operator's key has signed (TPM2_PolicyAuthorize). No secret is on the device: it has the public key, and files that
//! anybody may read.
//!
//! ```text
//!  operator:  register values ─► Statement ─ sign ─► SignedPolicy (a file)
//!  device:    file ─► SignedPolicy ─ authenticate(PolicyAuthority) ─► AuthenticPolicy ─► the chip, which verifies it again
//! ```
//! A signature counts for one *epoch*. What is sealed opens for [`OPEN_EPOCHS`] of them, from the highest that the device has seen
//! signed: an epoch that is raised withdraws what was signed before, and the chip refuses it. Pure: needs no TPM.
//!
//! Source: TCG TPM 2.0 Library, Part 1 §19 "Enhanced Authorization", Part 3 §23.6 (PolicyOR), §23.7 (PolicyPCR), §23.16
//! (PolicyAuthorize).

mod authority;
mod branches;
mod digest;
mod document;
mod epoch;
mod form;
mod refusal;
mod statement;

pub use authority::{AuthorityError, PolicyAuthority};
pub use branches::{BRANCHES_BYTES, Branches};
pub use digest::{PolicyDigest, pcr_policy};
pub use document::{AuthenticPolicy, SignedPolicy};
pub use epoch::{Epoch, EpochError, OPEN_EPOCHS};
pub use form::{MAX_NAME_BYTES, MAX_POLICY_FILE_BYTES};
pub use refusal::SignedPolicyRefusal;
pub use statement::{RegisterError, Statement};
