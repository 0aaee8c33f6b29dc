//! A policy as an administrator sends it: everything that is wrong with it, at once.

use std::collections::BTreeMap;

use ironroot_api::pb::pcr_policy as pb;
use ironroot_attest::node::tpm2::{PcrHash, PcrSelection};
use thiserror::Error;

use super::MAX_LABELS;
use super::new_device::check_label;
use crate::facts::device::PcrValue;
use crate::facts::ima_policy::{ImaPolicy, MAX_DIGEST_CHARS, MAX_EXCLUDED, MAX_FILES, MAX_PATH_BYTES, MeasuredFile};
use crate::facts::pcr_policy::{Alternative, PcrPolicy};

/// Longest name of a policy, bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Most alternatives of one policy: firmware and boot loader in a few versions each.
pub const MAX_ALTERNATIVES: usize = 64;
/// Longest note of an alternative, bytes.
pub const MAX_NOTE_BYTES: usize = 255;
/// Mistakes that are told of a policy's files: thousands of the same kind help nobody.
const MAX_MISTAKES_IN_FILES: usize = 16;

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum PcrPolicyError {
    /// The name becomes part of a selector.
    #[error("the name must be 1 to {MAX_NAME_BYTES} of the characters a-z, A-Z, 0-9, '.', '_' and '-'")]
    Name,
    /// More than a device can have, or longer than a device's can be.
    #[error("labels must be at most {MAX_LABELS}, with names and values that a device can have")]
    Labels,
    /// Each is compared with each device.
    #[error("there are {0} alternatives, at most {MAX_ALTERNATIVES} are accepted")]
    Alternatives(usize),
    /// A bank that there is not.
    #[error("alternative {}: {bank:?} is no PCR bank", place + 1)]
    Bank { place: usize, bank: String },
    /// Everything would meet it.
    #[error("alternative {}: it names no PCR", place + 1)]
    NoPcr { place: usize },
    /// Software can reset those above 15.
    #[error("alternative {}: {pcr} is not a PCR index from 0 to 15", place + 1)]
    Pcr { place: usize, pcr: u32 },
    /// Not a value of that bank.
    #[error("alternative {}: PCR {pcr} must be {bytes} bytes as hexadecimal digits", place + 1)]
    Value { place: usize, pcr: u32, bytes: usize },
    /// A machine whose firmware measures nothing would meet it.
    #[error("alternative {}: all its PCRs are zero: nothing was measured into them, so they prove nothing", place + 1)]
    NothingMeasured { place: usize },
    /// Too long, or with control characters.
    #[error("alternative {}: the note must be at most {MAX_NOTE_BYTES} characters without control characters", place + 1)]
    Note { place: usize },
    /// Each takes memory of every server.
    #[error("ima: {0} files are allowed, at most {MAX_FILES} are accepted: leave out directories with \"exclude\"")]
    Files(usize),
    /// Not as the kernel's list has it.
    #[error("ima: file {}: the digest must be a hash, a colon and its digits in lower case, such as sha256:0a...", place + 1)]
    Digest { place: usize },
    /// Too long, or with control characters.
    #[error(
        "ima: file {}: the path must be at most {MAX_PATH_BYTES} bytes without control characters; without one, the digest is allowed anywhere",
        place + 1
    )]
    Path { place: usize },
    /// A name that begins like a directory's is another one.
    #[error(
        "ima: exclude at most {MAX_EXCLUDED} directories, from the root and with / at their end, such as /var/tmp/; not / itself"
    )]
    Exclude,
}

/// A policy that is within its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPolicy(PcrPolicy);

impl NewPolicy {
    /// Checks bounds and values. Messages number alternatives and files from 1, as `policy show` does.
    pub fn from_pb(policy: &pb::Policy) -> Result<Self, Vec<PcrPolicyError>> {
        let mut mistakes = Vec::new();
        let (name, labels) = (policy.name.clone(), policy.labels.clone().into_iter().collect());
        if !is_name(&name) {
            mistakes.push(PcrPolicyError::Name);
        }
        if !are_labels(&labels) {
            mistakes.push(PcrPolicyError::Labels);
        }
        if policy.alternatives.len() > MAX_ALTERNATIVES {
            mistakes.push(PcrPolicyError::Alternatives(policy.alternatives.len()));
        }
        let mut alternatives = Vec::new();
        for (place, alternative) in policy.alternatives.iter().take(MAX_ALTERNATIVES).enumerate() {
            match read_alternative(alternative, place) {
                Ok(checked) => alternatives.push(checked),
                Err(found) => mistakes.extend(found),
            }
        }
        let ima = policy.ima.as_ref().map(read_files).transpose();
        let ima = ima.map_err(|found| mistakes.extend(found)).ok().flatten();
        if mistakes.is_empty() { Ok(Self(PcrPolicy { name, labels, alternatives, ima })) } else { Err(mistakes) }
    }

