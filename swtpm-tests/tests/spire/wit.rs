//! WIT-SVIDs minted with either command line on either server: SPIRE's suite fetch-wit-svids.

use std::process::{Command, Output};

use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN, binary, expect_within};
use ironroot_lab::jwt::{parts, verified_by};
use ironroot_lab::spire::{SpireServer, Times, spire_binary};
use ironroot_lab::workload_client::{fetch_wit, wit_keys};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "1h", agent: "30m", x509_svid: "10m" };

fn start(maker: Maker) -> AnyServer {
    match maker {
        Maker::Ironroot => AnyServer::Ours(Server::start(&ServerOptions {
            server_lines: "experimental { feature_flags = [\"wit-svid\"] }".to_owned(),
            ..ServerOptions::default()
        })),
        Maker::Spire => AnyServer::Spires(SpireServer::start_with_flags(TIMES, &["wit-svid"])),
    }
}

fn socket(server: &AnyServer) -> std::path::PathBuf {
    match server {
        AnyServer::Ours(server) => server.socket(),
        AnyServer::Spires(server) => server.socket(),
    }
}

/// `wit mint` of that make; SPIRE's has the command only with this environment.
fn mint(server: &AnyServer, maker: Maker, more: &[&str]) -> Output {
    let program = if maker == Maker::Spire { spire_binary("spire-server") } else { binary("ironroot-server") };
    let mut command = Command::new(program);
    command.args(["wit", "mint", "-spiffeID", &format!("spiffe://{TRUST_DOMAIN}/workload")]).args(more);
    command.arg("-socketPath").arg(socket(server)).env("SPIRE_SERVER_FFLAGS", "wit-svid").output().expect("it starts")
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn either_command_line_mints_wit_svids_on_either_server() {
    for server in [Maker::Ironroot, Maker::Spire].map(start) {
        let mut said = Vec::new();
        for tool in [Maker::Ironroot, Maker::Spire] {
            for (kind, algorithm) in
                [("ec-p256", "ES256"), ("ec-p384", "ES384"), ("rsa-2048", "RS256"), ("rsa-4096", "RS512")]
            {
                let flags = ["-keyType", kind, "-signingAlgorithm", algorithm, "-output", "json"];
                let output = mint(&server, tool, &flags);
                assert!(output.status.success(), "{tool:?} {kind}: {output:?}\n{}", server.log());
                let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
                let token = json["svid"]["token"].as_str().expect("a token");
                let (header, claims) = parts(token);
                assert_eq!((&header["typ"], &claims["cnf"]["jwk"]["alg"]), (&"wit+jwt".into(), &algorithm.into()));
                let key: Value = serde_json::from_str(json["private_key"].as_str().expect("a key")).expect("JSON");
                let members: Vec<String> = key.as_object().expect("a JWK").keys().cloned().collect();
                said.push((kind, members));
            }
            let refused = mint(&server, tool, &["-keyType", "ec-p256", "-signingAlgorithm", "RS256"]);
            assert!(!refused.status.success());
            let words = "unsupported key type 'ec-p256' for signing algorithm 'RS256'";
            assert!(String::from_utf8_lossy(&refused.stderr).contains(words), "{refused:?}");
        }
        let (ours, theirs) = said.split_at(4);
        assert_eq!(ours, theirs, "the private keys have the same members");
        let bundle: Value =
            serde_json::from_str(&server.cli(Maker::Spire, &["bundle", "show", "-output", "json"])).expect("JSON");
        assert_eq!(bundle["wit_authorities"].as_array().map(Vec::len), Some(1));
    }
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_agent_serves_wit_svids_that_spires_server_has_signed() {
    let runtime = Runtime::new().expect("runtime");
    let server = start(Maker::Spire);
    server.create_own_entry(Maker::Spire, "/app", &[]);
    let agent = AnyAgent::started_with(Maker::Ironroot, &server, "enable_wit_svids = true");
    let mut last = None;
    let is_served = || {
        last = runtime.block_on(fetch_wit(&agent.socket(), "")).ok();
        last.is_some()
    };
    expect_within(DEADLINE, "a WIT-SVID is served", || format!("{}\n{}", agent.log(), server.log()), is_served);
    let svid = last.and_then(|svids| svids.into_iter().next()).expect("one at least");
    let keys = runtime.block_on(wit_keys(&agent.socket(), TRUST_DOMAIN)).expect("the bundle");
    let (header, claims) = parts(&svid.wit_svid);
    let signer = keys["keys"].as_array().expect("keys").iter().find(|one| one["kid"] == header["kid"]);
    assert!(signer.is_some_and(|signer| verified_by(&svid.wit_svid, signer)), "{keys}");
    let key: Value = serde_json::from_str(&svid.wit_svid_key).expect("a JWK");
    assert_eq!(claims["cnf"]["jwk"]["x"], key["x"]);
}
