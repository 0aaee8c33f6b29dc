//! Attestation type "sshpop": an SSH host certificate that the device was given, and possession of its key. The messages are SPIRE's.
//!
//! ```text
//!  device                                          server
//!  Evidence   certificate                  ───►  Evidence ─verify(authorities)─► Verified
//!             nonce                        ◄───  Verified ─challenge(nonce)─► Pending
//!  Response   nonce, signature over both   ───►  Pending ─complete─► AttestedHost
//! ```
//! What is signed is the two nonces and nothing else, as with "x509pop": a server that the device attests to can, meanwhile, attest
//! elsewhere as the device, and whoever copies the host's key is the host.
//!
//! Certificates are read here, in the form that OpenSSH gives them; every signature is verified by aws-lc-rs. A certificate is believed
//! only by Ed25519, ECDSA or RSA with SHA-2; possession also by RSA with SHA-1, which SPIRE's agents sign with: the nonces are ours and
//! fresh, so nobody gains from two texts of one hash.
//!
//! Source: SPIRE, pkg/common/plugin/sshpop and its two plugins; OpenSSH, PROTOCOL.certkeys; RFC 4251, 4253, 5656, 8332, 8709.

mod authorities;
mod certificate;
mod key;
mod messages;
mod pending;
mod refusal;
mod signature;
pub mod wire;

pub use authorities::{AuthoritiesError, HostAuthorities, NotAnAuthority};
pub use certificate::{HostCertificate, ShownCertificate};
pub use key::SshKey;
pub use messages::{Challenge, Evidence, Response};
pub use pending::{AttestedHost, Pending, Verified, challenged_bytes};
pub use refusal::SshPopRefusal;
pub use signature::SshSignature;

/// Attestation type on the wire.
pub const ATTESTATION_TYPE: &str = "sshpop";

/// Nonces of both sides, bytes.
pub const NONCE_BYTES: usize = 32;

/// How long an answer may take, seconds. A device signs in a moment, and has the key in a file.
pub const ANSWER_SECONDS: i64 = 60;

/// Longest certificate accepted, bytes: one of an RSA key of 8192 bits by another, with a hundred names, has some 5,000.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests;
