//! Attestation by a certificate, with one of SPIRE's programs on either side: the same messages, IDs and selectors.

use ironroot_lab::deployment::TRUST_DOMAIN;
use ironroot_lab::device_pki::DevicePki;
use ironroot_lab::spire::Times;
use rcgen::SignatureAlgorithm;
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
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P521_SHA256, &rcgen::PKCS_RSA_SHA256] {
        attests(Maker::Ironroot, Maker::Spire, algorithm);
    }
}

fn attests(agent: Maker, server: Maker, algorithm: &'static SignatureAlgorithm) {
    let tool = agent;
    let runtime = Runtime::new().expect("runtime");
    let pki = DevicePki::new();
    let identity = pki.issue("device-1", algorithm);
    let server = AnyServer::start_with(server, TIMES, &pki.server_block());
    let (parent, node) = (format!("spiffe://{TRUST_DOMAIN}/spire/server"), format!("spiffe://{TRUST_DOMAIN}/node"));
    let mut alias = vec!["entry", "create", "-parentID", &parent, "-spiffeID", &node];
    alias.extend(identity.selectors.iter().flat_map(|selector| ["-selector", selector.as_str()]));
    server.cli(tool, &alias);
    server.create_own_entry(tool, "/app", &[]);
    let mut agent = AnyAgent::new(agent);
    agent.start_with(&server, &identity.agent_block());
    let served = agent.expect_identity(&runtime);
    assert_eq!(served.svids[0].spiffe_id, format!("spiffe://{TRUST_DOMAIN}/app"));
    assert!(server.cli(tool, &["agent", "list"]).contains(&identity.agent_id), "{}", agent.log());
}
