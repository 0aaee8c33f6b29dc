//! The end of boot services, which some firmware measures into PCR 5 after the log was handed to the kernel.

use super::replay::Registers;
use crate::node::tpm2::PcrHash;

/// The register.
pub(super) const PCR: u8 = 5;

const INVOCATION: &[u8] = b"Exit Boot Services Invocation";
const SUCCESS: &[u8] = b"Exit Boot Services Returned with Success";
const FAILURE: &[u8] = b"Exit Boot Services Returned with Failure";

/// What may be missing at the end of a log. Source: go-attestation's workarounds.
const MISSING: [&[&[u8]]; 3] = [&[INVOCATION, SUCCESS], &[INVOCATION], &[INVOCATION, FAILURE]];

/// Whether nothing but these measurements lies between the log and the quoted value.
pub(super) fn are_all_that_is_missing(registers: &Registers, bank: PcrHash, quoted: &[u8]) -> bool {
    MISSING.into_iter().any(|missing| {
        let begin = registers.value(PCR).to_vec();
        let extend =
            |value: Vec<u8>, action: &&[u8]| bank.digest(&[&value, bank.digest(&[action]).as_ref()]).as_ref().to_vec();
        missing.iter().fold(begin, extend) == quoted
    })
}
