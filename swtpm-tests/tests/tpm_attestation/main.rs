//! Attestation "tpm2" end to end, in one process: a chip on one side, the verifier on the other. Then what an attacker with
//! root on the device and a genuine chip can try: each attempt is made for real and ends in its own refusal.
//!
//! Numbers in comments are rows of the attack table in the project's TPM notes.

mod accepted;
mod device;
mod rogue;
mod wrong_evidence;
mod wrong_keys;
