//! What is true of an agent's node now: what it proved when it attested, and what operators say of its device today.

use std::sync::Arc;

use crate::devices::DeviceToday;
use crate::facts::agent::AgentRecord;
#[cfg(test)]
use crate::facts::device::DeviceRecord;
use crate::facts::device::{DeviceState, is_operators_selector};
use crate::facts::pcr_policy::{ima_selector, is_policy_selector, policy_selector};
use ironroot_attest::node::tpm2::ATTESTATION_TYPE;
use ironroot_attest::{Selector, SelectorSet};

/// The words of operators about an agent's device: serial, labels, and the policies that its last boot meets if the agent has proven
/// that boot. Equal words make equal selectors.
#[derive(Clone, Debug, Default)]
pub(super) struct OperatorsWords(Option<DeviceToday>);

impl OperatorsWords {
    /// Of a device that is not enrolled nothing counts, and what it has booted only for the agent that has quoted it.
    pub fn of(agent: &AgentRecord, device: Option<DeviceToday>) -> Self {
        let enrolled = device.filter(|device| device.record.state == DeviceState::Enrolled);
        Self(enrolled.map(|device| match has_proven_the_boot(agent, &device) {
            true => device,
            false => DeviceToday { policies: Default::default(), files: Default::default(), ..device },
        }))
    }

    /// The node's selectors. Words that were stored with the agent are passed over: they are those of its attestation.
    pub fn joined_to(&self, agent: &AgentRecord) -> SelectorSet {
        let is_word = |selector: &Selector| is_operators_selector(selector) || is_policy_selector(selector);
        let is_stale = |selector: &Selector| agent.ek_sha256.is_some() && is_word(selector);
        let proven = agent.selectors.iter().filter(|selector| !is_stale(selector)).cloned();
        let words = self.0.as_ref().map(|device| device.record.selectors()).unwrap_or_default();
        let met = self.0.iter().flat_map(|device| device.policies.iter().map(|name| policy_selector(name)));
        let files = self.0.iter().flat_map(|device| device.files.iter().map(|name| ima_selector(name)));
        proven.chain(words.iter().cloned()).chain(met).chain(files).collect()
    }

    /// The agent's row as it is to be shown.
    pub fn shown(&self, agent: &Arc<AgentRecord>) -> Arc<AgentRecord> {
        if agent.ek_sha256.is_none() {
            return agent.clone();
        }
        Arc::new(AgentRecord { selectors: self.joined_to(agent), ..AgentRecord::clone(agent) })
    }
}

/// Whether what the device has proven last of its boot was quoted by this agent's own attestation, and will be again. A key of the
/// chip alone (`tpm`, `tpm_devid`) says nothing of the boot; what another agent of the same chip has quoted is that agent's; and
/// who only renews its certificate proves no later boot.
//= TPM-44 TCG PC Client Platform Firmware Profile: "a state that no policy allows loses the selector"
fn has_proven_the_boot(agent: &AgentRecord, device: &DeviceToday) -> bool {
    let has_quoted = agent.attestation_type.split('+').any(|part| part == ATTESTATION_TYPE);
    has_quoted && agent.can_reattest && device.record.agent_id.as_ref() == Some(&agent.spiffe_id)
}

impl PartialEq for OperatorsWords {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(two)) => {
                let (a, b) = (&one.record, &two.record);
                one.policies == two.policies
                    && one.files == two.files
                    && (Arc::ptr_eq(a, b) || (a.serial == b.serial && a.labels == b.labels))
            }
            (None, None) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
impl OperatorsWords {
    /// About a device with that serial and a label `site`; those that are enrolled count.
    pub(super) fn example(serial: &str, site: &str, state: DeviceState) -> Self {
        Self::of(&AgentRecord::example("a"), Some(device(serial, site, state)))
    }

    /// The same, and the policies that it meets.
    fn meeting(mut self, names: &[&str]) -> Self {
        self.0.iter_mut().for_each(|device| device.policies = names.iter().map(|name| (*name).to_owned()).collect());
        self
    }
}

