//! What may happen, of few values, so that parents, loops and aliases meet often.

use ironroot_api::pb::types;
use ironroot_attest::SelectorSet;
use ironroot_fuzz::proptest::prelude::*;

use super::td;
use crate::facts::agent::{AgentRecord, selectors_to_pb};
use crate::registry::EntryFilter;

/// One change of the registry, as the model and the real one take it.
#[derive(Clone, Debug)]
pub enum Step {
    PutEntry(types::Entry),
    RemoveEntry(String),
    PutAgent(AgentRecord),
    RemoveAgent(u8),
}

pub fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => entry().prop_map(Step::PutEntry),
        3 => entry_id().prop_map(Step::RemoveEntry),
        1 => agent().prop_map(Step::PutAgent),
        1 => (0..5u8).prop_map(Step::RemoveAgent),
    ];
    prop::collection::vec(step, 1..=most)
}

fn entry_id() -> impl Strategy<Value = String> {
    (0..60u8).prop_map(|number| format!("e{number}"))
}

fn entry() -> impl Strategy<Value = types::Entry> {
    let parent = prop_oneof![
        4 => Just("/spire/server".to_owned()),
        2 => (0..5u8).prop_map(|agent| format!("/spire/agent/{agent}")),
        4 => (0..12u8).prop_map(|number| format!("/w/{number}")),
    ];
    let expires_at = prop::option::weighted(0.2, 1..50i64).prop_map(Option::unwrap_or_default);
    let ids = (entry_id(), 0..12u8, parent);
    (ids, selectors(1..=3), expires_at, 0..3u8, prop::bool::weighted(0.3)).prop_map(
        |((entry_id, number, parent), selectors, expires_at, hint, downstream)| {
            let id = |path: String| Some(types::Spiffeid { trust_domain: "td".into(), path });
            types::Entry {
                id: entry_id,
                spiffe_id: id(format!("/w/{number}")),
                parent_id: id(parent),
                selectors: selectors_to_pb(&selectors),
                expires_at,
                hint: hint.to_string(),
                downstream,
                ..types::Entry::default()
            }
        },
    )
}

fn selectors(count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = SelectorSet> {
    let selector = (0..8u8).prop_map(|number| format!("s:{number}").parse().expect("a selector"));
    prop::collection::vec(selector, count).prop_map(SelectorSet::from_iter)
}

fn agent() -> impl Strategy<Value = AgentRecord> {
    (0..5u8, prop::bool::weighted(0.1), selectors(0..=6)).prop_map(|(number, banned, selectors)| AgentRecord {
        spiffe_id: td().id_with_path(&format!("/spire/agent/{number}")).expect("legal"),
        attestation_type: "tpm2".into(),
        serial: "1".into(),
        not_after: 0,
        new_serial: String::new(),
        new_not_after: 0,
        can_reattest: true,
        banned,
        selectors,
        agent_version: String::new(),
        ek_sha256: None,
        certificate_sha256: None,
    })
}

pub fn filter() -> impl Strategy<Value = EntryFilter> {
    let id = || {
        let id = (0..12u8).prop_map(|number| td().id_with_path(&format!("/w/{number}")).expect("legal"));
        prop::option::weighted(0.4, id)
    };
    let hint = prop::option::weighted(0.3, (0..3u8).prop_map(|hint| hint.to_string()));
    (id(), id(), hint, prop::bool::weighted(0.3)).prop_map(|(spiffe_id, parent_id, hint, downstream)| EntryFilter {
        spiffe_id,
        parent_id,
        hint,
        downstream,
        ..EntryFilter::default()
    })
}
