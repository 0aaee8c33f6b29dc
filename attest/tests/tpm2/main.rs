//! Attestation type "tpm2" judged from outside: what is accepted, what is refused and why, and that no bytes make it panic.
//!
//! The evidence is made by a TPM in software (`software_tpm`), which a test can make lie; `genuine` has evidence of a TPM
//! emulator, byte for byte. Row numbers are those of the attack table in the project's TPM notes.

mod accepted;
mod admission;
mod attempt;
mod boot_log;
mod certificates;
mod chains;
mod credentials;
mod genuine;
mod ima;
mod manufacturer;
mod mutations;
mod refused_keys;
mod refused_residency;
mod refused_responses;
mod round_trips;

use ironroot_software_tpm as software_tpm;
