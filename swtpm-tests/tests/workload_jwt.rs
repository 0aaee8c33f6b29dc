//! JWT-SVIDs on a device with a TPM, signed by keys in the server's token: fetched by users for their own identities, validated by
//! others, held while the server is away, validated after a power cut without it.

use std::process::Output;
use std::time::{Duration, Instant};

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::workload_client;
use serde_json::Value;

const ALICE: u32 = 60_001;
const BOB: u32 = 60_002;
const NOBODY: u32 = 60_003;

/// A device on which Alice and Bob each have an identity.
fn lab(more: &[&str]) -> (Server, Device) {
    lab_with(more, &AgentOptions::default())
}

fn lab_with(more: &[&str], options: &AgentOptions) -> (Server, Device) {
    let mut device = Device::manufacture(&Manufacturer::new("Toy TPM Works").expect("maker"));
    let server = Server::start(&ServerOptions::default());
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    for (path, uid) in [("/alice", ALICE), ("/bob", BOB)] {
        server.create_entry(&device.agent_id(), path, &[&format!("unix:uid:{uid}")], more);
    }
    device.provision(&server, options);
    device.start();
    device.expect_identity(ALICE);
    device.expect_identity(BOB);
    (server, device)
}

/// IDs with their tokens, and the key IDs of the bundle.
type Fetched = (Vec<(String, String)>, Vec<String>);

/// What `api fetch jwt` says to `uid`.
fn fetch(device: &Device, uid: u32, more: &[&str]) -> Result<Fetched, String> {
    let output = device.api(uid, &[&["fetch", "jwt", "-output", "json", "-audience"], more].concat());
    let json: Value = serde_json::from_str(&said(&output)?).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let svids = json[0]["svids"].as_array().expect("a list").iter();
    let svids = svids.map(|svid| (text(&svid["spiffe_id"]), text(&svid["svid"]))).collect();
    let jwks = text(&json[1]["bundles"][format!("spiffe://{TRUST_DOMAIN}")]);
    let jwks = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, jwks).expect("base64");
    let jwks: Value = serde_json::from_slice(&jwks).expect("JSON");
    Ok((svids, jwks["keys"].as_array().expect("a list").iter().map(|key| text(&key["kid"])).collect()))
}

fn validate(device: &Device, uid: u32, audience: &str, token: &str) -> Result<String, String> {
    said(&device.api(uid, &["validate", "jwt", "-audience", audience, "-svid", token]))
}

