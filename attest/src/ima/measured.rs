//! What an entry is about.

use ironroot_text::hex::hex;

use super::entry::length_of;
use super::{Entry, MAX_NAME_CHARS};
use crate::node::tpm2::PcrHash;

/// What the first entry, and the first after a kexec, is called.
const BOOT_AGGREGATE: &str = "boot_aggregate";
/// Templates whose first two fields are the digest and the name of a file or a buffer (`ima_template.c`, `builtin_templates`).
const NAMED: [&str; 7] = ["ima-ng", "ima-sig", "ima-buf", "ima-modsig", "ima-ngv2", "ima-sigv2", "evm-sig"];
/// Longest name of a hash, with what stands before it (`verity:sha256`), bytes.
const MAX_ALGORITHM_BYTES: usize = 32;
/// Longest digest, bytes.
const MAX_DIGEST_BYTES: usize = 64;

/// What the kernel measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measured {
    /// The digest of the registers that say what was booted.
    BootAggregate {
        /// Its digest, as [`Measured::File`] has it.
        digest: String,
    },
    /// A file, or a buffer that has a name.
    File {
        /// Its path when it was measured, at most the last [`MAX_NAME_CHARS`] characters, behind `…`; what cannot be printed is `?`.
        path: String,
        /// The hash and the digits: `sha256:0a…`, `verity:sha256:0a…`.
        digest: String,
    },
    /// It could not tell what was used.
    Violation,
}

impl Measured {
    /// What `entry` is about. A template that is not known is a file of no name, with the digest of all its data.
    pub fn of(entry: &Entry<'_>) -> Self {
        if entry.is_violation() {
            return Self::Violation;
        }
        match named(entry) {
            Some((BOOT_AGGREGATE, digest)) => Self::BootAggregate { digest },
            Some((name, digest)) => Self::File { path: printable(name), digest },
            None => Self::File {
                path: format!("(template {})", printable(entry.template)),
                digest: format!("template:sha256:{}", hex(PcrHash::Sha256.digest(&[entry.data]).as_ref())),
            },
        }
    }
}

/// Name and digest, if the template is known and its fields have their form.
fn named<'a>(entry: &Entry<'a>) -> Option<(&'a str, String)> {
    if !NAMED.contains(&entry.template) {
        return None;
    }
    let (digest, rest) = field(entry.data)?;
    let (name, _) = field(rest)?;
    let name = std::str::from_utf8(name.strip_suffix(&[0])?).ok().filter(|name| !name.contains('\0'))?;
    Some((name, digest_of(digest)?))
}

/// `d-ng`: the hash's name, ":\0", and the digest.
fn digest_of(field: &[u8]) -> Option<String> {
    let end = field.iter().position(|byte| *byte == 0)?;
    let (algorithm, digest) = (std::str::from_utf8(field.get(..end)?).ok()?, field.get(end + 1..)?);
    let algorithm = algorithm.strip_suffix(':')?;
    let is_hash = algorithm.len() <= MAX_ALGORITHM_BYTES
        && algorithm.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b':'));
    let is_digest = (1..=MAX_DIGEST_BYTES).contains(&digest.len());
    (is_hash && is_digest).then(|| format!("{algorithm}:{}", hex(digest)))
}

fn field(data: &[u8]) -> Option<(&[u8], &[u8])> {
    length_of(data).and_then(|(bytes, rest)| rest.split_at_checked(bytes))
}

fn printable(name: &str) -> String {
    let cut = name.chars().count().saturating_sub(MAX_NAME_CHARS);
    let kept = name.chars().skip(cut).map(|c| if c.is_control() { '?' } else { c });
    // What was cut off must not begin as another path does.
    if cut > 0 { std::iter::once('…').chain(kept).collect() } else { kept.collect() }
}
