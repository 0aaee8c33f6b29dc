//! Attestation by what a host serves at its name, with one of SPIRE's programs on either side.

use ironroot_lab::deployment::{DEADLINE, TRUST_DOMAIN, expect_within};
use ironroot_lab::spire::Times;
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "24h", agent: "1h", x509_svid: "1h" };
const HOST: &str = "127.0.0.1";

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn a_host_attests_by_its_name_to_a_server_of_the_other_make() {
    for (agent, server) in [(Maker::Spire, Maker::Ironroot), (Maker::Ironroot, Maker::Spire)] {
        let allowed = "plugin_data { allowed_dns_patterns = [\"^127\"] }";
        let server = AnyServer::start_with(server, TIMES, &format!("NodeAttestor \"http_challenge\" {{ {allowed} }}"));
        let (parent, node) = (format!("spiffe://{TRUST_DOMAIN}/spire/server"), format!("spiffe://{TRUST_DOMAIN}/node"));
        let selector = format!("http_challenge:hostname:{HOST}");
        server.cli(agent, &["entry", "create", "-parentID", &parent, "-spiffeID", &node, "-selector", &selector]);
        server.create_own_entry(agent, "/app", &[]);
        let block = format!("NodeAttestor \"http_challenge\" {{ plugin_data {{ hostname = \"{HOST}\" }} }}");
        let (runtime, mut first) = (Runtime::new().expect("runtime"), AnyAgent::new(agent));
        first.start_with(&server, &block);
        let served = first.expect_identity(&runtime);
        assert_eq!(served.svids[0].spiffe_id, format!("spiffe://{TRUST_DOMAIN}/app"));
        let id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/http_challenge/{HOST}");
        assert!(server.cli(Maker::Ironroot, &["agent", "list"]).contains(&id), "{}", first.log());

        let mut second = AnyAgent::new(agent);
        second.start_with(&server, &block);
        let refused = || second.log().contains("attestation data has already been used to attest an agent");
        expect_within(DEADLINE, "a name attests once", || second.log(), refused);
    }
}
