//! An agent whose disk is full or read-only while it is to attest.

use std::path::Path;
use std::process::Command;

use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, binary, expect_within,
};
use ironroot_lab::device_pki::DevicePki;
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::small_disk::SmallDisk;

const ALICE: u32 = 60_001;
const IN_MEMORY: &str = "the agent's new key is in memory only";

fn alice() -> Vec<String> {
    vec![format!("spiffe://{TRUST_DOMAIN}/alice")]
}

/// What the server says of the one agent that it knows.
fn can_attest_again(server: &Server) -> bool {
    let agents = server.cli(&["agent", "list", "-output", "json"]);
    assert_ne!(agents.contains("\"can_reattest\":true"), agents.contains("\"can_reattest\":false"), "{agents}");
    agents.contains("\"can_reattest\":true")
}

/// Attests on a disk that is full, on one that has become read-only since, and on one that always was.
fn attests_without_a_disk(server: &Server, mut device: Device) {
    let data = device.data_directory();
    SmallDisk::at(&data, |disk| {
        disk.fill();
        attests_with_a_key_in_memory(&mut device);
        assert!(can_attest_again(server));
        device.kill_agent();
        disk.make_read_only();
        attests_with_a_key_in_memory(&mut device);
        device.kill_agent();
    });
    SmallDisk::at(&data, |disk| {
        disk.make_read_only();
        attests_with_a_key_in_memory(&mut device);
        let why = format!("{IN_MEMORY}: the file system is read-only");
        assert!(device.log().contains(&why), "{}", device.log());
        refuses_a_second(&device.config_path());
        looks_at_the_rest(&device.config_path());
    });
}

fn attests_with_a_key_in_memory(device: &mut Device) {
    let times = |device: &Device| device.log().matches(IN_MEMORY).count();
    let before = times(device);
    device.start();
    assert_eq!(device.expect_identity(ALICE).ids, alice());
    expect_within(DEADLINE, "it has made a key anew", || device.log(), || times(device) > before);
}

/// A disk that takes nothing is said to be so, and is not all that is looked at: the agent serves from it.
fn looks_at_the_rest(config: &Path) {
    let said = |verb: &str| {
        let output = Command::new(binary("ironroot-agent")).args([verb, "-config"]).arg(config).output().expect("runs");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    };
    let (is_valid, told) = said("validate");
    assert!(is_valid && told.contains("data_dir: ") && told.contains("is on a read-only file system"), "{told}");
    let (_, told) = said("doctor");
    assert!(told.contains("look   configuration") && told.contains("is on a read-only file system"), "{told}");
    assert!(told.contains("agent ") && told.contains("name of the server"), "{told}");
}

fn refuses_a_second(config: &Path) {
    let second = Command::new(binary("ironroot-agent")).args(["run", "-config"]).arg(config).output();
    let said = String::from_utf8_lossy(&second.expect("ironroot-agent starts").stderr).into_owned();
    assert!(said.contains("another agent is using the data directory"), "{said}");
}

//= FLT-A26 FLT-A20
#[test]
fn a_device_with_a_tpm_attests_and_serves_on_a_full_and_on_a_read_only_disk() {
    let server = Server::start(&ServerOptions::default());
    let device = Device::manufacture(&Manufacturer::new("Toy TPM Works").expect("maker"));
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    server.create_entry(&device.agent_id(), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    device.provision(&server, &AgentOptions::default());
    attests_without_a_disk(&server, device);
}

//= FLT-A26 FLT-A20
#[test]
fn a_device_with_a_certificate_attests_and_serves_on_a_full_and_on_a_read_only_disk() {
    let pki = DevicePki::new();
    let server = Server::start(&ServerOptions { plugins: pki.server_block(), ..ServerOptions::default() });
    let identity = pki.issue("p256", &rcgen::PKCS_ECDSA_P256_SHA256);
    server.create_entry(&identity.agent_id, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    let device = Device::without_tpm();
    let node_attestor = Some(identity.agent_block());
    device.provision(&server, &AgentOptions { node_attestor, key_manager: "disk", ..AgentOptions::default() });
    attests_without_a_disk(&server, device);
}

//= FLT-A26
#[test]
fn a_device_with_a_token_keeps_it_and_later_its_certificate_while_the_disk_takes_no_key() {
    let server = Server::start(&ServerOptions { agent_ttl: "20s", ..ServerOptions::default() });
    let token: serde_json::Value =
        serde_json::from_str(&server.cli(&["token", "generate", "-output", "json"])).expect("JSON");
    let token = token["value"].as_str().expect("a token").to_owned();
    let agent = format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/{token}");
    server.create_entry(&agent, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    let mut device = Device::without_tpm();
    device
        .provision(&server, &AgentOptions { join_token: Some(token), key_manager: "disk", ..AgentOptions::default() });
    SmallDisk::at(&device.data_directory(), |disk| {
        disk.fill();
        device.start();
        device.expect_log("cannot use key file");
        disk.make_room();
        assert_eq!(device.expect_identity(ALICE).ids, alice(), "the token was not spent");
        assert!(!can_attest_again(&server));
        disk.fill();
        device.expect_log("the agent's certificate could not be replaced yet");
        assert_eq!(device.expect_identity(ALICE).ids, alice());
        disk.make_room();
        device.expect_log("agent certificate renewed");
        assert!(!device.log().contains(IN_MEMORY), "{}", device.log());
    });
}
