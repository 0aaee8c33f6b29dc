//! What an agent survives: chips that are away, other firmware, old files put back, a second agent, signals.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, binary, expect_within, wait_for,
};
use ironroot_lab::manufacturer::Manufacturer;
use tss_esapi::handles::PcrHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, DigestValues};

const ALICE: u32 = 60_001;
const CACHE: &str = "identities.sealed";

/// A server and an enrolled device with an entry for Alice; the agent is not started.
fn lab(options: &AgentOptions) -> (Server, Device) {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let device = Device::manufacture(&maker);
    let server = Server::start(&ServerOptions::default());
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    server.create_entry(&device.agent_id(), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    device.provision(&server, options);
    (server, device)
}

fn alice() -> Vec<String> {
    vec![format!("spiffe://{TRUST_DOMAIN}/alice")]
}

fn serial(device: &Device) -> String {
    device.expect_identity(ALICE).leaves[0].serial_decimal()
}

/// How often the agent said that the cache is refused.
fn refusals(device: &Device) -> usize {
    device.log().matches("the sealed cache is refused").count()
}

fn boot_something_else(device: &mut Device) {
    let mut values = DigestValues::new();
    values.set(HashingAlgorithm::Sha256, Digest::try_from([0x5a; 32].as_slice()).expect("a digest"));
    let mut esys = device.tpm().esys().expect("the TPM answers");
    esys.execute_with_session(Some(AuthSession::Password), |esys| esys.pcr_extend(PcrHandle::Pcr7, values))
        .expect("extended");
}

#[test]
fn waits_for_a_tpm_that_is_away_at_the_start() {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let server = Server::start(&ServerOptions::default());
    let mut device = Device::manufacture(&maker);
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    let agent_lines = format!("admin_socket_path = \"{}\"", device.admin_socket().display());
    device.provision(&server, &AgentOptions { agent_lines, ..AgentOptions::default() });
    server.create_entry(&device.agent_id(), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    device.tpm().stop().expect("stopped");
    device.start();
    device.expect_log("cannot open the TPM");
    assert!(device.process().expect("started").runs());
    let socket = device.admin_socket();
    let status = || {
        let mut command = Command::new(binary("ironroot-agent"));
        let output = command.args(["status", "-socketPath"]).arg(&socket).output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    expect_within(DEADLINE, "its status says why", status, || status().contains("waiting for the TPM: "));
    assert!(status().contains("Server        : 127.0.0.1:"), "{}", status());
    assert!(status().contains("Kept on disk  : nothing new"), "{}", status());
    assert!(device.fetch(ALICE).is_err());
    device.tpm().start_again().expect("started");
    assert_eq!(device.expect_identity(ALICE).ids, alice());
    // What lies there sealed is said to lie there, while the chip is away that opens it.
    device.expect_sealed(1);
    device.kill_agent();
    device.tpm().stop().expect("stopped");
    device.start();
    let sealed = "Kept on disk  : sealed identities, which are opened once the chip answers";
    expect_within(DEADLINE, "its status says what is there", status, || status().contains(sealed));
    device.tpm().start_again().expect("started");
    assert_eq!(device.expect_identity(ALICE).ids, alice());
    expect_within(DEADLINE, "and that it is open", status, || !status().contains(sealed));
}

//= FLT-T2
#[test]
fn serves_on_when_the_tpm_dies_and_uses_it_again_when_it_is_back() {
    let (mut server, mut device) = lab(&AgentOptions::default());
    device.start();
    let before = serial(&device);
    device.tpm().stop().expect("stopped");
    // Every new connection needs the key in the chip.
    server.restart();
    // The server is there; it is the key that cannot be used.
    device.expect_log("the agent's key cannot be used: it did not sign: ");
    assert!(!device.log().contains("cannot reach the server: other error"), "{}", device.log());
    assert_eq!(serial(&device), before);
    assert!(device.process().expect("started").runs());
    device.tpm().start_again().expect("started");
    server.create_entry(&device.agent_id(), "/bob", &["unix:uid:60002"], &[]);
    assert_eq!(device.expect_identity(60_002).ids, [format!("spiffe://{TRUST_DOMAIN}/bob")]);
}

//= FLT-T6
#[test]
fn other_firmware_costs_the_cache_but_not_the_way_to_the_server() {
    let (server, mut device) =
        lab(&AgentOptions { agent_lines: "offline_cache { pcrs = [7] }".to_owned(), ..AgentOptions::default() });
    device.start();
    device.expect_identity(ALICE);
    device.expect_sealed(1);
    device.power_cycle();
    boot_something_else(&mut device);
    device.start();
    device.expect_log("did not boot as it did when the file was sealed");
    assert_eq!(device.expect_identity(ALICE).ids, alice());
    assert_eq!(refusals(&device), 1, "one cause, one warning\n{}", device.log());
    // What the server knows of the registers is of before, though the kernel calls it the same boot: they are proven anew.
    let attested_since = || {
        let log = device.log();
        let refused = log.rfind("did not boot as it did when the file was sealed").unwrap_or_default();
        log[refused..].contains("agent attested")
    };
    expect_within(DEADLINE, "what was started is proven anew", || device.log(), attested_since);
    drop(server);
}

//= FLT-T5
#[test]
fn an_older_cache_that_was_put_back_is_refused_with_one_warning() {
    let (mut server, mut device) = lab(&AgentOptions::default());
    device.start();
    device.expect_identity(ALICE);
    device.expect_sealed(1);
    device.kill_agent();
    let cache = device.data_directory().join(CACHE);
    let old = fs::read(&cache).expect("the cache");
    // A new entry after a restart raises the counter.
    server.create_entry(&device.agent_id(), "/bob", &["unix:uid:60002"], &[]);
    device.start();
    device.expect_identity(60_002);
    device.expect_sealed(2);
    device.kill_agent();
    server.kill();
    fs::write(&cache, old).expect("put back");
    device.start();
    device.expect_log("an older file was put back");
    assert!(device.fetch(ALICE).is_err(), "nothing of it is served");
    assert_eq!(refusals(&device), 1, "{}", device.log());
}

//= FLT-A20
#[test]
fn a_second_agent_on_the_same_directory_ends_with_a_clear_word() {
    let (_server, mut device) = lab(&AgentOptions::default());
    device.start();
    device.expect_log("agent started");
    let output = Command::new(binary("ironroot-agent"))
        .args(["run", "-config"])
        .arg(device.config_path())
        .output()
        .expect("ironroot-agent starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("another agent is using the data directory"), "{said}");
    assert!(device.process().expect("started").runs(), "the first is not disturbed");
}

//= FLT-S24
#[test]
fn ends_in_order_on_sigterm_and_takes_up_what_it_kept() {
    let (mut server, mut device) = lab(&AgentOptions::default());
    device.start();
    let before = serial(&device);
    assert!(device.process().expect("started").terminate(), "{}", device.log());
    server.kill();
    device.start();
    assert_eq!(serial(&device), before);
}

//= FLT-S24
#[test]
fn sigterm_during_the_start_is_an_orderly_end() {
    let (_server, mut device) = lab(&AgentOptions::default());
    for _ in 0..10 {
        device.start();
        wait_for(DEADLINE, || device.socket().exists().then_some(()));
        assert!(device.process().expect("started").terminate(), "{}", device.log());
    }
    assert!(!device.log().contains("panicked"), "{}", device.log());
}

#[test]
fn a_join_token_agent_renews_and_comes_back_without_a_new_token() {
    let mut server = Server::start(&ServerOptions { agent_ttl: "6s", ..ServerOptions::default() });
    let token =
        server.cli(&["token", "generate", "-ttl", "600", "-spiffeID", &format!("spiffe://{TRUST_DOMAIN}/node")]);
    let token = token.lines().find_map(|line| line.strip_prefix("Token: ")).expect("a token").trim().to_owned();
    let parent = format!("spiffe://{TRUST_DOMAIN}/node");
    server.create_entry(&parent, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    let mut device = Device::without_tpm();
    let options = AgentOptions { join_token: Some(token), key_manager: "disk", ..AgentOptions::default() };
    device.provision(&server, &options);
    device.start();
    assert_eq!(device.expect_identity(ALICE).ids, alice());
    let renewals = || device.log().matches("agent certificate renewed").count();
    expect_within(DEADLINE, "it renews", || device.log(), || renewals() >= 2);
    for _ in 0..5 {
        device.kill_agent();
        device.start();
        assert_eq!(device.expect_identity(ALICE).ids, alice());
    }
    assert_eq!(device.log().matches("agent attested").count(), 1, "one token, one attestation\n{}", device.log());
    server.kill();
}

/// What a restart does not know, how long the last run is ago, must not cost the certificate: without a token there is no other.
#[test]
fn a_join_token_agent_that_is_restarted_again_and_again_renews_in_time() {
    let server = Server::start(&ServerOptions { agent_ttl: "10s", ..ServerOptions::default() });
    let token: serde_json::Value =
        serde_json::from_str(&server.cli(&["token", "generate", "-output", "json"])).expect("JSON");
    let token = token["value"].as_str().expect("a token").to_owned();
    let mut device = Device::without_tpm();
    let options = AgentOptions { join_token: Some(token.clone()), key_manager: "disk", ..AgentOptions::default() };
    device.provision(&server, &options);
    device.start();
    let id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/{token}");
    server.create_entry(&id, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    device.expect_identity(ALICE);
    let began = Instant::now();
    // Longer than any certificate of the first run could last, and no run as long as half of one.
    while began.elapsed() < Duration::from_secs(25) {
        device.kill_agent();
        device.start();
        device.expect_identity(ALICE);
        let started = Instant::now();
        wait_for(DEADLINE, || (started.elapsed() > Duration::from_secs(3)).then_some(()));
    }
    assert!(!device.log().contains("cannot attest"), "{}", device.log());
}

#[test]
fn an_offline_start_is_quick() {
    let (mut server, mut device) = lab(&AgentOptions::default());
    device.start();
    device.expect_identity(ALICE);
    device.expect_sealed(1);
    server.kill();
    device.power_cycle();
    let began = Instant::now();
    device.start();
    device.expect_log("identities restored from the sealed cache");
    // The goal is 200 ms and what the chip needs; the bound leaves room for a busy machine and an unoptimised build, and none for
    // whoever waits for the server first.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}\n{}", began.elapsed(), device.log());
}

#[test]
fn an_identity_that_was_removed_cannot_be_put_back_within_the_hour() {
    let (mut server, mut device) = lab(&AgentOptions::default());
    let entry = server.create_entry(&device.agent_id(), "/bob", &["unix:uid:60002"], &[]);
    device.start();
    device.expect_identity(60_002);
    device.expect_identity(ALICE);
    device.expect_sealed(2);
    let cache = device.data_directory().join(CACHE);
    let old = fs::read(&cache).expect("the cache");
    server.cli(&["entry", "delete", "-entryID", &entry]);
    // Seconds after the counter was raised for the entries themselves.
    device.expect_sealed(1);
    expect_within(DEADLINE, "it is gone", || device.log(), || device.fetch(60_002).is_err());
    expect_within(
        DEADLINE,
        "that is kept",
        || device.log(),
        || {
            let log = device.log();
            log.rfind("identities sealed identities=1") > log.rfind("identities sealed identities=2")
        },
    );
    device.kill_agent();
    server.kill();
    fs::write(&cache, old).expect("put back");
    device.start();
    device.expect_log("an older file was put back");
    assert!(device.fetch(60_002).is_err(), "{}", device.log());
}

/// A device that was off when it was given up, until its own certificate had ended, though not what it serves.
#[test]
fn a_device_that_was_given_up_while_it_was_off_serves_nothing_once_the_server_has_said_so() {
    const AGENT_TTL: Duration = Duration::from_secs(4);
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let mut device = Device::manufacture(&maker);
    let mut server = Server::start(&ServerOptions { agent_ttl: "4s", ..Default::default() });
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    server.create_entry(&device.agent_id(), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    device.provision(&server, &AgentOptions::default());
    device.start();
    device.expect_sealed(1);
    device.kill_agent();
    let killed = Instant::now();
    server.cli(&["agent", "evict", "-spiffeID", &device.agent_id()]);
    server.cli(&["device", "delete", device.ek_sha256()]);
    expect_within(DEADLINE, "its certificate ends", String::new, || killed.elapsed() > AGENT_TTL);
    device.start();
    device.expect_log("the stored agent certificate has ended");
    device.expect_log("evicted: the server does not know this agent any more");
    let refused = device.fetch(ALICE).expect_err("nothing is served");
    assert!(refused.contains("PermissionDenied"), "{refused}");
    device.expect_sealed(0);
    // Nor after the next start, without the server.
    server.kill();
    device.kill_agent();
    device.start();
    let restored = || device.log().matches("identities restored from the sealed cache").count() == 2;
    expect_within(DEADLINE, "it starts from what it has kept", || device.log(), restored);
    device.fetch(ALICE).expect_err("nothing came back");
}

#[test]
fn a_chip_that_dies_as_the_certificate_is_due_costs_not_the_connection_that_is_open() {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let mut device = Device::manufacture(&maker);
    let server = Server::start(&ServerOptions { agent_ttl: "20s", ..Default::default() });
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    server.create_entry(&device.agent_id(), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    device.provision(&server, &AgentOptions::default());
    device.start();
    device.expect_sealed(1);
    device.tpm().stop().expect("stopped");
    device.expect_log("the agent's certificate could not be replaced yet");
    server.create_entry(&device.agent_id(), "/bob", &["unix:uid:60002"], &[]);
    assert_eq!(device.expect_identity(60_002).ids, [format!("spiffe://{TRUST_DOMAIN}/bob")]);
}
