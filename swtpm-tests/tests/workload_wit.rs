//! WIT-SVIDs on a device with a TPM: served beside X509-SVIDs for the same key, replaced with them, offline too; and switched off.

use std::time::Duration;

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::jwt::{parts, verified_by};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::workload_client::{fetch, fetch_wit, wit_keys};
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::{Code, Status};

/// A device whose workload this process is, and what its agent and the server have switched on.
fn lab(agent_lines: &str, server_lines: &str, x509_svid_ttl: &'static str) -> (Server, Device) {
    let mut device = Device::manufacture(&Manufacturer::new("Toy TPM Works").expect("maker"));
    let server = Server::start(&ServerOptions {
        server_lines: server_lines.to_owned(),
        x509_svid_ttl,
        ..ServerOptions::default()
    });
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    let own = format!("unix:uid:{}", nix::unistd::geteuid());
    server.create_entry(&device.agent_id(), "/app", &[&own], &["-hint", "first"]);
    device.provision(&server, &AgentOptions { agent_lines: agent_lines.to_owned(), ..AgentOptions::default() });
    device.start();
    (server, device)
}

fn served(runtime: &Runtime, device: &Device) -> Result<(String, Value), Status> {
    let svid = runtime.block_on(fetch_wit(&device.socket(), ""))?.into_iter().next().expect("one at least");
    assert_eq!((svid.spiffe_id, svid.hint), (format!("spiffe://{TRUST_DOMAIN}/app"), "first".to_owned()));
    Ok((svid.wit_svid, serde_json::from_str(&svid.wit_svid_key).expect("a JWK")))
}

fn expect_served(runtime: &Runtime, device: &Device) -> (String, Value) {
    let mut last = None;
    let is_served = || {
        last = served(runtime, device).ok();
        last.is_some()
    };
    expect_within(DEADLINE, "a WIT-SVID is served", || device.log(), is_served);
    last.expect("served")
}

//= WIT-04 WIT-05
#[test]
fn a_workload_gets_a_token_that_names_its_key_and_the_bundle_verifies_it_offline_too() {
    let runtime = Runtime::new().expect("runtime");
    let (mut server, mut device) = lab("enable_wit_svids = true", "enable_wit_svids = true", "1h");
    let (token, key) = expect_served(&runtime, &device);
    let (header, claims) = parts(&token);
    assert_eq!((&header["typ"], &claims["sub"]), (&"wit+jwt".into(), &format!("spiffe://{TRUST_DOMAIN}/app").into()));
    let named = &claims["cnf"]["jwk"];
    assert!(named["x"] == key["x"] && named["y"] == key["y"] && key["d"].is_string() && named["d"].is_null());
    let keys = runtime.block_on(wit_keys(&device.socket(), TRUST_DOMAIN)).expect("the bundle");
    let signer = keys["keys"].as_array().expect("keys").iter().find(|one| one["kid"] == header["kid"]);
    assert!(signer.is_some_and(|signer| signer["use"] == "wit-svid" && verified_by(&token, signer)), "{keys}");
    let other = runtime.block_on(fetch_wit(&device.socket(), &format!("spiffe://{TRUST_DOMAIN}/other")));
    assert_eq!(other.expect_err("not its own").code(), Code::PermissionDenied);
    device.expect_sealed(1);
    server.kill();
    device.power_cycle();
    device.start();
    assert_eq!(expect_served(&runtime, &device), (token, key), "from the sealed cache");
    assert_eq!(runtime.block_on(wit_keys(&device.socket(), TRUST_DOMAIN)).expect("the bundle"), keys);
}

#[test]
fn a_token_is_replaced_with_its_x509_svid_and_at_once_when_its_key_is_tainted() {
    let runtime = Runtime::new().expect("runtime");
    let on = "enable_wit_svids = true";
    let (server, device) = lab(on, on, "10s");
    let (first, _) = expect_served(&runtime, &device);
    let is_another = || served(&runtime, &device).is_ok_and(|(token, _)| token != first);
    expect_within(DEADLINE, "it is replaced in time", || device.log(), is_another);
    drop((server, device));

    let (server, device) = lab(on, on, "12h");
    let (before, _) = expect_served(&runtime, &device);
    let x509 = |device: &Device| runtime.block_on(fetch(&device.socket())).expect("served").svids[0].x509_svid.clone();
    let chain = x509(&device);
    let json = |arguments: &[&str]| -> Value {
        serde_json::from_str(&server.cli(&[arguments, &["-output", "json"]].concat())).expect("JSON")
    };
    let id = |value: &Value| value["authority_id"].as_str().expect("an ID").to_owned();
    let old = id(&json(&["localauthority", "wit", "show"])["active"]);
    let new = id(&json(&["localauthority", "wit", "prepare"])["prepared_authority"]);
    server.cli(&["localauthority", "wit", "activate", "-authorityID", &new]);
    server.cli(&["localauthority", "wit", "taint", "-authorityID", &old]);
    let has_new_key = || served(&runtime, &device).is_ok_and(|(token, _)| parts(&token).0["kid"] == new.as_str());
    expect_within(DEADLINE + Duration::from_secs(30), "the next key has signed", || device.log(), has_new_key);
    assert_ne!(served(&runtime, &device).expect("served").0, before);
    assert_ne!(x509(&device), chain, "the key is another one, and proves both");
}

#[test]
fn switched_off_on_the_agent_it_is_unimplemented_at_once_and_off_on_the_server_alone_it_is_said() {
    let runtime = Runtime::new().expect("runtime");
    let (_server, device) = lab("", "enable_wit_svids = true", "1h");
    let socket = device.socket();
    let is_served = || runtime.block_on(fetch(&socket)).is_ok();
    expect_within(DEADLINE, "X509-SVIDs are served", || device.log(), is_served);
    for refused in [
        runtime.block_on(fetch_wit(&socket, "")).expect_err("off"),
        runtime.block_on(wit_keys(&socket, TRUST_DOMAIN)).expect_err("off"),
    ] {
        assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
        assert!(refused.message().contains("enable_wit_svids"), "{refused}");
    }
    let (_server, device) = lab("enable_wit_svids = true", "", "1h");
    let socket = device.socket();
    let is_served = || runtime.block_on(fetch(&socket)).is_ok();
    expect_within(DEADLINE, "X509-SVIDs are served", || device.log(), is_served);
    let refused = runtime.block_on(fetch_wit(&socket, "")).expect_err("the server signs none");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("the server must have WIT-SVIDs switched on"), "{refused}");
}
