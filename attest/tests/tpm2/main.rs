//! Attestation type "tpm2" judged from outside: what is accepted, what is refused and why, and that no bytes make it panic.
//!
//! The evidence is made by a TPM in software (`software_tpm`), which a test can make lie; `genuine` has evidence of a TPM
//! emulator, byte for byte.

mod accepted;

mod attempt;
mod genuine;

mod manufacturer;

mod software_tpm;
