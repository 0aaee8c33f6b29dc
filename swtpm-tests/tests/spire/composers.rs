//! What a plugin adds to what the CA signs: the same as at SPIRE's server, whichever agent asks.

use ironroot_api::certificate::Certificate;
use ironroot_lab::spire::Times;
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "1h", agent: "30m", x509_svid: "10m" };

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn unique_identifiers_of_workloads_are_those_of_spires_server() {
    let runtime = Runtime::new().expect("runtime");
    let subject_of = |maker| {
        let server = AnyServer::start_with(maker, TIMES, "CredentialComposer \"uniqueid\" {}");
        let mut agent = AnyAgent::new(maker);
        let token = server.token(maker);
        server.create_own_entry(maker, "/app", &["-dns", "app.example"]);
        agent.start(&server, Some(&token));
        let served = agent.expect_identity(&runtime);
        let leaf = Certificate::parse_concatenated(&served.svids[0].x509_svid).expect("a chain").swap_remove(0);
        let subject = leaf.inner().tbs_certificate().subject();
        assert_eq!(subject.iter_rdn().count(), 4, "{subject}");
        subject.to_string()
    };
    assert_eq!(subject_of(Maker::Ironroot), subject_of(Maker::Spire));
}
