//! Metrics have SPIRE's names and labels: what both makes count of the same life of a server and an agent.

use std::collections::{BTreeMap, BTreeSet};

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, free_port, wait_for};
use ironroot_lab::metrics::{block, families, scrape, switch_on, value};
use ironroot_lab::spire::{SpireAgent, SpireServer, Times};
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "24h", agent: "1h", x509_svid: "1h" };

/// What SPIRE counts of its own inside, which is not built like ours: the calls of its data store and plugins, its caches, its runtime.
const OF_SPIRES_INSIDE: [&str; 15] = [
    "spire_server_datastore_",
    "spire_server_entry_",
    "spire_server_node_",
    "spire_server_rateLimit_",
    "spire_server_runtime_",
    "spire_server_server_key_manager_",
    "spire_agent_agent_key_manager_",
    "spire_agent_lru_cache_entry_",
    "spire_agent_runtime_",
    "spire_agent_store_",
    "spire_agent_sync_entries_dropped",
    "spire_agent_sync_entries_missing",
    "spire_agent_sync_entries_stale",
    "spire_agent_workload_api_discovered_selectors",
    "spire_agent_workload_api_workload_attestor",
];

fn server(maker: Maker, port: u16) -> AnyServer {
    match maker {
        Maker::Ironroot => {
            let mut server = Server::prepare(&ServerOptions::default());
            switch_on(&server.config_path(), port);
            server.restart();
            AnyServer::Ours(server)
        }
        Maker::Spire => {
            let mut server = SpireServer::start(TIMES);
            server.add_blocks(&block(port));
            AnyServer::Spires(server)
        }
    }
}

fn agent(maker: Maker, server: &AnyServer, port: u16) -> AnyAgent {
    let (bundle, token) = (server.cli(maker, &["bundle", "show"]), server.token(maker));
    match maker {
        Maker::Ironroot => {
            let mut device = Device::without_tpm();
            let options = AgentOptions { join_token: Some(token), key_manager: "disk", ..AgentOptions::default() };
            device.provision_with_bundle(&bundle, server.port(), &options);
            switch_on(&device.config_path(), port);
            device.start();
            AnyAgent::Ours(device)
        }
        Maker::Spire => {
            let mut agent = SpireAgent::new();
            agent.provision(&bundle, server.port());
            agent.add_blocks(&block(port));
            agent.start(Some(&token));
            AnyAgent::Spires(agent)
        }
    }
}

/// The metrics of a server and an agent of one make that live the same life, each with the names of its labels.
fn metrics_of(maker: Maker) -> BTreeMap<String, BTreeSet<String>> {
    let ports = (free_port(), free_port());
    let server = server(maker, ports.0);
    server.create_own_entry(maker, "/workload", &[]);
    let agent = agent(maker, &server, ports.1);
    let runtime = Runtime::new().expect("runtime");
    agent.expect_identity(&runtime);
    server.cli(maker, &["healthcheck"]);
    let has = |page: &str, name| value(page, name, &["status=\"OK\""]).is_some_and(|count| count > 0.0);
    let pages = wait_for(DEADLINE, || {
        let (server, agent) = (scrape(ports.0)?, scrape(ports.1)?);
        let is_done = has(&server, "spire_server_rpc_agent_v1_agent_post_status")
            && has(&server, "spire_server_rpc_health_check")
            && has(&agent, "spire_agent_rpc_workload_api_fetch_x509svid");
        is_done.then(|| server + &agent)
    });
    families(&pages.unwrap_or_else(|| panic!("no pages of {maker:?}\n{}\n{}", server.log(), agent.log())))
}

#[test]
fn what_is_not_counted_here_is_on_the_page() {
    let page = include_str!("../../../docs/spire-compatibility.md");
    for prefix in OF_SPIRES_INSIDE {
        let is_told = [format!("`{prefix}*`"), format!("`{prefix}`")].iter().any(|name| page.contains(name));
        assert!(is_told, "{prefix} is not in docs/spire-compatibility.md");
    }
}

#[test]
#[ignore = "needs SPIRE's binaries"]
fn what_spire_counts_is_counted_here_under_the_same_names_and_labels() {
    let (spires, ours) = (metrics_of(Maker::Spire), metrics_of(Maker::Ironroot));
    let mut compared = 0;
    let mut missing = Vec::new();
    for (name, labels) in spires {
        let is_common = name.starts_with("spire_") && !OF_SPIRES_INSIDE.iter().any(|inside| name.starts_with(inside));
        // Quantiles of the last ten seconds are SPIRE's library's; ours are in the histograms.
        if !is_common || labels.contains("quantile") {
            continue;
        }
        compared += 1;
        match ours.get(&name) {
            Some(own) if *own == labels => {}
            own => missing.push(format!("{name} {labels:?}: {own:?}")),
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(compared >= 30, "only {compared} metrics of SPIRE's were compared");
}
