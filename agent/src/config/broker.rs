//! Where brokers ask, and who they are: SPIRE's `experimental { broker { } }`.

use std::collections::BTreeSet;

use ironroot_api::SpiffeId;
use ironroot_shell::settings::{Section, places};

use super::admin_socket::is_among_workloads;
use super::{BrokerConfig, Brokers, ReferenceTypes};

/// Every type that the agent understands.
const ANY_TYPE: &str = "*";
/// The URL of `spiffe.broker.WorkloadPIDReference`, the only type that is understood here.
pub(crate) const PID_REFERENCE: &str = "type.googleapis.com/spiffe.broker.WorkloadPIDReference";

/// Reads the block, if there is one. `agent` is the block around `experimental`.
pub(super) fn read(agent: &Section<'_>, experimental: &Section<'_>) -> Option<BrokerConfig> {
    let block = experimental.block("broker");
    if !block.is_present() {
        return None;
    }
    block.refuse_unless_empty(
        "bind_address",
        "brokers are served on a unix socket alone: they name processes by their numbers, which mean nothing to another machine. \
         Give socket_path",
    );
    let socket_path = block.socket_path("socket_path");
    let socket_path = block.required("socket_path", socket_path, "brokers ask on a socket of their own");
    if let Some(path) = &socket_path {
        if is_among_workloads(agent, path) {
            block.mistake(
                "socket_path",
                "the broker socket cannot be in the same directory or a subdirectory as that containing the Workload API socket: \
                 give it a directory of its own",
            );
        }
        block.look("socket_path", || places::usable_socket(path));
    }
    let brokers = read_brokers(&block);
    block.finish();
    Some(BrokerConfig { socket_path: socket_path?, brokers })
}

fn read_brokers(block: &Section<'_>) -> Brokers {
    let sections = block.blocks("brokers");
    block.required("brokers", (!sections.is_empty()).then_some(()), "say who may ask: { id = \"spiffe://...\" ... }");
    let mut ids = BTreeSet::new();
    let brokers = sections.iter().filter_map(|section| {
        let id = section.required("id", section.parsed("id", SpiffeId::parse), "give the broker's SPIFFE ID");
        let types = read_types(section);
        section.finish();
        let id = id?;
        if !ids.insert(id.clone()) {
            section.mistake("id", format!("duplicate broker id {id}: keep one"));
        }
        Some((id, types))
    });
    brokers.collect()
}

/// By what one broker may name workloads.
fn read_types(broker: &Section<'_>) -> ReferenceTypes {
    let sections = broker.blocks("allowed_reference_types");
    let hint = "must list at least one reference type: { type_url = \"*\" } for all";
    broker.required("allowed_reference_types", (!sections.is_empty()).then_some(()), hint);
    let types: BTreeSet<String> = sections.iter().filter_map(read_type).collect();
    match types.contains(ANY_TYPE) {
        true if sections.len() > 1 => {
            broker.mistake("allowed_reference_types", "wildcard \"*\" must be the only allowed reference type");
            ReferenceTypes::Any
        }
        true => ReferenceTypes::Any,
        false => ReferenceTypes::Only(types),
    }
}

fn read_type(section: &Section<'_>) -> Option<String> {
    let type_url = section.required("type_url", section.string("type_url"), "must be specified");
    if type_url.as_deref().is_some_and(|url| url != ANY_TYPE && url != PID_REFERENCE) {
        let told =
            format!("not understood here: whoever names a workload so is refused; {PID_REFERENCE} is, and \"*\"");
        section.warn("type_url", told);
    }
    if section.boolean("allow_over_tcp") == Some(true) {
        section.warn("allow_over_tcp", "has no effect: brokers are served on a unix socket alone");
    }
    section.finish();
    type_url
}
