//! Attestation by a certificate, with one of SPIRE's programs on either side: the same messages, IDs and selectors.

use ironroot_lab::deployment::{Device, TRUST_DOMAIN};
use ironroot_lab::device_pki::{DeviceIdentity, DevicePki, key_in_token, key_in_tpm};
use ironroot_lab::softhsm::SoftHsm;
use ironroot_lab::spire::Times;
use ironroot_lab::swtpm::Swtpm;
use rcgen::{SanType, SignatureAlgorithm};
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "24h", agent: "1h", x509_svid: "1h" };

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn spires_agent_attests_to_our_server_with_its_certificate() {
    let curves = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P521_SHA256];
    for algorithm in curves.into_iter().chain([&rcgen::PKCS_RSA_SHA256]) {
        attests(Maker::Spire, Maker::Ironroot, algorithm);
    }
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_agent_attests_to_spires_server_with_its_certificate() {
    let curves = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P521_SHA256];
    for algorithm in curves.into_iter().chain([&rcgen::PKCS_RSA_SHA256]) {
        attests(Maker::Ironroot, Maker::Spire, algorithm);
    }
}

/// The same template on both servers gives the same agent, and URIs the same selectors.
#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn a_template_and_uris_in_the_certificate_mean_the_same_on_either_server() {
    let template = r#"agent_path_template = "/{{ .PluginName }}/{{ .URISanSelectors.rack }}/{{ .Subject.CommonName | upper | trunc 6 }}-{{ index .DNSNames 0 | replace \".\" \"_\" }}""#;
    let names = [
        SanType::URI(format!("x509pop://{TRUST_DOMAIN}/rack/r1").try_into().expect("a URI")),
        SanType::DnsName("device.example".try_into().expect("a name")),
    ];
    for (agent, server) in [(Maker::Spire, Maker::Ironroot), (Maker::Ironroot, Maker::Spire)] {
        let pki = DevicePki::new();
        let mut identity = pki.issue_with("device-1", &rcgen::PKCS_ECDSA_P256_SHA256, &names);
        identity.selectors.push("x509pop:san:rack:r1".to_owned());
        identity.agent_id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/x509pop/r1/DEVICE-device_example");
        attests_as(agent, server, &pki.server_block_with(template), &identity);
    }
}

/// Each server's mode `spiffe`: SPIRE's agent and ours show an SVID that the server has minted.
#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn an_svid_is_exchanged_for_an_agents_on_either_server() {
    for (agent, server) in [(Maker::Spire, Maker::Ironroot), (Maker::Ironroot, Maker::Spire)] {
        let block = "NodeAttestor \"x509pop\" { plugin_data { mode = \"spiffe\" } }";
        let server = AnyServer::start_with(server, TIMES, block);
        let directory = tempfile::tempdir().expect("directory");
        let (id, to) = (format!("spiffe://{TRUST_DOMAIN}/spire-exchange/host"), directory.path().display().to_string());
        server.cli(agent, &["x509", "mint", "-spiffeID", &id, "-write", &to]);
        let block = format!(
            "NodeAttestor \"x509pop\" {{ plugin_data {{ private_key_path = \"{to}/key.pem\"\ncertificate_path = \"{to}/svid.pem\" }} }}"
        );
        let id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/x509pop/host");
        let (app, uid) = (format!("spiffe://{TRUST_DOMAIN}/app"), format!("unix:uid:{}", nix::unistd::geteuid()));
        server.cli(agent, &["entry", "create", "-parentID", &id, "-spiffeID", &app, "-selector", &uid]);
        serves(AnyAgent::new(agent), &server, &block, &id);
    }
}

/// What SPIRE's own agent cannot do: the key is in a PKCS#11 token or in the TPM, and its server does not know.
#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_agent_attests_to_spires_server_with_a_key_in_a_token_or_in_the_tpm() {
    let (p256, p384, rsa): (&'static SignatureAlgorithm, &'static SignatureAlgorithm, &'static SignatureAlgorithm) =
        (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256);
    for (kind, algorithm) in [("EC:secp256r1", p256), ("EC:secp384r1", p384), ("rsa:2048", rsa)] {
        let token = SoftHsm::new();
        let (public, lines) = key_in_token(&token, kind, "device-key");
        let agent = AnyAgent::Ours(Device::without_tpm().with_token(&token));
        attests_from_hardware(agent, (&public, algorithm), &lines);
    }
    for (kind, algorithm) in [("ecc256", p256), ("rsa2048", rsa)] {
        let chip = Swtpm::start().expect("swtpm");
        let (public, lines) = key_in_tpm(&chip, kind, 0x8101_0020);
        attests_from_hardware(AnyAgent::new(Maker::Ironroot), (&public, algorithm), &lines);
    }
}

fn attests_from_hardware(agent: AnyAgent, (public, of): (&[u8], &'static SignatureAlgorithm), key_lines: &str) {
    let pki = DevicePki::new();
    let identity = pki.issue_for("device-1", public, of);
    let server = AnyServer::start_with(Maker::Spire, TIMES, &pki.server_block());
    let (app, uid) = (format!("spiffe://{TRUST_DOMAIN}/app"), format!("unix:uid:{}", nix::unistd::geteuid()));
    let create = ["entry", "create", "-parentID", &identity.agent_id, "-spiffeID", &app, "-selector", &uid];
    server.cli(Maker::Ironroot, &create);
    serves(agent, &server, &identity.agent_block(key_lines), &identity.agent_id);
}

fn attests(agent: Maker, server: Maker, algorithm: &'static SignatureAlgorithm) {
    let pki = DevicePki::new();
    attests_as(agent, server, &pki.server_block(), &pki.issue("device-1", algorithm));
}

fn attests_as(agent: Maker, server: Maker, server_block: &str, identity: &DeviceIdentity) {
    let server = AnyServer::start_with(server, TIMES, server_block);
    let (parent, node) = (format!("spiffe://{TRUST_DOMAIN}/spire/server"), format!("spiffe://{TRUST_DOMAIN}/node"));
    let mut alias = vec!["entry", "create", "-parentID", &parent, "-spiffeID", &node];
    alias.extend(identity.selectors.iter().flat_map(|selector| ["-selector", selector.as_str()]));
    server.cli(agent, &alias);
    server.create_own_entry(agent, "/app", &[]);
    serves(AnyAgent::new(agent), &server, &identity.agent_block(), &identity.agent_id);
}

/// An agent of that configuration attests under that ID, and serves what is below it.
fn serves(mut agent: AnyAgent, server: &AnyServer, block: &str, agent_id: &str) {
    let runtime = Runtime::new().expect("runtime");
    agent.start_with(server, block);
    let served = agent.expect_identity(&runtime);
    assert_eq!(served.svids[0].spiffe_id, format!("spiffe://{TRUST_DOMAIN}/app"));
    assert!(server.cli(Maker::Ironroot, &["agent", "list"]).contains(agent_id), "{}", agent.log());
}
