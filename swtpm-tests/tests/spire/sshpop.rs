//! Attestation by an SSH host certificate, with one of SPIRE's programs on either side: the same messages and IDs.

use ironroot_lab::deployment::TRUST_DOMAIN;
use ironroot_lab::spire::Times;
use ironroot_lab::ssh_pki::SshPki;
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "24h", agent: "1h", x509_svid: "1h" };

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn a_host_attests_with_its_ssh_certificate_to_a_server_of_the_other_make() {
    let runtime = Runtime::new().expect("runtime");
    for (agent, server) in [(Maker::Spire, Maker::Ironroot), (Maker::Ironroot, Maker::Spire)] {
        let pki = SshPki::new("ed25519");
        let server = AnyServer::start_with(server, TIMES, &pki.server_block(""));
        for kind in [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048")] {
            let host = pki.issue(kind, &format!("gw-{}-{}", kind.0, kind.1), &["-h"]);
            let (app, uid) = (format!("spiffe://{TRUST_DOMAIN}/app"), format!("unix:uid:{}", nix::unistd::geteuid()));
            let create = ["entry", "create", "-parentID", &host.agent_id, "-spiffeID", &app, "-selector", &uid];
            server.cli(agent, &create);
            let mut any = AnyAgent::new(agent);
            any.start_with(&server, &host.agent_block());
            assert_eq!(any.expect_identity(&runtime).svids[0].spiffe_id, app);
            assert!(server.cli(Maker::Ironroot, &["agent", "list"]).contains(&host.agent_id), "{}", any.log());
        }
    }
}
