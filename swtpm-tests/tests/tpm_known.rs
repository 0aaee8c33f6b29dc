//! Devices that are known by their endorsement key alone (`tpm`), on our server: our own agent's part of SPIRE's plugin.

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::devid_pki::DevIdPki;
use ironroot_lab::manufacturer::{EkKind, ek_sha256_of};
use ironroot_lab::swtpm::Swtpm;
use ironroot_text::hex::hex;

const ALICE: u32 = 60_001;
const KEPT: &str = "tpm-attestation-key.tpm";

/// Whose endorsement keys count, besides those of the registry.
fn server(line: &str) -> Server {
    let plugins = format!("NodeAttestor \"tpm\" {{ plugin_data {{ {line} }} }}");
    Server::start(&ServerOptions { plugins, ..ServerOptions::default() })
}

fn device(server: &Server, chip: &Swtpm) -> Device {
    let device = Device::without_tpm();
    let block = format!("NodeAttestor \"tpm\" {{ plugin_data {{ tpm_device_path = \"{}\" }} }}", chip.address());
    device.provision(
        server,
        &AgentOptions { node_attestor: Some(block), key_manager: "memory", ..AgentOptions::default() },
    );
    device
}

fn known_by(chip: &Swtpm) -> String {
    hex(&ek_sha256_of(chip, EkKind::Rsa2048).expect("read"))
}

/// Whoever has this chip is a gateway, and Alice on a gateway has an identity.
fn entries(server: &Server, ek_sha256: &str) {
    let selector = format!("tpm:pub_hash:{ek_sha256}");
    server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/spire/server"), "/gateway", &[&selector], &[]);
    server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/gateway"), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
}

fn kept_key(device: &Device) -> String {
    std::fs::read_to_string(device.data_directory().join(KEPT)).expect("an attestation key is kept")
}

#[test]
fn a_device_is_known_by_its_hash_and_attests_again_with_the_key_that_it_made_once() {
    let pki = DevIdPki::new();
    let mut chip = pki.chip();
    let (ek_sha256, hashes) = (known_by(&chip), tempfile::tempdir().expect("directory"));
    // An empty directory may be one that nothing is mounted on yet.
    std::fs::write(hashes.path().join("another"), "").expect("written");
    let server = server(&format!("hash_path = \"{}\"", hashes.path().display()));
    entries(&server, &ek_sha256);
    let mut device = device(&server, &chip);
    device.start();
    // Nobody knows it yet; then somebody does, and no server is restarted for that.
    device.expect_log(&format!("endorsement key {ek_sha256} is not known"));
    std::fs::write(hashes.path().join(&ek_sha256), "").expect("written");
    assert_eq!(device.expect_identity(ALICE).ids, [format!("spiffe://{TRUST_DOMAIN}/alice")]);
    let agents = server.cli(&["agent", "list"]);
    assert!(agents.contains(&format!("spiffe://{TRUST_DOMAIN}/spire/agent/tpm/{ek_sha256}")), "{agents}");
    let made = kept_key(&device);

    // Its own key is in memory, so it has to attest again.
    device.kill_agent();
    chip.power_cycle().expect("the chip comes back");
    device.start();
    device.expect_identity(ALICE);
    assert_eq!(kept_key(&device), made, "an RSA key is made once");

    // A key that the chip does not take, as after a clear, is replaced and no obstacle.
    device.kill_agent();
    let damaged = made.replacen("\"private\":\"AC", "\"private\":\"AD", 1);
    assert_ne!(damaged, made, "the test damages something");
    std::fs::write(device.data_directory().join(KEPT), &damaged).expect("written");
    // What the agent had in the chip when it was killed is not what is asked here.
    chip.power_cycle().expect("the chip comes back");
    device.start();
    device.expect_identity(ALICE);
    // An identity may come out of the sealed cache before the agent has attested.
    let kept = || std::fs::read_to_string(device.data_directory().join(KEPT));
    let is_replaced = || kept().is_ok_and(|key| key != damaged);
    expect_within(DEADLINE, "the attestation key is replaced", || device.log(), is_replaced);
    let is_empty = || chip.loaded_handles().expect("told").is_empty();
    expect_within(DEADLINE, "nothing stays in the chip", || device.log(), is_empty);
    assert_eq!(chip.lockout_counter().expect("told"), 0);
}

#[test]
fn a_device_is_known_by_its_maker_and_one_of_another_maker_is_refused() {
    let (pki, other) = (DevIdPki::new(), DevIdPki::new());
    let makers = tempfile::tempdir().expect("directory");
    std::fs::write(makers.path().join("toy.pem"), pki.maker.authorities_pem()).expect("written");
    let server = server(&format!("ca_path = \"{}\"", makers.path().display()));
    let (chip, foreign) = (pki.chip(), other.chip());
    entries(&server, &known_by(&chip));
    let mut ours = device(&server, &chip);
    ours.start();
    ours.expect_identity(ALICE);
    // Read before the agent has the chip: without a resource manager it has one user at a time.
    let unknown = known_by(&foreign);
    let mut strangers = device(&server, &foreign);
    strangers.start();
    strangers.expect_log(&format!("endorsement key {unknown} is not known"));
    assert!(!server.cli(&["agent", "list"]).contains(&unknown));
}

#[test]
fn a_device_of_the_registry_is_known_until_it_is_banned() {
    let pki = DevIdPki::new();
    let (chip, server) = (pki.chip(), server(""));
    let ek_sha256 = known_by(&chip);
    entries(&server, &ek_sha256);
    let manifest = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(manifest.path(), format!("ek_sha256\n{ek_sha256}\n")).expect("written");
    server.cli(&["device", "import", &manifest.path().display().to_string()]);
    let mut device = device(&server, &chip);
    device.start();
    device.expect_identity(ALICE);
    server.cli(&["device", "ban", &ek_sha256]);
    expect_within(DEADLINE, "a banned device serves nothing", || device.log(), || device.fetch(ALICE).is_err());
}
