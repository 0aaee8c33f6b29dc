//! Devices with a DevID in their TPM, on our server.

use ironroot_attest::tpm::DevIdAlgorithm;
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::devid_pki::{DevId, DevIdPki};
use ironroot_lab::manufacturer::{EkKind, ek_sha256_of};
use ironroot_lab::swtpm::Swtpm;

const ALICE: u32 = 60_001;

fn server(pki: &DevIdPki) -> Server {
    Server::start(&ServerOptions { plugins: pki.server_block(), ..ServerOptions::default() })
}

fn device(server: &Server, devid: &DevId, chip: &Swtpm) -> Device {
    let device = Device::without_tpm();
    let node_attestor = Some(devid.agent_block(&chip.address().to_string()));
    device.provision(server, &AgentOptions { node_attestor, key_manager: "memory", ..AgentOptions::default() });
    device
}

/// Whoever has these selectors is a gateway, and Alice on a gateway has an identity.
fn entries(server: &Server, devid: &DevId) {
    let selectors: Vec<&str> = devid.selectors.iter().map(String::as_str).collect();
    server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/spire/server"), "/gateway", &selectors, &[]);
    let gateway = format!("spiffe://{TRUST_DOMAIN}/gateway");
    server.create_entry(&gateway, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
}

fn kept_key(device: &Device) -> Vec<u8> {
    std::fs::read(device.data_directory().join("devid-attestation-key.tpm")).expect("an attestation key is kept")
}

#[test]
fn a_device_with_a_devid_attests_and_again_with_the_same_attestation_key_after_a_restart() {
    let pki = DevIdPki::new();
    let server = server(&pki);
    let mut chip = pki.chip();
    let devid = pki.issue_with(&chip, "device-1", DevIdAlgorithm::P256, Some("hunter2"));
    entries(&server, &devid);
    let mut device = device(&server, &devid, &chip);
    device.start();
    assert_eq!(device.expect_identity(ALICE).ids, [format!("spiffe://{TRUST_DOMAIN}/alice")]);
    assert!(server.cli(&["agent", "list"]).contains(&devid.agent_id));
    let made = kept_key(&device);

    // Its own key is in memory, so it has to attest again.
    device.kill_agent();
    chip.power_cycle().expect("the chip comes back");
    device.start();
    device.expect_identity(ALICE);
    assert_eq!(kept_key(&device), made, "an RSA key is made once");

    // An attestation key of another chip, as after a clear, is replaced and no obstacle.
    device.kill_agent();
    let text = String::from_utf8(made.clone()).expect("JSON");
    let damaged = text.replacen("\"private\":\"AC", "\"private\":\"AD", 1);
    assert_ne!(damaged, text, "the test damages something");
    std::fs::write(device.data_directory().join("devid-attestation-key.tpm"), &damaged).expect("written");
    // What the agent had in the chip when it was killed is not what is asked here.
    chip.power_cycle().expect("the chip comes back");
    device.start();
    device.expect_identity(ALICE);
    // An identity may come out of the sealed cache before the agent has attested.
    let replaced = || kept_key(&device) != damaged.as_bytes();
    expect_within(DEADLINE, "the attestation key is replaced", || device.log(), replaced);
    let is_empty = || chip.loaded_handles().expect("told").is_empty();
    expect_within(DEADLINE, "nothing stays in the chip", || device.log(), is_empty);
    assert_eq!(chip.lockout_counter().expect("told"), 0);
}

#[test]
fn a_ban_of_the_device_holds_for_its_devid_too() {
    let pki = DevIdPki::new();
    let server = server(&pki);
    let mut chip = pki.chip();
    let devid = pki.issue(&chip, "device-1", DevIdAlgorithm::Rsa2048);
    entries(&server, &devid);
    let ek_sha256 = ironroot_text::hex::hex(&ek_sha256_of(&chip, EkKind::Rsa2048).expect("read"));
    let manifest = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(manifest.path(), format!("ek_sha256,label:site\n{ek_sha256},berlin\n")).expect("written");
    server.cli(&["device", "import", &manifest.path().display().to_string()]);
    let berlin = ["tpm2:label:site:berlin"];
    server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/spire/server"), "/berlin", &berlin, &[]);
    let parent = format!("spiffe://{TRUST_DOMAIN}/berlin");
    server.create_entry(&parent, "/bob", &[&format!("unix:uid:{ALICE}")], &[]);
    let mut device = device(&server, &devid, &chip);
    device.start();
    let both = || device.fetch(ALICE).is_ok_and(|fetched| fetched.ids.len() == 2);
    expect_within(DEADLINE, "what operators say of the device counts as well", || device.log(), both);
    server.cli(&["device", "ban", &ek_sha256]);
    let nothing = || device.fetch(ALICE).is_err();
    expect_within(DEADLINE, "a banned device serves nothing", || device.log(), nothing);
    // Nor with another certificate, which would be another agent. The one before has the chip to itself for as long as it runs.
    device.kill_agent();
    chip.power_cycle().expect("the chip comes back");
    let renewed = pki.issue(&chip, "device-2", DevIdAlgorithm::P256);
    let mut again = self::device(&server, &renewed, &chip);
    again.start();
    again.expect_log("is banned");
    assert!(!server.cli(&["agent", "list"]).contains(&renewed.agent_id));
}

#[test]
fn a_devid_of_another_authority_or_in_a_chip_of_another_maker_is_refused() {
    let (pki, other) = (DevIdPki::new(), DevIdPki::new());
    let server = server(&pki);
    let chip = pki.chip();
    let mut strangers = device(&server, &other.issue(&chip, "stranger", DevIdAlgorithm::P256), &chip);
    strangers.start();
    strangers.expect_log("the DevID certificate is not acceptable");
    let chip = other.chip();
    let mut elsewhere = device(&server, &pki.issue(&chip, "elsewhere", DevIdAlgorithm::P256), &chip);
    elsewhere.start();
    elsewhere.expect_log("the endorsement key certificate is not acceptable");
    assert!(!server.cli(&["agent", "list"]).contains("tpm_devid"));
}

#[test]
fn a_devid_in_another_chip_is_said_to_be_that() {
    let pki = DevIdPki::new();
    let server = server(&pki);
    let (chip, other) = (pki.chip(), pki.chip());
    let mut device = device(&server, &pki.issue(&chip, "moved", DevIdAlgorithm::P256), &other);
    device.start();
    device.expect_log("the TPM could not load its DevID key: the key was not made by this TPM");
}
