//! What a device has measured since it booted (IMA), as far as its quotes prove it: held against each policy about it. Stored as JSON,
//! within what it has booted.
//!
//! The list itself is not kept: of 1,000 devices it would be more than everything else. So a policy that comes to allow more is judged
//! by what is here; for one that comes to allow less, or is new, the device shows its whole list again at its next attestation.

use std::collections::BTreeMap;

use ironroot_api::pb::device as pb;
use serde::{Deserialize, Serialize};

use super::PcrValue;
use crate::facts::ima_policy::{ImaPolicy, MeasuredFile};

/// Files outside a policy that are kept of a device, by policy.
pub const MAX_OUTSIDE: usize = 16;
/// Most policies that a list is held against, the first ones by name.
pub const MAX_JUDGED: usize = 32;

/// The list as far as it is proven.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImaFacts {
    /// What the device says its boot is called: there the list goes on from here. Believed by nobody.
    pub boot_id: String,
    /// Entries.
    pub entries: u64,
    /// PCR 10 after these.
    pub register: Option<PcrValue>,
    /// Digest of its `boot_aggregate`; empty if there is none, or there are several.
    pub aggregate: String,
    /// Whether that is the digest of the registers that were quoted last.
    pub is_aggregate_quoted: bool,
    /// How often the kernel could not tell what was used.
    pub violations: u64,
    /// By the policy's name.
    pub judged: BTreeMap<String, Judged>,
}

/// A list held against a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Of the policy as it was.
    pub lineage: String,
    /// What it did not allow, the first of them.
    pub outside: Vec<MeasuredFile>,
    /// How many more.
    pub more: u64,
}

impl ImaFacts {
    /// Whether each file is allowed by the policy of that name as it is now.
    pub fn meets(&self, name: &str, policy: &ImaPolicy) -> bool {
        //= TPM-49 Linux, ima_policy.c: "a file that no policy allows takes the selector away"
        (policy.violations || self.violations == 0)
            && (policy.any_boot_aggregate || self.is_aggregate_quoted)
            && self.judged.get(name).is_some_and(|judged| judged.meets(policy))
    }

    /// The wire form.
    pub fn to_pb(&self) -> pb::MeasuredFiles {
        let judged = |(policy, judged): (&String, &Judged)| pb::JudgedFiles {
            policy: policy.clone(),
            outside: judged.outside.iter().map(|file| format!("{} {}", file.path, file.digest)).collect(),
            more: judged.more,
        };
        pb::MeasuredFiles {
            entries: self.entries,
            register: self.register.as_ref().map(ToString::to_string).unwrap_or_default(),
            violations: self.violations,
            boot_aggregate: self.is_aggregate_quoted,
            judged: self.judged.iter().map(judged).collect(),
            missing: String::new(),
        }
    }
}

impl Judged {
    /// Notes a file, if the policy does not allow it.
    pub fn hold(&mut self, policy: &ImaPolicy, file: &MeasuredFile) {
        if policy.allows(file) || self.outside.contains(file) {
            return;
        }
        if self.outside.len() < MAX_OUTSIDE { self.outside.push(file.clone()) } else { self.more += 1 }
    }

    /// By the policy as it is now: what it did not allow when the list was shown may be allowed by now.
    fn meets(&self, policy: &ImaPolicy) -> bool {
        self.lineage == policy.lineage && self.more == 0 && self.outside.iter().all(|file| policy.allows(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: usize) -> MeasuredFile {
        MeasuredFile { digest: format!("sha256:{number:02x}"), path: format!("/bin/{number}") }
    }

    fn policy(files: usize) -> ImaPolicy {
        ImaPolicy { lineage: "1".into(), allowed: (0..files).map(file).collect(), ..ImaPolicy::default() }
    }

    fn judged_by(policy: &ImaPolicy, files: usize) -> ImaFacts {
        let mut judged = Judged { lineage: policy.lineage.clone(), ..Judged::default() };
        (0..files).for_each(|number| judged.hold(policy, &file(number)));
        ImaFacts { is_aggregate_quoted: true, judged: [("golden".to_owned(), judged)].into(), ..ImaFacts::default() }
    }

    #[test]
    fn a_file_outside_the_policy_counts_until_the_policy_allows_it() {
        let facts = judged_by(&policy(5), 6);
        assert!(!facts.meets("golden", &policy(5)));
        assert!(facts.meets("golden", &policy(6)), "it is known which file it was");
        assert!(!facts.meets("other", &policy(6)), "it was not held against that one");
        let less = ImaPolicy { lineage: "2".into(), ..policy(6) };
        assert!(!facts.meets("golden", &less), "the list was not held against that");
    }

    #[test]
    fn files_beyond_the_bound_are_counted_and_never_forgiven_without_the_list() {
        let facts = judged_by(&policy(0), MAX_OUTSIDE + 3);
        let judged = &facts.judged["golden"];
        assert_eq!((judged.outside.len(), judged.more), (MAX_OUTSIDE, 3));
        assert!(!facts.meets("golden", &policy(MAX_OUTSIDE + 3)));
        assert!(judged_by(&policy(0), MAX_OUTSIDE).meets("golden", &policy(MAX_OUTSIDE)));
    }

    #[test]
    fn violations_and_another_boot_aggregate_count_unless_the_policy_says_otherwise() {
        let facts = judged_by(&policy(1), 1);
        let violated = ImaFacts { violations: 1, ..facts.clone() };
        let elsewhere = ImaFacts { is_aggregate_quoted: false, ..facts };
        assert!(!violated.meets("golden", &policy(1)) && !elsewhere.meets("golden", &policy(1)));
        assert!(violated.meets("golden", &ImaPolicy { violations: true, ..policy(1) }));
        assert!(elsewhere.meets("golden", &ImaPolicy { any_boot_aggregate: true, ..policy(1) }));
    }
}
