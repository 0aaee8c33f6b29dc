//! Signing keys replaced by hand between the makes: the steps of SPIRE's suites force-rotation-jwt-authority and
//! force-rotation-self-signed (without its servers below), with either server, either agent and either command line.

use std::process::Command;

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::workload::X509svidResponse;
use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN, binary, expect_within};
use ironroot_lab::jwt;
use ironroot_lab::spire::{SpireServer, Times, spire_binary};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "24h", agent: "1h", x509_svid: "1h" };
const AUDIENCE: &str = "aud";

/// Without a root, as SPIRE's servers are.
fn start(maker: Maker) -> AnyServer {
    match maker {
        Maker::Ironroot => AnyServer::Ours(Server::start(&ServerOptions {
            server_lines: "root { enabled = false }".to_owned(),
            ..ServerOptions::default()
        })),
        Maker::Spire => AnyServer::Spires(SpireServer::start(TIMES)),
    }
}

fn json(server: &AnyServer, maker: Maker, arguments: &[&str]) -> Value {
    serde_json::from_str(&server.cli(maker, &[arguments, &["-output", "json"]].concat())).expect("JSON")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// The authority of that standing.
fn authority(server: &AnyServer, maker: Maker, kind: &str, standing: &str) -> String {
    text(&json(server, maker, &["localauthority", kind, "show"])[standing]["authority_id"])
}

fn authorities(server: &AnyServer, maker: Maker, list: &str) -> Vec<Value> {
    json(server, maker, &["bundle", "show"])[list].as_array().expect("a list").clone()
}

fn expect_logged(server: &AnyServer, line: &str) {
    expect_within(DEADLINE, line, || server.log(), || server.log().contains(line));
}

/// Who signed what this process is served.
fn issuer(served: &X509svidResponse) -> String {
    let leaf = Certificate::parse_concatenated(&served.svids[0].x509_svid).expect("a chain").remove(0);
    leaf.authority_key_id().expect("AKI").iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Pair {
    server: AnyServer,
    agent: AnyAgent,
    runtime: Runtime,
}

/// An agent that is attested and serves this process an identity.
fn pair(server: Maker, agent: Maker, tool: Maker) -> Pair {
    let (server, mut agent) = (start(server), AnyAgent::new(agent));
    let token = server.token(tool);
    server.create_own_entry(tool, "/workload", &[]);
    agent.start(&server, Some(&token));
    let runtime = Runtime::new().expect("runtime");
    agent.expect_identity(&runtime);
    Pair { server, agent, runtime }
}

/// Source: SPIRE, test/integration/suites/force-rotation-self-signed, steps 10 to 15.
fn force_rotation_of_the_ca(server: Maker, agent: Maker, tool: Maker) {
    let Pair { server, agent, runtime } = pair(server, agent, tool);
    let served = || agent.fetch(&runtime);
    let old = authority(&server, tool, "x509", "active");
    assert_eq!(authorities(&server, tool, "x509_authorities").len(), 1);
    let prepared = json(&server, tool, &["localauthority", "x509", "prepare"]);
    let new = text(&prepared["prepared_authority"]["authority_id"]);
    assert_eq!(authority(&server, tool, "x509", "prepared"), new);
    expect_logged(&server, "X509 CA prepared");
    let has = |number| {
        served()
            .is_ok_and(|answer| Certificate::parse_concatenated(&answer.svids[0].bundle).expect("one").len() == number)
    };
    expect_within(DEADLINE, "workloads have both", || agent.log(), || has(2));
    server.cli(tool, &["localauthority", "x509", "activate", "-authorityID", &new]);
    expect_logged(&server, "X509 CA activated");
    assert_eq!(authority(&server, tool, "x509", "old"), old);
    assert_eq!(issuer(&served().expect("served")), old, "until it is tainted");
    let serial =
        |server: &AnyServer| text(&json(server, tool, &["agent", "list"])["agents"][0]["x509svid_serial_number"]);
    let before = serial(&server);
    server.cli(tool, &["localauthority", "x509", "taint", "-authorityID", &old]);
    expect_logged(&server, "X.509 authority tainted successfully");
    expect_logged(&server, "Server SVID signed using a tainted authority, forcing rotation of the Server SVID");
    let taints = authorities(&server, tool, "x509_authorities");
    assert_eq!(taints.iter().filter(|authority| authority["tainted"] == true).count(), 1);
    let renewed = || served().is_ok_and(|answer| issuer(&answer) == new);
    expect_within(DEADLINE, "the workload has another SVID", || agent.log(), renewed);
    expect_within(DEADLINE, "so has the agent", || agent.log(), || serial(&server) != before);
    server.cli(tool, &["localauthority", "x509", "revoke", "-authorityID", &old]);
    expect_logged(&server, "X.509 authority revoked successfully");
    assert_eq!(authorities(&server, tool, "x509_authorities").len(), 1);
    expect_within(DEADLINE, "workloads have the new one alone", || agent.log(), || has(1));
    assert_eq!(issuer(&served().expect("served")), new);
    assert_eq!(authority(&server, tool, "x509", "active"), new);
}

fn ask(agent: &AnyAgent, tool: Maker, arguments: &[&str]) -> Option<Value> {
    let program = match tool {
        Maker::Ironroot => binary("ironroot-agent"),
        Maker::Spire => spire_binary("spire-agent"),
    };
    let output = Command::new(program).args(arguments).arg("-socketPath").arg(agent.socket()).output().expect("starts");
    output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// Source: SPIRE, test/integration/suites/force-rotation-jwt-authority, steps 05 to 11.
fn force_rotation_of_the_jwt_key(server: Maker, agent: Maker, tool: Maker) {
    let Pair { server, agent, .. } = pair(server, agent, tool);
    let fetch = || ask(&agent, tool, &["api", "fetch", "jwt", "-audience", AUDIENCE, "-output", "json"]);
    let token = |answer: &Value| text(&answer[0]["svids"][0]["svid"]);
    let key_of = |answer: &Value| text(&jwt::parts(&token(answer)).0["kid"]);
    let keys = |answer: &Value| {
        let bundle = text(&answer[1]["bundles"][format!("spiffe://{TRUST_DOMAIN}")]);
        let bundle = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, bundle).expect("base64");
        let bundle: Value = serde_json::from_slice(&bundle).expect("JWKS");
        bundle["keys"].as_array().expect("keys").iter().map(|key| text(&key["kid"])).collect::<Vec<_>>()
    };
    let old = authority(&server, tool, "jwt", "active");
    assert_eq!(authorities(&server, tool, "jwt_authorities").len(), 1);
    let prepared = json(&server, tool, &["localauthority", "jwt", "prepare"]);
    let new = text(&prepared["prepared_authority"]["authority_id"]);
    expect_logged(&server, "JWT key prepared");
    assert!(authorities(&server, tool, "jwt_authorities").iter().any(|key| key["key_id"] == new.as_str()));
    let first = fetch().expect("a token");
    assert_eq!(key_of(&first), old);
    expect_within(
        DEADLINE,
        "the agent has both keys",
        || agent.log(),
        || fetch().is_some_and(|answer| keys(&answer).len() == 2),
    );
    server.cli(tool, &["localauthority", "jwt", "activate", "-authorityID", &new]);
    expect_logged(&server, "JWT key activated");
    server.cli(tool, &["localauthority", "jwt", "taint", "-authorityID", &old]);
    expect_logged(&server, "JWT authority tainted successfully");
    let renewed = || fetch().is_some_and(|answer| token(&answer) != token(&first) && key_of(&answer) == new);
    expect_within(DEADLINE, "the token is of the active key", || agent.log(), renewed);
    server.cli(tool, &["localauthority", "jwt", "revoke", "-authorityID", &old]);
    expect_logged(&server, "JWT authority revoked successfully");
    let alone = || fetch().is_some_and(|answer| keys(&answer) == [new.as_str()]);
    expect_within(DEADLINE, "the agent has the new key alone", || agent.log(), alone);
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn spires_agent_rotates_when_our_server_taints_its_ca() {
    force_rotation_of_the_ca(Maker::Ironroot, Maker::Spire, Maker::Spire);
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_agent_rotates_when_spires_server_taints_its_ca() {
    force_rotation_of_the_ca(Maker::Spire, Maker::Ironroot, Maker::Ironroot);
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn spires_agent_drops_tokens_when_our_server_taints_their_key() {
    force_rotation_of_the_jwt_key(Maker::Ironroot, Maker::Spire, Maker::Spire);
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_agent_drops_tokens_when_spires_server_taints_their_key() {
    force_rotation_of_the_jwt_key(Maker::Spire, Maker::Ironroot, Maker::Ironroot);
}

/// What scripts read of a refusal.
#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn both_servers_refuse_orders_in_the_same_words() {
    let servers = [Maker::Ironroot, Maker::Spire].map(start);
    let refused = |ids: [&[&str]; 2]| {
        let said = [0, 1].map(|number: usize| {
            let output = servers[number].output(Maker::Spire, ids[number]);
            assert!(!output.status.success(), "{ids:?}");
            String::from_utf8(output.stderr).expect("text")
        });
        assert_eq!(said[0], said[1], "{ids:?}");
    };
    for kind in ["x509", "jwt"] {
        for verb in ["activate", "taint", "revoke"] {
            let unknown: &[&str] = &["localauthority", kind, verb, "-authorityID", "ff"];
            refused([unknown, unknown]);
            let active = servers.each_ref().map(|server| authority(server, Maker::Spire, kind, "active"));
            let of_active = active.each_ref().map(|id| ["localauthority", kind, verb, "-authorityID", id.as_str()]);
            refused([&of_active[0], &of_active[1]]);
        }
        let prepared = servers.each_ref().map(|server| {
            text(
                &json(server, Maker::Spire, &["localauthority", kind, "prepare"])["prepared_authority"]["authority_id"],
            )
        });
        for verb in ["taint", "revoke"] {
            let of_prepared = prepared.each_ref().map(|id| ["localauthority", kind, verb, "-authorityID", id.as_str()]);
            refused([&of_prepared[0], &of_prepared[1]]);
        }
        let old = servers.each_ref().map(|server| authority(server, Maker::Spire, kind, "active"));
        for (server, id) in servers.iter().zip(&prepared) {
            server.cli(Maker::Spire, &["localauthority", kind, "activate", "-authorityID", id]);
        }
        for verb in ["activate", "revoke"] {
            let of_old = old.each_ref().map(|id| ["localauthority", kind, verb, "-authorityID", id.as_str()]);
            refused([&of_old[0], &of_old[1]]);
        }
        for (server, id) in servers.iter().zip(&old) {
            server.cli(Maker::Spire, &["localauthority", kind, "taint", "-authorityID", id]);
        }
        let again = old.each_ref().map(|id| ["localauthority", kind, "taint", "-authorityID", id.as_str()]);
        refused([&again[0], &again[1]]);
    }
    for verb in ["taint", "revoke"] {
        let upstream: &[&str] = &["upstreamauthority", verb, "-subjectKeyID", "ff"];
        refused([upstream, upstream]);
    }
}
