//! Why a signed policy does not count.

use thiserror::Error;

use super::Epoch;
use super::form::{FORMAT, MAX_POLICY_FILE_BYTES};

/// Why a file with a signed policy does not count on this device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum SignedPolicyRefusal {
    /// More than a policy takes, or a directory or a device.
    #[error("it is no regular file of at most {MAX_POLICY_FILE_BYTES} bytes")]
    TooLarge,
    /// Cut, damaged, or something else altogether.
    #[error("the file is no signed policy: {0}")]
    Malformed(String),
    /// Of another version of this form.
    #[error("the file's format is {0:?}, this version reads {FORMAT:?}")]
    Format(String),
    /// The bank or the registers are none.
    #[error("the file names registers that there are not: {0}")]
    Registers(String),
    /// Another operator's.
    #[error("it is signed by the key {signed_by}, this device trusts {trusted}")]
    OtherKey { signed_by: String, trusted: String },
    /// Changed since it was signed, or never signed.
    #[error("the signature is not one of the operator's key over this policy and epoch")]
    Signature,
    /// About other registers, or another bank, than those that the cache is sealed to.
    #[error("it is about PCRs {signed} of the bank {signed_bank}, the cache is sealed to {sealed} of {sealed_bank}")]
    OtherRegisters { signed: String, signed_bank: String, sealed: String, sealed_bank: String },
    /// An older policy, perhaps put back.
    #[error("it is of epoch {epoch}, which is withdrawn: this device has seen epoch {first}")]
    Withdrawn { epoch: Epoch, first: Epoch },
    /// Further ahead than what is sealed knows.
    #[error("it is of epoch {epoch}, the cache opens up to epoch {last}: the device missed too many")]
    TooFarAhead { epoch: Epoch, last: Epoch },
}
