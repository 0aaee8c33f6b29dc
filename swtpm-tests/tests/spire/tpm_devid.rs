//! Attestation by a DevID in a TPM, with one of SPIRE's programs on either side: the same messages, files, IDs and selectors.
//!
//! SPIRE's agent finds its chip at a unix socket, which its TPM library takes for a device.

use ironroot_attest::tpm::DevIdAlgorithm;
use ironroot_lab::deployment::TRUST_DOMAIN;
use ironroot_lab::devid_pki::{DevId, DevIdPki};
use ironroot_lab::spire::Times;
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "24h", agent: "1h", x509_svid: "1h" };
const KINDS: [(&str, DevIdAlgorithm, Option<&str>); 3] = [
    ("p256", DevIdAlgorithm::P256, None),
    ("rsa", DevIdAlgorithm::Rsa2048, None),
    ("with-a-password", DevIdAlgorithm::P256, Some("hunter2")),
];

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn spires_agent_attests_to_our_server_with_its_devid() {
    let pki = DevIdPki::new();
    let server = AnyServer::start_with(Maker::Ironroot, TIMES, &pki.server_block());
    for (name, algorithm, password) in KINDS {
        let chip = pki.chip();
        let devid = pki.issue_with(&chip, name, algorithm, password);
        let chip = chip.behind_unix_socket().expect("swtpm answers at a unix socket");
        attests(Maker::Spire, &server, &devid, &chip.socket().display().to_string());
    }
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_agent_attests_to_spires_server_with_its_devid() {
    let pki = DevIdPki::new();
    let server = AnyServer::start_with(Maker::Spire, TIMES, &pki.server_block());
    for (name, algorithm, password) in KINDS {
        let chip = pki.chip();
        let devid = pki.issue_with(&chip, name, algorithm, password);
        attests(Maker::Ironroot, &server, &devid, &chip.address().to_string());
    }
}

fn attests(agent: Maker, server: &AnyServer, devid: &DevId, chip: &str) {
    let (tool, runtime) = (agent, Runtime::new().expect("runtime"));
    let (parent, node) = (format!("spiffe://{TRUST_DOMAIN}/spire/server"), format!("spiffe://{TRUST_DOMAIN}/node"));
    let mut alias = vec!["entry", "create", "-parentID", &parent, "-spiffeID", &node];
    alias.extend(devid.selectors.iter().flat_map(|selector| ["-selector", selector.as_str()]));
    server.cli(tool, &alias);
    let path = format!("/app-{}", &devid.agent_id[devid.agent_id.len() - 8..]);
    server.create_own_entry(tool, &path, &[]);
    let mut agent = AnyAgent::new(agent);
    agent.start_with(server, &devid.agent_block(chip));
    let served = agent.expect_identity(&runtime);
    let id = format!("spiffe://{TRUST_DOMAIN}{path}");
    assert!(served.svids.iter().any(|svid| svid.spiffe_id == id), "{:?}", served.svids.len());
    assert!(server.cli(tool, &["agent", "list"]).contains(&devid.agent_id), "{}", agent.log());
}