    /// The policy.
    pub fn policy(&self) -> &PcrPolicy {
        &self.0
    }
}

/// The lineage is given when it is stored.
fn read_files(files: &pb::Files) -> Result<ImaPolicy, Vec<PcrPolicyError>> {
    let mut mistakes = Vec::new();
    if files.allowed.len() > MAX_FILES {
        mistakes.push(PcrPolicyError::Files(files.allowed.len()));
    }
    for (place, file) in files.allowed.iter().take(MAX_FILES).enumerate() {
        if !is_digest(&file.digest) {
            mistakes.push(PcrPolicyError::Digest { place });
        }
        if file.path.len() > MAX_PATH_BYTES || file.path.contains(char::is_control) {
            mistakes.push(PcrPolicyError::Path { place });
        }
    }
    if files.exclude.len() > MAX_EXCLUDED || !files.exclude.iter().all(|directory| is_directory(directory)) {
        mistakes.push(PcrPolicyError::Exclude);
    }
    if !mistakes.is_empty() {
        mistakes.truncate(MAX_MISTAKES_IN_FILES);
        return Err(mistakes);
    }
    Ok(ImaPolicy {
        lineage: String::new(),
        allowed: files.allowed.iter().map(MeasuredFile::from_pb).collect(),
        exclude: files.exclude.iter().cloned().collect(),
        violations: files.violations,
        any_boot_aggregate: files.any_boot_aggregate,
    })
}