/// Last quoted by no agent, and meeting no policy.
#[cfg(test)]
fn device(serial: &str, site: &str, state: DeviceState) -> DeviceToday {
    let record = DeviceRecord {
        serial: serial.to_owned(),
        labels: [("site".to_owned(), site.to_owned())].into(),
        ..DeviceRecord::example([1; 32], state)
    };
    DeviceToday { record: Arc::new(record), policies: Default::default(), files: Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A good boot, quoted by agent `a`.
    fn booted_well() -> DeviceToday {
        let device = device("S1", "rome", DeviceState::Enrolled);
        let agent_id = Some(AgentRecord::example("a").spiffe_id);
        DeviceToday {
            record: Arc::new(DeviceRecord { agent_id, ..DeviceRecord::clone(&device.record) }),
            policies: ["golden".to_owned()].into(),
            files: ["files".to_owned()].into(),
        }
    }

    #[test]
    fn what_a_device_has_booted_counts_for_the_agent_that_has_quoted_it_and_will_again() {
        let of = |name: &str, attestation_type: &str, can_reattest| AgentRecord {
            attestation_type: attestation_type.into(),
            can_reattest,
            selectors: SelectorSet::default(),
            ek_sha256: Some([1; 32]),
            ..AgentRecord::example(name)
        };
        let joined = |agent: &AgentRecord| texts(&OperatorsWords::of(agent, Some(booted_well())).joined_to(agent));
        let words = ["tpm2:label:site:rome", "tpm2:serial:S1"];
        let all = ["tpm2:ima:files", words[0], "tpm2:policy:golden", words[1]];
        for quoted in ["tpm2", "x509pop+tpm2", "tpm2+join_token"] {
            assert_eq!(joined(&of("a", quoted, true)), all, "{quoted}");
            assert_eq!(joined(&of("b", quoted, true)), words, "{quoted}: another agent of the chip");
            assert_eq!(joined(&of("a", quoted, false)), words, "{quoted}: it renews and quotes no more");
        }
        for unquoted in ["tpm_devid", "tpm", "x509pop+tpm", "tpm_devid+join_token", "tpm2x"] {
            assert_eq!(joined(&of("a", unquoted, true)), words, "{unquoted}");
        }
    }

    fn agent(ek_sha256: Option<[u8; 32]>) -> AgentRecord {
        let selectors =
            ["tpm2:fw:1", "tpm2:serial:old", "tpm2:policy:old"].iter().map(|s| Selector::accepted(s).expect("legal"));
        AgentRecord { selectors: selectors.collect(), ek_sha256, ..AgentRecord::example("a") }
    }

    fn texts(selectors: &SelectorSet) -> Vec<String> {
        selectors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn words_are_the_same_if_they_say_the_same() {
        let words = |serial, site| OperatorsWords::example(serial, site, DeviceState::Enrolled);
        let one = words("S1", "rome");
        assert_eq!(one, one.clone());
        assert_eq!(one, words("S1", "rome"));
        assert_eq!(one.clone().meeting(&["a"]), words("S1", "rome").meeting(&["a"]));
        for other in [words("S2", "rome"), words("S1", "bern"), one.clone().meeting(&["a"]), OperatorsWords::default()]
        {
            assert_ne!(one, other);
            assert_ne!(other, one);
        }
        assert_eq!(OperatorsWords::default(), OperatorsWords::default());
    }

    #[test]
    fn an_agent_on_a_device_is_shown_with_todays_words_and_any_other_as_it_attested() {
        let words = OperatorsWords::example("S1", "rome", DeviceState::Enrolled);
        let shown = words.shown(&Arc::new(agent(Some([1; 32]))));
        assert_eq!(texts(&shown.selectors), ["tpm2:fw:1", "tpm2:label:site:rome", "tpm2:serial:S1"]);
        let other = OperatorsWords::default().shown(&Arc::new(agent(None)));
        assert_eq!(
            texts(&other.selectors),
            ["tpm2:fw:1", "tpm2:policy:old", "tpm2:serial:old"],
            "nobody speaks for what has no device"
        );
    }

    #[test]
    fn of_a_device_that_is_not_enrolled_no_word_counts() {
        let words = |state| {
            let words = OperatorsWords::example("S1", "rome", state).meeting(&["golden"]);
            texts(&words.joined_to(&agent(Some([1; 32]))))
        };
        let enrolled = ["tpm2:fw:1", "tpm2:label:site:rome", "tpm2:policy:golden", "tpm2:serial:S1"];
        assert_eq!(words(DeviceState::Enrolled), enrolled);
        assert_eq!(words(DeviceState::Banned), ["tpm2:fw:1"]);
        assert_eq!(words(DeviceState::Pending), ["tpm2:fw:1"]);
    }
}
