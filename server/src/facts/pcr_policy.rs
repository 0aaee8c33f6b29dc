//! Named policies of what devices may have booted: sets of PCR values, any of which will do. SPIRE has no counterpart.

use std::collections::BTreeMap;

use ironroot_api::pb::pcr_policy as pb;
use ironroot_attest::Selector;
use ironroot_attest::node::tpm2::PcrHash;
use serde::{Deserialize, Serialize};

use crate::facts::device::{BootFacts, PcrValue};
use crate::facts::ima_policy::ImaPolicy;

/// Most policies: each is held against each device at its syncs.
pub const MAX_POLICIES: usize = 256;

/// A policy. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcrPolicy {
    /// What `tpm2:policy:<name>` says of a device that meets it.
    pub name: String,
    /// Only devices with all these labels can meet it; none: every device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// A device whose registers have the values of one of these meets the policy.
    pub alternatives: Vec<Alternative>,
    /// What it may have measured since, if that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ima: Option<ImaPolicy>,
}

/// Values of registers that were measured together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternative {
    /// Of this bank.
    pub bank: PcrHash,
    /// All of these, at least one.
    pub pcrs: BTreeMap<u8, PcrValue>,
    /// What an operator should know of it, such as the firmware's version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl PcrPolicy {
    /// Whether the policy is about a device with these labels.
    pub fn is_about(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
    }

    /// Whether that boot is one of those allowed, with what was measured since. A policy of files alone is met by them.
    pub fn is_met_by(&self, boot: &BootFacts) -> bool {
        let are_files_alone = self.alternatives.is_empty() && self.ima.is_some();
        let is_state_allowed = are_files_alone || self.alternatives.iter().any(|alternative| alternative.is(boot));
        is_state_allowed && (self.ima.is_none() || self.allows_files_of(boot))
    }

    /// Whether each file that was measured in that boot is one of those allowed. Of a policy that names none: no.
    pub fn allows_files_of(&self, boot: &BootFacts) -> bool {
        self.ima.as_ref().zip(boot.ima.as_ref()).is_some_and(|(policy, files)| files.meets(&self.name, policy))
    }

    /// The wire form.
    pub fn to_pb(&self) -> pb::Policy {
        let alternative = |alternative: &Alternative| pb::Alternative {
            bank: alternative.bank.to_string(),
            pcrs: alternative.pcrs.iter().map(|(index, value)| (u32::from(*index), value.to_string())).collect(),
            note: alternative.note.clone(),
        };
        pb::Policy {
            name: self.name.clone(),
            labels: self.labels.clone().into_iter().collect(),
            alternatives: self.alternatives.iter().map(alternative).collect(),
            ima: self.ima.as_ref().map(ImaPolicy::to_pb),
        }
    }
}

/// What is true of a device that meets the policy of that name.
pub fn policy_selector(name: &str) -> Selector {
    Selector::accepted(&format!("{POLICY_PREFIX}{name}")).expect("there is a colon between type and value")
}

/// What is true of a device whose measured files (IMA) are all allowed by the policy of that name.
pub fn ima_selector(name: &str) -> Selector {
    Selector::accepted(&format!("{IMA_PREFIX}{name}")).expect("there is a colon between type and value")
}

/// Whether the selector says that a policy is met: nothing that a TPM proves by itself.
pub fn is_policy_selector(selector: &Selector) -> bool {
    let is_of = |prefix: &str| {
        let form = prefix.strip_prefix(selector.kind()).and_then(|rest| rest.strip_prefix(':'));
        form.is_some_and(|form| selector.value().starts_with(form))
    };
    is_of(POLICY_PREFIX) || is_of(IMA_PREFIX)
}

/// Before the name.
const POLICY_PREFIX: &str = "tpm2:policy:";
/// The same where the files alone count.
const IMA_PREFIX: &str = "tpm2:ima:";

impl Alternative {
    /// Every register of it was quoted, with its value, from its bank.
    fn is(&self, boot: &BootFacts) -> bool {
        !self.pcrs.is_empty()
            && self.bank == boot.bank
            && self.pcrs.iter().all(|(index, value)| boot.pcrs.get(index) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alternative(pcrs: &[(u8, u8)]) -> Alternative {
        let BootFacts { bank, pcrs, .. } = BootFacts::example(pcrs);
        Alternative { bank, pcrs, note: String::new() }
    }

    fn policy(alternatives: Vec<Alternative>) -> PcrPolicy {
        PcrPolicy { name: "golden".into(), labels: BTreeMap::new(), alternatives, ima: None }
    }

    #[test]
    fn one_alternative_with_all_its_values_is_enough_and_nothing_less() {
        let update = policy(vec![alternative(&[(0, 1), (7, 9)]), alternative(&[(0, 2), (7, 9)])]);
        for (pcrs, is_met) in [
            (&[(0, 1), (7, 9)][..], true),
            (&[(0, 2), (7, 9)], true),
            (&[(0, 1), (4, 5), (7, 9)], true),
            (&[(0, 3), (7, 9)], false),
            (&[(0, 1), (7, 8)], false),
            (&[(7, 9)], false),
            (&[], false),
        ] {
            assert_eq!(update.is_met_by(&BootFacts::example(pcrs)), is_met, "{pcrs:?}");
        }
        let other_bank = BootFacts { bank: PcrHash::Sha384, ..BootFacts::example(&[(0, 1), (7, 9)]) };
        assert!(!update.is_met_by(&other_bank));
        assert!(!policy(vec![]).is_met_by(&BootFacts::example(&[(0, 1)])), "without alternatives nobody meets it");
        assert!(!policy(vec![alternative(&[])]).is_met_by(&BootFacts::example(&[(0, 1)])));
        let selector = policy_selector(&update.name);
        assert_eq!(selector.to_string(), "tpm2:policy:golden");
        assert!(is_policy_selector(&selector) && is_policy_selector(&ima_selector("golden")));
        for other in ["tpm2:pcr:sha256:7:00", "unix:policy:golden", "tpm2:policyx", "tpm:policy:golden"] {
            assert!(!is_policy_selector(&other.parse().expect("legal")), "{other}");
        }
    }

    #[test]
    fn a_policy_is_about_devices_with_all_its_labels() {
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        let device = labels(&[("site", "rome"), ("ring", "1")]);
        for (wanted, is_about) in [
            (&[][..], true),
            (&[("site", "rome")], true),
            (&[("site", "rome"), ("ring", "1")], true),
            (&[("site", "bern")], false),
            (&[("site", "rome"), ("model", "x")], false),
        ] {
            let policy = PcrPolicy { labels: labels(wanted), ..policy(vec![]) };
            assert_eq!(policy.is_about(&device), is_about, "{wanted:?}");
        }
    }

    /// Databases hold this text.
    #[test]
    fn the_stored_form_of_a_policy_stays_as_it_is() {
        let mut update = policy(vec![Alternative { note: "1.2".into(), ..alternative(&[]) }]);
        update.alternatives[0].pcrs = [(7, PcrValue(vec![0xab]))].into();
        update.labels = [("site".to_owned(), "rome".to_owned())].into();
        let stored = r#"{"name":"golden","labels":{"site":"rome"},"alternatives":[{"bank":"sha256","pcrs":{"7":"ab"},"note":"1.2"}]}"#;
        assert_eq!(serde_json::to_string(&update).expect("JSON"), stored);
        assert_eq!(serde_json::from_str::<PcrPolicy>(stored).expect("a policy"), update);
    }
}
