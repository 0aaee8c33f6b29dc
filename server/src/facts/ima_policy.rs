//! What devices may have measured (IMA): the files of a policy. Stored as JSON, within the policy.

use std::collections::BTreeSet;

use ironroot_api::pb::pcr_policy as pb;
use serde::{Deserialize, Serialize};

/// Most files that a policy allows: a golden device with every program and library measured has two or three thousand. Each takes some
/// 150 bytes of memory.
pub const MAX_FILES: usize = 8192;
/// Most directories that a policy leaves out.
pub const MAX_EXCLUDED: usize = 64;
/// Longest path, bytes.
pub const MAX_PATH_BYTES: usize = 1024;
/// Longest digest with its hash before it, characters: `verity:sha512:` and 128 digits.
pub const MAX_DIGEST_CHARS: usize = 160;

/// A file and its digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MeasuredFile {
    /// The hash and the digits, as the kernel's list has them: `sha256:0a…`.
    pub digest: String,
    /// Its path; in a policy empty for any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// Which files a device may have measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImaPolicy {
    /// Another one whenever something is taken away: what was judged before by the whole list cannot be judged again without it.
    pub lineage: String,
    /// Each of these.
    pub allowed: BTreeSet<MeasuredFile>,
    /// And anything below these directories, each ending with `/`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exclude: BTreeSet<String>,
    /// Whether the kernel may have failed to tell what was used.
    #[serde(default)]
    pub violations: bool,
    /// Whether the list may begin with another digest than that of the quoted registers.
    #[serde(default)]
    pub any_boot_aggregate: bool,
}

impl ImaPolicy {
    /// Whether a file may have been used.
    pub fn allows(&self, file: &MeasuredFile) -> bool {
        let anywhere = MeasuredFile { digest: file.digest.clone(), path: String::new() };
        self.allowed.contains(file)
            || self.allowed.contains(&anywhere)
            || self.exclude.iter().any(|directory| file.path.starts_with(directory.as_str()))
    }

    /// Whether everything that `other` allows is allowed here.
    pub fn allows_all_of(&self, other: &Self) -> bool {
        self.allowed.is_superset(&other.allowed) && self.exclude.is_superset(&other.exclude)
    }

    /// The wire form.
    pub fn to_pb(&self) -> pb::Files {
        pb::Files {
            allowed: self.allowed.iter().map(MeasuredFile::to_pb).collect(),
            exclude: self.exclude.iter().cloned().collect(),
            violations: self.violations,
            any_boot_aggregate: self.any_boot_aggregate,
        }
    }
}

impl MeasuredFile {
    /// The wire form.
    pub fn to_pb(&self) -> pb::File {
        pb::File { path: self.path.clone(), digest: self.digest.clone() }
    }

    /// From the wire; not checked.
    pub fn from_pb(file: &pb::File) -> Self {
        Self { digest: file.digest.clone(), path: file.path.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, digest: &str) -> MeasuredFile {
        MeasuredFile { digest: digest.into(), path: path.into() }
    }

    fn policy(allowed: &[(&str, &str)], exclude: &[&str]) -> ImaPolicy {
        ImaPolicy {
            lineage: "1".into(),
            allowed: allowed.iter().map(|(path, digest)| file(path, digest)).collect(),
            exclude: exclude.iter().map(|directory| (*directory).to_owned()).collect(),
            ..ImaPolicy::default()
        }
    }

    #[test]
    fn a_file_is_allowed_by_its_digest_at_its_path_or_anywhere_or_below_a_directory() {
        let policy = policy(&[("/bin/a", "sha256:01"), ("", "sha256:02")], &["/tmp/"]);
        for (path, digest, is_allowed) in [
            ("/bin/a", "sha256:01", true),
            ("/bin/b", "sha256:01", false),
            ("/bin/a", "sha256:03", false),
            ("/bin/a", "sha1:01", false),
            ("/any/where", "sha256:02", true),
            ("/tmp/x", "sha256:09", true),
            ("/tmp", "sha256:09", false),
            ("/tmpx/y", "sha256:09", false),
            ("…/tmp/x", "sha256:09", false),
        ] {
            assert_eq!(policy.allows(&file(path, digest)), is_allowed, "{path} {digest}");
        }
    }

    #[test]
    fn what_is_added_takes_nothing_away_and_what_is_replaced_does() {
        let before = policy(&[("/bin/a", "sha256:01")], &["/tmp/"]);
        assert!(policy(&[("/bin/a", "sha256:01"), ("", "sha256:02")], &["/tmp/", "/run/"]).allows_all_of(&before));
        assert!(!policy(&[("/bin/a", "sha256:02")], &["/tmp/"]).allows_all_of(&before));
        assert!(!policy(&[("/bin/a", "sha256:01")], &[]).allows_all_of(&before));
    }
}
