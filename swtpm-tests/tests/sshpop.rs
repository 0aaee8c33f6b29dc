//! Devices that attest with an SSH host certificate.

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::ssh_pki::{SshHost, SshPki};

const ALICE: u32 = 60_001;

fn server(block: String) -> Server {
    Server::start(&ServerOptions { plugins: block, ..ServerOptions::default() })
}

fn device(server: &Server, host: &SshHost) -> Device {
    let mut device = Device::without_tpm();
    let node_attestor = Some(host.agent_block());
    device.provision(server, &AgentOptions { node_attestor, key_manager: "memory", ..AgentOptions::default() });
    device.start();
    device
}

fn alice_on(server: &Server, agent_id: &str) {
    server.create_entry(agent_id, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
}

#[test]
fn a_host_attests_with_each_kind_of_key_and_again_and_a_banned_one_does_not() {
    for authority in ["ed25519", "ecdsa", "rsa"] {
        let pki = SshPki::new(authority);
        let server = server(pki.server_block(""));
        for kind in [("ed25519", "256"), ("ecdsa", "384"), ("rsa", "2048")] {
            let host = pki.issue(kind, &format!("gw-{}", kind.0), &["-h"]);
            alice_on(&server, &host.agent_id);
            let mut device = device(&server, &host);
            assert_eq!(device.expect_identity(ALICE).ids, [format!("spiffe://{TRUST_DOMAIN}/alice")]);
            device.kill_agent();
            device.start();
            device.expect_identity(ALICE);
            server.cli(&["agent", "ban", "-spiffeID", &host.agent_id]);
            let nothing = || device.fetch(ALICE).is_err();
            expect_within(DEADLINE, "a banned agent serves nothing", || device.log(), nothing);
        }
    }
}

#[test]
fn a_certificate_of_others_of_a_user_or_of_another_domain_is_refused_and_a_name_is_a_path() {
    let (pki, others) = (SshPki::new("ed25519"), SshPki::new("ed25519"));
    let template = "agent_path_template = \"/host/{{ .Hostname }}\" canonical_domain = \"example.org\"";
    let server = server(pki.server_block(template));
    let kind = ("ed25519", "256");
    for (host, refusal) in [
        (others.issue(kind, "gw1.example.org", &["-h"]), "its authority is none of cert_authorities"),
        (pki.issue(kind, "user.example.org", &[]), "it is no certificate of a host"),
        (pki.issue(kind, "gw1.example.com", &["-h"]), "cert principal is not in domain"),
        (pki.issue(kind, "gw2.example.org", &["-h", "-V", "20200101:20200102"]), "it has ended, or is not valid yet"),
    ] {
        device(&server, &host).expect_log(refusal);
    }
    let host = pki.issue(kind, "gw3.example.org", &["-h"]);
    alice_on(&server, &format!("spiffe://{TRUST_DOMAIN}/spire/agent/host/gw3"));
    device(&server, &host).expect_identity(ALICE);
}

#[test]
fn an_agent_says_what_is_wrong_with_its_files() {
    let pki = SshPki::new("ed25519");
    let server = server(pki.server_block(""));
    let host = pki.issue(("ed25519", "256"), "gw1", &["-h"]);
    let other = pki.issue(("ed25519", "256"), "gw2", &["-h"]);
    std::fs::copy(other.key(), host.key()).expect("another's key");
    device(&server, &host).expect_log("is not that of the certificate");
}
