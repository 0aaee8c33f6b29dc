//! How a file with a signed policy may be.

/// What this form is called in it.
pub(super) const FORMAT: &str = "ironroot-signed-pcr-policy-1";
/// Largest file accepted, bytes: one with an RSA-4096 signature has some 1100.
pub const MAX_POLICY_FILE_BYTES: usize = 4096;
/// Longest name of a policy, bytes.
pub const MAX_NAME_BYTES: usize = 255;

pub(super) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control)
}
