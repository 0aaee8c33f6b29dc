//! Keys of a device in a PKCS#11 token or its TPM: that of its certificate, and the agent's own.

use std::fs;

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::device_pki::{DevicePki, key_in_token, key_in_tpm};
use ironroot_lab::softhsm::{LABEL, PIN, SoftHsm};
use ironroot_lab::swtpm::Swtpm;
use rcgen::SignatureAlgorithm;

const ALICE: u32 = 60_001;

/// Labels of the private keys in the token.
fn private_keys(token: &SoftHsm) -> Vec<String> {
    let module = SoftHsm::module_path().display().to_string();
    let list =
        ["--module", &module, "--token-label", LABEL, "--login", "--pin", PIN, "--list-objects", "--type", "privkey"];
    let listed = token.run("pkcs11-tool", &list);
    let labels = listed.lines().filter_map(|line| line.trim().strip_prefix("label:"));
    let mut labels: Vec<String> = labels.map(|label| label.trim().to_owned()).collect();
    labels.sort();
    labels
}

fn alice_below(server: &Server, agent_id: &str) {
    server.create_entry(agent_id, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
}

fn device_with_token(server: &Server, token: &SoftHsm) -> Device {
    let device = Device::without_tpm().with_token(token);
    let alias = format!("spiffe://{TRUST_DOMAIN}/node");
    let join_token = server.cli(&["token", "generate", "-spiffeID", &alias]);
    let join_token = join_token.split_whitespace().last().expect("a token").to_owned();
    alice_below(server, &alias);
    let key_manager_block = Some(token.key_manager());
    device.provision(
        server,
        &AgentOptions { join_token: Some(join_token), key_manager_block, ..AgentOptions::default() },
    );
    device
}

#[test]
fn the_agents_key_signs_in_its_token_and_rotated_ones_are_destroyed() {
    let token = SoftHsm::new();
    let server = Server::start(&ServerOptions { agent_ttl: "12s", ..ServerOptions::default() });
    let mut device = device_with_token(&server, &token);
    device.start();
    device.expect_identity(ALICE);
    let renewals = || server.log().matches("RenewAgent").count() >= 4;
    expect_within(DEADLINE, "it renews with key after key", || device.log(), renewals);
    let keys = private_keys(&token);
    assert_eq!(keys, ["ironroot-agent-a", "ironroot-agent-b"], "the one in use, and the one before or after");
    for file in fs::read_dir(device.data_directory()).expect("its directory") {
        let content = fs::read(file.expect("an entry").path()).unwrap_or_default();
        let content = String::from_utf8_lossy(&content).into_owned();
        assert!(!content.contains("PRIVATE KEY") && !content.contains("\"keys\""), "{content}");
    }
}

/// A join token is spent: without the very key that it had, the agent could not come back.
#[test]
fn an_agent_whose_token_is_away_comes_back_with_its_key_when_the_token_does() {
    let token = SoftHsm::new();
    let server = Server::start(&ServerOptions::default());
    let mut device = device_with_token(&server, &token);
    device.start();
    device.expect_identity(ALICE);
    let keys = private_keys(&token);
    device.kill_agent();

    let away = token.file("away");
    fs::rename(token.token_directory(), &away).expect("pulled out");
    fs::create_dir(token.token_directory()).expect("an empty reader");
    device.start();
    device.expect_log("no token matches");
    assert!(device.fetch(ALICE).is_err());
    fs::remove_dir(token.token_directory()).expect("nothing was made in it");
    fs::rename(&away, token.token_directory()).expect("plugged in again");
    device.expect_identity(ALICE);
    assert_eq!(private_keys(&token), keys, "with the same key");
}

/// With a server of ours here; with SPIRE's in `spire/x509pop.rs`.
#[test]
fn a_device_attests_with_a_certificate_whose_key_stays_in_a_token() {
    let kinds: [(&str, &'static SignatureAlgorithm); 3] = [
        ("EC:secp256r1", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("EC:secp384r1", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("rsa:2048", &rcgen::PKCS_RSA_SHA256),
    ];
    for (kind, algorithm) in kinds {
        let (pki, token) = (DevicePki::new(), SoftHsm::new());
        let server = Server::start(&ServerOptions { plugins: pki.server_block(), ..ServerOptions::default() });
        let (public, lines) = key_in_token(&token, kind, "device-key");
        let identity = pki.issue_for("device", &public, algorithm);
        let mut device = Device::without_tpm().with_token(&token);
        let options = AgentOptions {
            node_attestor: Some(identity.agent_block(&lines)),
            key_manager_block: Some(token.key_manager()),
            ..AgentOptions::default()
        };
        device.provision(&server, &options);
        alice_below(&server, &identity.agent_id);
        device.start();
        device.expect_identity(ALICE);
        assert_eq!(private_keys(&token), ["device-key", "ironroot-agent-a"], "{kind}");
    }
}

#[test]
fn a_key_in_a_token_that_is_not_the_certificates_is_told_by_name() {
    let (pki, token) = (DevicePki::new(), SoftHsm::new());
    let server = Server::start(&ServerOptions { plugins: pki.server_block(), ..ServerOptions::default() });
    let (public, _) = key_in_token(&token, "EC:secp256r1", "device-key");
    let other = SoftHsm::new();
    let (_, lines) = key_in_token(&other, "EC:secp256r1", "device-key");
    let identity = pki.issue_for("device", &public, &rcgen::PKCS_ECDSA_P256_SHA256);
    let mut device = Device::without_tpm().with_token(&other);
    let node_attestor = Some(identity.agent_block(&lines));
    device.provision(&server, &AgentOptions { node_attestor, key_manager: "memory", ..AgentOptions::default() });
    device.start();
    device.expect_log("is not that of the certificate");
    device.expect_log("in the token with CKA_LABEL");
}

#[test]
fn a_device_attests_with_a_certificate_whose_key_stays_in_its_tpm() {
    let kinds: [(&str, &'static SignatureAlgorithm); 2] =
        [("ecc256", &rcgen::PKCS_ECDSA_P256_SHA256), ("rsa2048", &rcgen::PKCS_RSA_SHA256)];
    for (kind, algorithm) in kinds {
        let (pki, chip) = (DevicePki::new(), Swtpm::start().expect("swtpm"));
        let server = Server::start(&ServerOptions { plugins: pki.server_block(), ..ServerOptions::default() });
        let (public, lines) = key_in_tpm(&chip, kind, 0x8101_0020);
        let identity = pki.issue_for("device", &public, algorithm);
        let mut device = Device::without_tpm();
        let node_attestor = Some(identity.agent_block(&lines));
        device.provision(&server, &AgentOptions { node_attestor, key_manager: "memory", ..AgentOptions::default() });
        alice_below(&server, &identity.agent_id);
        device.start();
        device.expect_identity(ALICE);
    }
}
