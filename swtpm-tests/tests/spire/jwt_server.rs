//! JWT-SVIDs between the makes: an agent of SPIRE's on our server hands them out and validates them, through a rotation of the key.

use std::process::Command;
use std::time::Duration;

use ironroot_lab::deployment::{DEADLINE, TRUST_DOMAIN, expect_within};
use ironroot_lab::spire::{Times, spire_binary};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

/// The key is replaced after 50 s.
const TIMES: Times = Times { ca: "1m", agent: "30s", x509_svid: "10s" };
const AUDIENCE: &str = "https://vault.example.org";

/// Asks SPIRE's agent with SPIRE's own command line.
fn ask(agent: &AnyAgent, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(spire_binary("spire-agent"));
    let output = command.args(arguments).arg("-socketPath").arg(agent.socket()).output().expect("it starts");
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).expect("text")),
        false => Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))),
    }
}

fn fetch(agent: &AnyAgent) -> Option<String> {
    let answer = ask(agent, &["api", "fetch", "jwt", "-audience", AUDIENCE, "-output", "json"]).ok()?;
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    Some(answer[0]["svids"][0]["svid"].as_str().expect("a token").to_owned())
}

fn validate(agent: &AnyAgent, audience: &str, token: &str) -> Result<String, String> {
    ask(agent, &["api", "validate", "jwt", "-audience", audience, "-svid", token])
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn spires_agent_hands_out_and_validates_jwt_svids_of_our_server() {
    let runtime = Runtime::new().expect("runtime");
    let server = AnyServer::start(Maker::Ironroot, TIMES);
    let mut agent = AnyAgent::new(Maker::Spire);
    let token = server.token(Maker::Spire);
    server.create_own_entry(Maker::Spire, "/app", &["-jwtSVIDTTL", "5"]);
    agent.start(&server, Some(&token));
    agent.expect_identity(&runtime);

    let first = fetch(&agent).expect("a JWT-SVID");
    let said = validate(&agent, AUDIENCE, &first).expect("it validates");
    assert!(said.contains(&format!("spiffe://{TRUST_DOMAIN}/app")), "{said}");
    validate(&agent, "somebody else", &first).expect_err("for another audience");
    let minted = server.cli(
        Maker::Spire,
        &["jwt", "mint", "-spiffeID", &format!("spiffe://{TRUST_DOMAIN}/job"), "-audience", AUDIENCE],
    );
    validate(&agent, AUDIENCE, minted.trim()).expect("what SPIRE's command line had minted");

    let key_of = |token: &str| ironroot_lab::jwt::parts(token).0["kid"].clone();
    let replaced = || {
        fetch(&agent)
            .is_some_and(|token| key_of(&token) != key_of(&first) && validate(&agent, AUDIENCE, &token).is_ok())
    };
    expect_within(DEADLINE + Duration::from_secs(60), "the next key signs and is known", || agent.log(), replaced);
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn both_servers_refuse_to_mint_in_the_same_words() {
    let servers = [Maker::Ironroot, Maker::Spire].map(|maker| AnyServer::start(maker, TIMES));
    let own = format!("spiffe://{TRUST_DOMAIN}");
    let named = |path: &str| format!("{own}{path}");
    for arguments in [
        &["-audience", "a"][..],
        &["-spiffeID", &named("/job")],
        &["-spiffeID", &named("/spire/agent/x"), "-audience", "a"],
    ] {
        let said = servers.each_ref().map(|server| {
            let output = server.output(Maker::Spire, &[&["jwt", "mint"], arguments].concat());
            assert!(!output.status.success(), "{arguments:?}");
            String::from_utf8(output.stderr).expect("text")
        });
        assert_eq!(said[0], said[1], "{arguments:?}");
    }
}
