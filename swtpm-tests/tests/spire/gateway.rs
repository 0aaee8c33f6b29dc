//! Gateway mode beside SPIRE's server: its NewDownstreamX509CA gives our agent a CA, its PublishJWTAuthority takes a key, and what they sign
//! verifies by its bundle.

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, TRUST_DOMAIN, expect_within, wait_for};
use ironroot_lab::device_pki::DevicePki;
use ironroot_lab::jwt::Jwks;
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::spire::Times;
use ironroot_lab::workload_client;
use tokio::runtime::Runtime;

use crate::deployment::{AnyServer, Maker};

const TIMES: Times = Times { ca: "24h", agent: "1h", x509_svid: "15s" };

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_agent_has_a_ca_of_spires_server_and_a_key_in_its_bundle_and_signs_while_that_is_away_and_says_that_it_takes_no_report()
 {
    let (runtime, pki) = (Runtime::new().expect("runtime"), DevicePki::new());
    let mut server = AnyServer::start_with(Maker::Spire, TIMES, &pki.server_block());
    let identity = pki.issue("device-1", &rcgen::PKCS_ECDSA_P256_SHA256);
    let create = |path: &str, selector: &str, more: &[&str]| {
        let id = format!("spiffe://{TRUST_DOMAIN}{path}");
        let entry = ["entry", "create", "-parentID", &identity.agent_id, "-spiffeID", &id, "-selector", selector];
        server.cli(Maker::Spire, &[&entry[..], more].concat());
    };
    create("/web", &format!("unix:uid:{}", nix::unistd::geteuid()), &["-x509SVIDTTL", "15", "-dns", "web.example"]);
    create("/gateway-ca", "ironroot:local_authority", &["-downstream"]);
    let mut device = Device::manufacture(&Manufacturer::new("Toy TPM Works").expect("maker"));
    let options = AgentOptions {
        node_attestor: Some(identity.agent_block()),
        agent_lines: "local_authority { jwt_svids = true }".to_owned(),
        ..AgentOptions::default()
    };
    device.provision_with_bundle(&server.cli(Maker::Spire, &["bundle", "show"]), server.port(), &options);
    device.start();
    device.expect_log("has a CA of its own");
    device.expect_log("has changed what this agent signs JWT-SVIDs with");
    let published = server.cli(Maker::Spire, &["bundle", "show", "-format", "spiffe"]);
    let chain = || {
        let fetched = runtime.block_on(workload_client::fetch(&device.socket())).ok()?;
        let svid = fetched.svids.into_iter().next()?;
        ironroot_api::certificate::Certificate::parse_concatenated(&svid.x509_svid).ok()
    };
    let of_the_server = || chain().map_or(0, |chain| chain.len());
    expect_within(DEADLINE, "the server has signed", || device.log(), || of_the_server() > 0);
    let before = of_the_server();
    server.kill();
    expect_within(DEADLINE, "its own CA has signed", || device.log(), || of_the_server() == before + 1);
    let fetch = || runtime.block_on(workload_client::fetch_jwt(&device.socket(), &["new"], "")).ok();
    let token = wait_for(DEADLINE, fetch).unwrap_or_else(|| panic!("no token\n{}", device.log()))[0].svid.clone();
    let (published, now) =
        (serde_json::from_str(&published).expect("JSON"), ironroot_agent::trusted_time::system_unix());
    let claims = Jwks::of(&published).verify(&token, "new", now).expect("by a key of SPIRE's bundle");
    assert_eq!(claims["sub"], format!("spiffe://{TRUST_DOMAIN}/web"));
    let issued = device.log().matches("own CA has signed an SVID").count();
    assert!(issued > 0, "{}", device.log());
    server.crash();
    device.expect_log("this server takes no report of what this agent has signed");
    let aside = device.data_directory().join("local-authority/issued.unreported.json");
    let aside = std::fs::read_to_string(aside).expect("what was not reported");
    assert!(
        aside.lines().count() >= issued && aside.contains("/web") && aside.contains("\"audience\":\"new\""),
        "{aside}"
    );
    expect_within(DEADLINE, "the server signs again", || device.log(), || of_the_server() == before);
}