fn is_digest(text: &str) -> bool {
    let is_hash = |hash: &str| !hash.is_empty() && hash.bytes().all(|b| b.is_ascii_graphic());
    let is_hex = |digits: &str| {
        !digits.is_empty()
            && digits.len().is_multiple_of(2)
            && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    text.len() <= MAX_DIGEST_CHARS
        && text.rsplit_once(':').is_some_and(|(hash, digits)| is_hash(hash) && is_hex(digits))
}

fn is_directory(text: &str) -> bool {
    (3..=MAX_PATH_BYTES).contains(&text.len())
        && text.starts_with('/')
        && text.ends_with('/')
        && !text.contains(char::is_control)
}

fn read_alternative(alternative: &pb::Alternative, place: usize) -> Result<Alternative, Vec<PcrPolicyError>> {
    let bank = &alternative.bank;
    let Ok(bank) = bank.parse::<PcrHash>() else {
        return Err(vec![PcrPolicyError::Bank { place, bank: bank.chars().take(32).collect() }]);
    };
    let mut mistakes = Vec::new();
    let mut pcrs = BTreeMap::new();
    for (pcr, text) in &alternative.pcrs {
        match (index(*pcr), text.parse::<PcrValue>()) {
            (None, _) => mistakes.push(PcrPolicyError::Pcr { place, pcr: *pcr }),
            (Some(index), Ok(value)) if value.0.len() == bank.bytes() => drop(pcrs.insert(index, value)),
            (Some(_), _) => mistakes.push(PcrPolicyError::Value { place, pcr: *pcr, bytes: bank.bytes() }),
        }
    }
    if alternative.pcrs.is_empty() {
        mistakes.push(PcrPolicyError::NoPcr { place });
    } else if mistakes.is_empty() && pcrs.values().all(PcrValue::is_untouched) {
        mistakes.push(PcrPolicyError::NothingMeasured { place });
    }
    let note = alternative.note.clone();
    if note.len() > MAX_NOTE_BYTES || note.contains(char::is_control) {
        mistakes.push(PcrPolicyError::Note { place });
    }
    if mistakes.is_empty() { Ok(Alternative { bank, pcrs, note }) } else { Err(mistakes) }
}

fn index(pcr: u32) -> Option<u8> {
    let index = u8::try_from(pcr).ok()?;
    PcrSelection::from_indices([index]).ok().map(|_| index)
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn are_labels(labels: &BTreeMap<String, String>) -> bool {
    let is_one = |(name, value): (&String, &String)| {
        !value.is_empty() && [name, value].iter().all(|text| text.trim() == **text) && check_label(name, value).is_ok()
    };
    labels.len() <= MAX_LABELS && labels.iter().all(is_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alternative(change: impl FnOnce(&mut pb::Alternative)) -> pb::Policy {
        let pcrs = [(0, "01".repeat(32)), (7, "00".repeat(32))].into();
        let mut alternative = pb::Alternative { bank: "sha256".into(), pcrs, note: "1.0".into() };
        change(&mut alternative);
        pb::Policy { name: "golden-1".into(), labels: Default::default(), alternatives: vec![alternative], ima: None }
    }

    fn refused(policy: &pb::Policy) -> Vec<PcrPolicyError> {
        NewPolicy::from_pb(policy).expect_err("refused")
    }

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        let policy = alternative(|_| {});
        assert_eq!(NewPolicy::from_pb(&policy).expect("legal").policy().to_pb(), policy);
    }

    #[test]
    fn each_mistake_in_files_has_its_name() {
        use PcrPolicyError::{Digest, Exclude, Files, Path};
        let digest = format!("sha256:{}", "0a".repeat(32));
        let file = |path: &str, digest: &str| pb::File { path: path.into(), digest: digest.into() };
        let with = |files: pb::Files| pb::Policy { ima: Some(files), ..alternative(|_| {}) };
        let allowed = |allowed: Vec<pb::File>| with(pb::Files { allowed, ..pb::Files::default() });
        let legal = with(pb::Files {
            allowed: vec![file("/bin/a", &digest), file("", "verity:sha256:0a")],
            exclude: vec!["/var/tmp/".into()],
            violations: true,
            any_boot_aggregate: true,
        });
        assert!(NewPolicy::from_pb(&legal).is_ok());
        for bad in
            ["", "0a", ":0a", "sha256:", "sha256:0", "sha256:0A", &format!("x:{}", "0a".repeat(MAX_DIGEST_CHARS))]
        {
            assert_eq!(refused(&allowed(vec![file("/bin/a", bad)])), [Digest { place: 0 }], "{bad}");
        }
        for bad in ["a\nb", &"a".repeat(MAX_PATH_BYTES + 1)] {
            assert_eq!(refused(&allowed(vec![file(bad, &digest)])), [Path { place: 0 }]);
        }
        for bad in ["/", "/tmp", "tmp/", "", "/a\n/"] {
            let files = pb::Files { exclude: vec![bad.into()], ..pb::Files::default() };
            assert_eq!(refused(&with(files)), [Exclude], "{bad}");
        }
        let files = pb::Files { exclude: vec!["/tmp/".into(); MAX_EXCLUDED + 1], ..pb::Files::default() };
        assert_eq!(refused(&with(files)), [Exclude]);
        assert_eq!(refused(&allowed(vec![file("", &digest); MAX_FILES + 1])), [Files(MAX_FILES + 1)]);
        assert_eq!(refused(&allowed(vec![file("", ""); 100])).len(), MAX_MISTAKES_IN_FILES);
    }

    #[test]
    fn each_mistake_has_its_name() {
        use PcrPolicyError::{Bank, NoPcr, Note, NothingMeasured, Pcr, Value};
        let place = 0;
        for (change, mistake) in [
            (
                (|a: &mut pb::Alternative| a.bank = "md5".into()) as fn(&mut pb::Alternative),
                Bank { place, bank: "md5".into() },
            ),
            (|a| a.pcrs.clear(), NoPcr { place }),
            (|a| drop(a.pcrs.insert(16, "01".repeat(32))), Pcr { place, pcr: 16 }),
            (|a| drop(a.pcrs.insert(300, "01".repeat(32))), Pcr { place, pcr: 300 }),
            (|a| drop(a.pcrs.insert(4, "01".repeat(20))), Value { place, pcr: 4, bytes: 32 }),
            (|a| drop(a.pcrs.insert(4, "zz".repeat(32))), Value { place, pcr: 4, bytes: 32 }),
            (|a| drop(a.pcrs.insert(0, "00".repeat(32))), NothingMeasured { place }),
            (|a| a.note = "a\nb".into(), Note { place }),
            (|a| a.note = "a".repeat(MAX_NOTE_BYTES + 1), Note { place }),
        ] {
            assert_eq!(refused(&alternative(change)), [mistake]);
        }
        for name in ["", "a b", "a:b", "ä", &"a".repeat(MAX_NAME_BYTES + 1)] {
            assert_eq!(refused(&pb::Policy { name: name.to_owned(), ..alternative(|_| {}) }), [PcrPolicyError::Name]);
        }
        let long = "n".repeat(super::super::MAX_LABEL_NAME_BYTES + 1);
        for (name, value) in [("", "x"), ("x", ""), ("x", "a\tb"), ("a b", "x"), ("x", " a"), (&long, "x")] {
            let labels = [(name.to_owned(), value.to_owned())].into();
            assert_eq!(refused(&pb::Policy { labels, ..alternative(|_| {}) }), [PcrPolicyError::Labels]);
        }
        let many = vec![alternative(|_| {}).alternatives.remove(0); MAX_ALTERNATIVES + 1];
        let many = pb::Policy { alternatives: many, ..alternative(|_| {}) };
        assert_eq!(refused(&many), [PcrPolicyError::Alternatives(MAX_ALTERNATIVES + 1)]);
        let all_at_once = pb::Policy { name: String::new(), ..alternative(|a| a.bank = String::new()) };
        assert_eq!(refused(&all_at_once).len(), 2);
    }
}
