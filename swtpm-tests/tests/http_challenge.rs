//! Devices that attest by what they serve at their name.

use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within, free_port,
};

const ALICE: u32 = 60_001;
const HOST: &str = "127.0.0.1";

fn server(lines: &str) -> Server {
    let plugins = format!("NodeAttestor \"http_challenge\" {{ plugin_data {{ {lines} }} }}");
    let server = Server::start(&ServerOptions { plugins, ..ServerOptions::default() });
    let node = format!("spiffe://{TRUST_DOMAIN}/node");
    let selector = format!("http_challenge:hostname:{HOST}");
    server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/spire/server"), "/node", &[&selector], &[]);
    server.create_entry(&node, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    server
}

fn device(server: &Server, lines: &str) -> Device {
    let mut device = Device::without_tpm();
    let block = format!("NodeAttestor \"http_challenge\" {{ plugin_data {{ hostname = \"{HOST}\" {lines} }} }}");
    let node_attestor = Some(block);
    device.provision(server, &AgentOptions { node_attestor, key_manager: "disk", ..AgentOptions::default() });
    device.start();
    device
}

fn agent_id() -> String {
    format!("spiffe://{TRUST_DOMAIN}/spire/agent/http_challenge/{HOST}")
}

#[test]
fn a_host_attests_by_its_name_once_and_nobody_else_under_it_until_it_is_evicted() {
    let server = server("allowed_dns_patterns = [\"^127\\\\.0\\\\.0\\\\.1$\"]");
    let mut first = device(&server, "");
    assert_eq!(first.expect_identity(ALICE).ids, [format!("spiffe://{TRUST_DOMAIN}/alice")]);
    assert!(server.cli(&["agent", "list"]).contains(&agent_id()));

    // It has its key, and renews: a start is no second use.
    first.kill_agent();
    first.start();
    first.expect_identity(ALICE);

    let mut second = device(&server, "agentname = \"other\"");
    second.expect_log("attestation data has already been used to attest an agent");
    second.kill_agent();
    // Evicted it would take the name again.
    first.kill_agent();
    server.cli(&["agent", "evict", "-spiffeID", &agent_id()]);
    second.start();
    second.expect_identity(ALICE);
}

#[test]
fn who_does_not_answer_at_an_allowed_name_and_port_is_not_that_host() {
    let closed = free_port();
    let server = server("allowed_dns_patterns = [\"^127\"]");
    let impostor = device(&server, &format!("advertised_port = {closed}"));
    impostor.expect_log("nothing at that host, port and path answers with the nonce");
    let why = || server.log().contains("does not serve its nonce") && server.log().contains("cannot connect");
    expect_within(DEADLINE, "the server's log says why", || server.log(), why);
    assert!(!server.cli(&["agent", "list"]).contains("http_challenge"));
    drop(impostor);
    for (lines, refusal) in [
        ("allowed_dns_patterns = [\"^gw[0-9]+$\"]", "the requested hostname is not allowed to connect"),
        ("required_port = 80", "is not allowed to be used by this server"),
        ("allow_non_root_ports = false", "is not allowed to be >= 1024"),
    ] {
        let server = self::server(lines);
        device(&server, "").expect_log(refusal);
    }
}

#[test]
fn a_host_whose_port_is_roots_may_attest_again() {
    let server = server("allow_non_root_ports = false tofu = false");
    // A proxy of root's would stand there; here the agent is root itself.
    let mut device = device(&server, "port = 879");
    device.expect_identity(ALICE);
    device.kill_agent();
    std::fs::remove_dir_all(device.data_directory()).expect("its key is gone");
    device.start();
    device.expect_identity(ALICE);
}