fn said(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

//= WLA-01 WLA-09 WLA-11 JWT-05 JWT-06
#[test]
fn users_get_tokens_for_their_own_identities_and_others_validate_them() {
    let (_server, device) = lab(&[]);
    let id = |path: &str| format!("spiffe://{TRUST_DOMAIN}{path}");
    let (svids, keys) = fetch(&device, ALICE, &["bob,carol"]).unwrap_or_else(|e| panic!("{e}\n{}", device.log()));
    let [(spiffe_id, token)] = &svids[..] else { panic!("one identity, one token: {svids:?}") };
    assert_eq!((spiffe_id, keys.is_empty()), (&id("/alice"), false));
    let answer = validate(&device, BOB, "bob", token).expect("good");
    assert!(answer.starts_with(&format!("SVID is valid.\nSPIFFE ID : {}\n", id("/alice"))), "{answer}");
    assert!(answer.contains("\"aud\":[\"bob\",\"carol\"]"), "{answer}");
    let wrong = validate(&device, BOB, "dave", token).expect_err("not for Dave");
    assert!(wrong.contains("SVID is not valid: expected audience in [\"dave\"]"), "{wrong}");
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    assert!(validate(&device, BOB, "bob", &forged).expect_err("forged").contains("SVID is not valid: "));
    let others = fetch(&device, BOB, &["bob", "-spiffeID", &id("/alice")]).expect_err("not Bob's");
    assert!(others.contains("no identity issued"), "{others}");
    assert!(fetch(&device, NOBODY, &["bob"]).expect_err("nobody's").contains("no identity issued"));
    assert_eq!(fetch(&device, ALICE, &["carol,bob"]).expect("held").0, svids, "the same audiences, the same token");
}

//= FLT-A4
#[test]
fn a_token_outlives_the_server_and_is_validated_after_a_power_cut_without_it() {
    let (mut server, mut device) = lab(&[]);
    device.expect_sealed(2);
    let (held, keys) = fetch(&device, ALICE, &["bob"]).unwrap_or_else(|e| panic!("{e}\n{}", device.log()));
    server.kill();
    device.expect_log("sync failed");
    assert_eq!(fetch(&device, ALICE, &["bob"]).expect("held").0, held);
    let unsigned = fetch(&device, ALICE, &["carol"]).expect_err("nobody signs");
    assert!(unsigned.contains("could not fetch JWT-SVID: "), "{unsigned}");
    device.power_cycle();
    device.start();
    let validates = || validate(&device, BOB, "bob", &held[0].1).is_ok();
    expect_within(DEADLINE, "a token is validated offline", || device.log(), validates);
    let gone = fetch(&device, ALICE, &["bob"]).expect_err("tokens are not on the disk");
    assert!(gone.contains("could not fetch JWT-SVID: "), "{gone}");
    server.restart();
    let mut last = None;
    let comes_back = || {
        last = fetch(&device, ALICE, &["bob"]).ok();
        last.is_some()
    };
    expect_within(DEADLINE, "tokens are signed again", || device.log(), comes_back);
    assert_eq!(last.expect("fetched").1, keys, "by the key that signed before");
}

#[test]
fn a_short_lived_token_is_replaced_when_half_of_it_is_over_and_never_served_ended() {
    let (_server, device) = lab(&["-jwtSVIDTTL", "6"]);
    let began = Instant::now();
    let first = fetch(&device, ALICE, &["bob"]).unwrap_or_else(|e| panic!("{e}\n{}", device.log())).0;
    let mut tokens = vec![first[0].1.clone()];
    while tokens.len() < 3 {
        assert!(began.elapsed() < DEADLINE, "tokens are replaced");
        let (svids, _) = fetch(&device, ALICE, &["bob"]).expect("always one");
        validate(&device, BOB, "bob", &svids[0].1).expect("and a good one");
        if tokens.last() != Some(&svids[0].1) {
            tokens.push(svids[0].1.clone());
        }
    }
    assert!(began.elapsed() > Duration::from_secs(4), "not more often than each half of a life");
}

#[test]
fn tokens_go_with_their_entry() {
    let (server, device) = lab(&[]);
    fetch(&device, ALICE, &["bob"]).unwrap_or_else(|e| panic!("{e}\n{}", device.log()));
    let list =
        server.cli(&["entry", "show", "-spiffeID", &format!("spiffe://{TRUST_DOMAIN}/alice"), "-output", "json"]);
    let list: Value = serde_json::from_str(&list).expect("JSON");
    server.cli(&["entry", "delete", "-entryID", list["entries"][0]["id"].as_str().expect("an ID")]);
    let refused = || fetch(&device, ALICE, &["bob"]).is_err_and(|error| error.contains("no identity issued"));
    expect_within(DEADLINE, "a token goes with its entry", || device.log(), refused);
    device.expect_log("JWT-SVIDs dropped");
}

#[test]
fn who_only_verifies_needs_no_entry_where_the_agent_is_told_so() {
    let agent_lines = "allow_unauthenticated_verifiers = true".to_owned();
    let (mut server, device) = lab_with(&[], &AgentOptions { agent_lines, ..AgentOptions::default() });
    let (svids, keys) = fetch(&device, ALICE, &["bob"]).unwrap_or_else(|e| panic!("{e}\n{}", device.log()));
    server.kill();
    // This process has no entry.
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let told = runtime.block_on(workload_client::jwt_key_ids(&device.socket(), TRUST_DOMAIN)).expect("the own bundle");
    assert!(!told.is_empty() && keys.iter().all(|key| told.contains(key)), "{told:?} are not {keys:?}");
    assert!(validate(&device, NOBODY, "bob", &svids[0].1).is_ok());
    let refused = runtime.block_on(workload_client::fetch(&device.socket())).expect_err("no identity");
    assert_eq!(refused.message(), "no identity issued");
}
