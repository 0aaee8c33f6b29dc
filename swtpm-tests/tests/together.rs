//! A TPM and a join token as one way to attest: both are proven, or the device stays out.

use ironroot_attest::tpm::DevIdAlgorithm;
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::device_pki::DevicePki;
use ironroot_lab::devid_pki::DevIdPki;
use ironroot_lab::manufacturer::{EkKind, Manufacturer, ek_sha256_of};
use ironroot_text::hex::hex;

const ALICE: u32 = 60_001;
const WITH_TOKEN: &str = "together_with = [\"join_token\"]";

/// A server on which TPMs attest only with a token, and a device of its registry.
fn lab(admitted: bool) -> (Server, Device) {
    let server = Server::start(&ServerOptions {
        tpm_lines: WITH_TOKEN.to_owned(),
        join_tokens: false,
        ..ServerOptions::default()
    });
    let device = Device::manufacture(&Manufacturer::new("Toy").expect("a manufacturer"));
    if admitted {
        server.import_devices(&format!("ek_sha256,label:site\n{},lab\n", device.ek_sha256()));
    }
    let node = format!("spiffe://{TRUST_DOMAIN}/node");
    let selectors = ["together:tpm2+join_token", "tpm2:label:site:lab"];
    server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/spire/server"), "/node", &selectors, &[]);
    server.create_entry(&node, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    (server, device)
}

fn token(server: &Server) -> String {
    let said = server.cli(&["token", "generate"]);
    said.lines().find_map(|line| line.strip_prefix("Token: ")).expect("a token").to_owned()
}

/// Gives the agent this token or none, and starts it anew with nothing that it remembers of its key.
fn start(server: &Server, device: &mut Device, token: Option<&str>, lines: &str) {
    let agent_lines = token.map(|token| format!("join_token = \"{token}\"")).unwrap_or_default();
    let tpm_lines = lines.to_owned();
    let options = AgentOptions { agent_lines, tpm_lines, ..AgentOptions::default() };
    device.kill_agent();
    let _ = std::fs::remove_dir_all(device.data_directory());
    device.provision(server, &options);
    device.start();
}

#[test]
fn a_device_comes_in_with_its_tpm_and_a_token_and_again_without_until_it_is_evicted() {
    let (server, mut device) = lab(true);
    start(&server, &mut device, Some(&token(&server)), WITH_TOKEN);
    // The entry's selectors are of both.
    device.expect_identity(ALICE);
    let shown = server.cli(&["agent", "show", "-spiffeID", &device.agent_id()]);
    assert!(shown.contains("tpm2+join_token"), "{shown}");

    // Its key is gone, its token is spent, and its chip is proven anew.
    start(&server, &mut device, None, WITH_TOKEN);
    device.expect_identity(ALICE);

    server.cli(&["agent", "evict", "-spiffeID", &device.agent_id()]);
    start(&server, &mut device, None, WITH_TOKEN);
    device.expect_log("join token does not exist or has already been used");
    assert!(!server.cli(&["agent", "list"]).contains(device.ek_sha256()));
    start(&server, &mut device, Some(&token(&server)), WITH_TOKEN);
    device.expect_identity(ALICE);
}

#[test]
fn neither_the_tpm_alone_nor_a_token_alone_is_let_in() {
    let (server, mut device) = lab(true);
    start(&server, &mut device, None, "");
    device.expect_log("is not configured on this server");
    start(&server, &mut device, None, WITH_TOKEN);
    device.expect_log("join token does not exist or has already been used");
    start(&server, &mut device, Some("no-such-token"), WITH_TOKEN);
    device.expect_log("join token does not exist or has already been used");

    let token = token(&server);
    let mut without = Device::without_tpm();
    let options = AgentOptions { join_token: Some(token), key_manager: "memory", ..AgentOptions::default() };
    without.provision(&server, &options);
    without.start();
    without.expect_log("is not configured on this server");
    assert!(!server.cli(&["agent", "list"]).contains("spiffe://"), "nobody is in");
}

#[test]
fn the_token_of_a_device_that_is_refused_is_not_spent() {
    let (server, mut device) = lab(false);
    let token = token(&server);
    start(&server, &mut device, Some(&token), WITH_TOKEN);
    let refused = || device.log().contains("the server refused attestation");
    expect_within(DEADLINE, "no device of ours", || device.log(), refused);
    server.import_devices(&format!("ek_sha256,label:site\n{},lab\n", device.ek_sha256()));
    start(&server, &mut device, Some(&token), WITH_TOKEN);
    device.expect_identity(ALICE);
}

#[test]
fn a_certificate_and_a_tpm_count_together_as_well() {
    let pki = DevicePki::new();
    let with_certificate = "together_with = [\"x509pop\"]";
    let options = ServerOptions {
        tpm_lines: with_certificate.to_owned(),
        plugins: pki.server_block_with(""),
        ..ServerOptions::default()
    };
    let server = Server::start(&options);
    let mut device = Device::manufacture(&Manufacturer::new("Toy").expect("a manufacturer"));
    server.import_devices(&format!("ek_sha256,label:site\n{},lab\n", device.ek_sha256()));
    let identity = pki.issue("device-1", &rcgen::PKCS_ECDSA_P256_SHA256);
    let selectors = ["together:tpm2+x509pop", "x509pop:subject:cn:device-1", "tpm2:label:site:lab"];
    let node = format!("spiffe://{TRUST_DOMAIN}/node");
    server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/spire/server"), "/node", &selectors, &[]);
    server.create_entry(&node, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    let tpm = format!("tpm_address = \"{}\"", device.tpm().address());
    let tpm2 = format!("NodeAttestor \"tpm2\" {{ plugin_data {{ {tpm}\n{with_certificate} }} }}");
    let both = format!("{tpm2}\n{}", identity.agent_block());
    device.provision(&server, &AgentOptions { node_attestor: Some(both), ..AgentOptions::default() });
    device.start();
    device.expect_identity(ALICE);
    let mut alone = Device::without_tpm();
    let node_attestor = Some(identity.agent_block());
    alone.provision(&server, &AgentOptions { node_attestor, key_manager: "memory", ..AgentOptions::default() });
    alone.start();
    alone.expect_log("is not configured on this server");
}

/// A node entry for whoever has these selectors, and Alice on such a node.
fn admit(server: &Server, selectors: &[&str]) {
    server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/spire/server"), "/node", selectors, &[]);
    let node = format!("spiffe://{TRUST_DOMAIN}/node");
    server.create_entry(&node, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
}

#[test]
fn a_devid_counts_together_with_a_token_and_its_chips_quote() {
    let pki = DevIdPki::new();
    for others in ["join_token", "tpm2"] {
        let line = format!("together_with = [\"{others}\"]");
        let block = pki.server_block().replacen("plugin_data {", &format!("plugin_data {{ {line}\n"), 1);
        let server = Server::start(&ServerOptions {
            plugins: block,
            join_tokens: false,
            require_resident_key: false,
            ..ServerOptions::default()
        });
        let chip = pki.chip();
        let devid = pki.issue(&chip, "device-1", DevIdAlgorithm::P256);
        let address = chip.address().to_string();
        let own = devid.agent_block(&address).replacen("plugin_data {", &format!("plugin_data {{ {line}\n"), 1);
        let tpm2 = |ek: &str| format!("NodeAttestor \"tpm2\" {{ plugin_data {{ ek = \"{ek}\" }} }}");
        let other = match others {
            "tpm2" => tpm2("rsa2048"),
            _ => String::new(),
        };
        let ek = ek_sha256_of(&chip, EkKind::Rsa2048).expect("read");
        server.import_devices(&format!("ek_sha256\n{}\n", hex(&ek)));
        let together = format!("together:tpm_devid+{others}");
        admit(&server, &[devid.selectors[0].as_str(), &together]);
        let mut device = Device::without_tpm();
        let agent_lines = match others {
            "join_token" => format!("join_token = \"{}\"", token(&server)),
            _ => String::new(),
        };
        let options = AgentOptions {
            node_attestor: Some(format!("{own}\n{other}")),
            agent_lines,
            key_manager: "memory",
            ..AgentOptions::default()
        };
        device.provision(&server, &options);
        device.start();
        device.expect_identity(ALICE);
        let shown = server.cli(&["agent", "show", "-spiffeID", &devid.agent_id]);
        assert!(shown.contains(&format!("tpm_devid+{others}")), "{shown}");

        let mut alone = Device::without_tpm();
        let node_attestor = Some(devid.agent_block(&address));
        alone.provision(&server, &AgentOptions { node_attestor, key_manager: "memory", ..AgentOptions::default() });
        device.kill_agent();
        alone.start();
        alone.expect_log("is not configured on this server");
    }
}
