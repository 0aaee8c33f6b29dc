//! How many of the fleet's devices node entries are for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::devices::DeviceToday;
use crate::facts::agent::AgentRecord;
use crate::facts::device::{DeviceState, is_operators_selector};
use crate::registry::node::OperatorsWords;
use ironroot_api::SpiffeId;
use ironroot_attest::SelectorSet;

/// How many devices a node entry is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Matching {
    /// Those there are.
    pub devices: usize,
    /// Those that have all its selectors.
    pub matching: usize,
    /// Devices that may turn out to match when they attest: what is asked of their TPMs is not known yet.
    pub open: usize,
}

/// A device as node entries see it.
#[derive(Debug)]
pub(super) struct Node {
    selectors: SelectorSet,
    has_attested: bool,
}

/// Holds each node against every group. A node is looked at once and dropped: the whole fleet's selectors are never in memory
/// together.
pub(super) fn count(groups: &[&SelectorSet], nodes: impl Iterator<Item = Node>) -> Vec<Matching> {
    let mut counted = vec![Matching::default(); groups.len()];
    for node in nodes {
        counted.iter_mut().zip(groups).for_each(|(matching, group)| matching.add(&node, group));
    }
    counted
}

/// The enrolled devices, and the agents without a TPM that are not banned.
pub(super) fn nodes(devices: Vec<DeviceToday>, agents: Vec<Arc<AgentRecord>>) -> impl Iterator<Item = Node> {
    let enrolled: Vec<_> = devices.into_iter().filter(|device| device.record.state == DeviceState::Enrolled).collect();
    let others = without_device(&enrolled, &agents);
    let agents: HashMap<SpiffeId, Arc<AgentRecord>> =
        agents.into_iter().map(|agent| (agent.spiffe_id.clone(), agent)).collect();
    let of_device = move |device: DeviceToday| match device.record.agent_id.as_ref().and_then(|id| agents.get(id)) {
        Some(agent) => Node::of_agent(agent, Some(device)),
        None => Node { selectors: device.record.selectors(), has_attested: false },
    };
    enrolled.into_iter().map(of_device).chain(others.into_iter().map(|agent| Node::of_agent(&agent, None)))
}

fn without_device(devices: &[DeviceToday], agents: &[Arc<AgentRecord>]) -> Vec<Arc<AgentRecord>> {
    let of_devices: HashSet<&SpiffeId> = devices.iter().filter_map(|device| device.record.agent_id.as_ref()).collect();
    let agents = agents.iter().filter(|agent| !agent.banned && agent.ek_sha256.is_none());
    agents.filter(|agent| !of_devices.contains(&agent.spiffe_id)).cloned().collect()
}

impl Node {
    /// Of the device with which the agent attested, words count; of another none.
    fn of_agent(agent: &AgentRecord, device: Option<DeviceToday>) -> Self {
        let words = OperatorsWords::of(agent, device.filter(|device| agent.ek_sha256 == Some(device.record.ek_sha256)));
        Self { selectors: words.joined_to(agent), has_attested: true }
    }

    /// Whether it lacks nothing but evidence of its TPM, which it has not given yet.
    fn may_come_to_have(&self, group: &SelectorSet) -> bool {
        !self.has_attested && group.iter().all(|s| self.selectors.contains(s) || !is_operators_selector(s))
    }
}

impl Matching {
    fn add(&mut self, node: &Node, group: &SelectorSet) {
        self.devices += 1;
        if group.is_subset_of(&node.selectors) {
            self.matching += 1;
        } else if node.may_come_to_have(group) {
            self.open += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironroot_attest::Selector;

    fn set(selectors: &[&str]) -> SelectorSet {
        selectors.iter().map(|text| Selector::accepted(text).expect("type:value")).collect()
    }

    #[test]
    fn any_number_of_groups_takes_one_walk_through_the_fleet_and_no_more() {
        let (a, b, neither) = (set(&["tpm2:label:s:a"]), set(&["tpm2:label:s:b"]), set(&["tpm2:label:s:c"]));
        let mut made = 0;
        let nodes = (0..1000).map(|n| {
            made += 1;
            Node { selectors: if n % 4 == 0 { a.clone() } else { b.clone() }, has_attested: true }
        });
        let counted = count(&[&a, &b, &neither, &SelectorSet::default()], nodes);
        assert_eq!(counted.iter().map(|m| m.matching).collect::<Vec<_>>(), [250, 750, 0, 1000]);
        assert!(counted.iter().all(|m| (m.devices, m.open) == (1000, 0)));
        assert_eq!(made, 1000);
    }
}
