//! JWT-SVIDs of SPIRE's server through our agent: fetched, validated by either make, kept through an outage, and the bundle
//! through a restart without a server.

use std::path::Path;
use std::process::Command;

use ironroot_api::pb::workload::Jwtsvid;
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, TRUST_DOMAIN, binary, expect_within};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::spire::{Times, spire_binary};
use ironroot_lab::workload_client::{fetch_jwt, jwt_key_ids, validate_jwt};
use tokio::runtime::Runtime;
use tonic::{Code, Status};

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "24h", agent: "1h", x509_svid: "1h" };

/// Our agent with a chip, on SPIRE's server.
fn sealed_agent(server: &AnyServer) -> Device {
    let mut device = Device::manufacture(&Manufacturer::new("Toy TPM Works").expect("maker"));
    let join_token = Some(server.token(Maker::Spire));
    let options = AgentOptions { join_token, ..AgentOptions::default() };
    device.provision_with_bundle(&server.cli(Maker::Spire, &["bundle", "show"]), server.port(), &options);
    device.start();
    device
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn tokens_of_spires_server_outlive_it_and_are_validated_after_a_restart_without_it() {
    let runtime = Runtime::new().expect("runtime");
    let mut server = AnyServer::start(Maker::Spire, TIMES);
    server.create_own_entry(Maker::Spire, "/app", &["-hint", "internal"]);
    server.create_own_entry(Maker::Spire, "/second", &[]);
    let mut device = sealed_agent(&server);
    let socket = device.socket();
    let fetch = |audience: &[&str], id: &str| runtime.block_on(fetch_jwt(&socket, audience, id));
    let all = || fetch(&["us"], "").is_ok_and(|svids| svids.len() == 2);
    expect_within(DEADLINE, "a token for each identity", || device.log(), all);
    // The alias of its node is the third.
    device.expect_sealed(3);

    // Which of two entries of one second comes first, nobody says.
    let sorted = |mut svids: Vec<Jwtsvid>| {
        svids.sort_by(|a, b| a.spiffe_id.cmp(&b.spiffe_id));
        svids
    };
    let both = sorted(fetch(&["us"], "").expect("both"));
    let ids: Vec<&str> = both.iter().map(|svid| svid.spiffe_id.as_str()).collect();
    let (app, second) = (format!("spiffe://{TRUST_DOMAIN}/app"), format!("spiffe://{TRUST_DOMAIN}/second"));
    assert_eq!(ids, [&*app, &*second]);
    assert_eq!((both[0].hint.as_str(), both[1].hint.as_str()), ("internal", ""));
    assert_eq!(fetch(&["us"], &second).expect("one"), both[1..], "from the cache, and only the one that was named");
    assert_ne!(token(&fetch(&["us", "them"], &app)), both[0].svid, "other audiences, another token");
    let foreign = fetch(&["us"], &format!("spiffe://{TRUST_DOMAIN}/other")).expect_err("not ours");
    assert_eq!(foreign.code(), Code::PermissionDenied);
    let validate = |audience: &str, token: &str| runtime.block_on(validate_jwt(&socket, audience, token));
    assert_eq!(validate("us", &both[0].svid).expect("good"), app);
    let other = validate("them", &both[0].svid).expect_err("not for them");
    assert!(other.message().contains("expected audience in [\"them\"] (audience=[\"us\"])"), "{other}");
    assert_eq!(runtime.block_on(jwt_key_ids(&socket, TRUST_DOMAIN)).expect("served").len(), 1);

    let AnyServer::Spires(spire) = &mut server else { panic!("SPIRE's") };
    spire.kill();
    device.expect_log("sync failed");
    assert_eq!(sorted(fetch(&["us"], "").expect("still held")), both);
    let new = fetch(&["new"], "").expect_err("nobody signs");
    assert_eq!(new.code(), Code::Unavailable);
    assert!(new.message().starts_with("could not fetch JWT-SVID: "), "{new}");

    device.power_cycle();
    device.start();
    let validates = || validate("us", &both[0].svid).is_ok_and(|id| id == app);
    expect_within(DEADLINE, "a token is validated without a server", || device.log(), validates);
    assert_eq!(runtime.block_on(jwt_key_ids(&socket, TRUST_DOMAIN)).expect("served").len(), 1);
    let gone = fetch(&["us"], "").expect_err("tokens are not kept on the disk");
    assert_eq!(gone.code(), Code::Unavailable, "{gone}");
    spire_restarts(&mut server);
    expect_within(DEADLINE, "and again a token for each identity", || device.log(), all);
}

fn spire_restarts(server: &mut AnyServer) {
    let AnyServer::Spires(spire) = server else { panic!("SPIRE's") };
    spire.restart();
}

fn token(fetched: &Result<Vec<Jwtsvid>, Status>) -> String {
    fetched.as_ref().expect("fetched")[0].svid.clone()
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn either_command_line_asks_either_agent_and_says_the_same() {
    let runtime = Runtime::new().expect("runtime");
    let server = AnyServer::start(Maker::Spire, TIMES);
    server.create_own_entry(Maker::Spire, "/app", &["-hint", "internal"]);
    for maker in [Maker::Ironroot, Maker::Spire] {
        let mut agent = AnyAgent::new(maker);
        agent.start(&server, Some(&server.token(Maker::Spire)));
        agent.expect_identity(&runtime);
        let (ours, spires) = (binary("ironroot-agent"), spire_binary("spire-agent"));
        let said = |program: &Path, arguments: &[&str]| {
            let mut command = Command::new(program);
            let output = command.args(arguments).arg("-socketPath").arg(agent.socket()).output().expect("starts");
            let text = |bytes| String::from_utf8(bytes).expect("text");
            (output.status.success(), text(output.stdout), text(output.stderr))
        };
        let fetch = ["api", "fetch", "jwt", "-audience", "us"];
        let (done, pretty, error) = said(&spires, &fetch);
        assert!(done, "{error}\n{}", agent.log());
        assert_eq!(said(&ours, &fetch).1, pretty, "of the agent of {maker:?}");
        let json = |program| {
            let text = said(program, &[&fetch[..], &["-output", "json"]].concat()).1;
            serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
        };
        assert_eq!(json(&ours), json(&spires));
        let svid = json(&ours)[0]["svids"][0]["svid"].as_str().expect("a token").to_owned();
        let validate = ["api", "validate", "jwt", "-audience", "us", "-svid", &svid];
        let (answer, its) = (said(&ours, &validate).1, said(&spires, &validate).1);
        let beginning = |text: &str| text.split("Claims").next().map(str::to_owned);
        assert_eq!(beginning(&answer), beginning(&its));
        let claims = |text: &str| {
            let claims = text.split("Claims    : ").nth(1).expect("claims");
            serde_json::from_str::<serde_json::Value>(claims).expect("JSON")
        };
        assert_eq!(claims(&answer), claims(&its));
        let wrong = ["api", "validate", "jwt", "-audience", "them", "-svid", &svid];
        let (ours, spires) = (said(&ours, &wrong), said(&spires, &wrong));
        assert!(!ours.0 && !spires.0);
        let expected = "SVID is not valid: expected audience in [\"them\"] (audience=[\"us\"])";
        assert!(ours.2.contains(expected) && spires.2.contains(expected), "{ours:?} {spires:?}");
    }
}
