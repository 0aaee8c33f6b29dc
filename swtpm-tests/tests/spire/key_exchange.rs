//! The key exchange of each link between a program of SPIRE's and one of ours.

use ironroot_lab::key_exchange::expect_hybrid;
use ironroot_lab::spire::Times;
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "1h", agent: "30m", x509_svid: "10m" };

/// An agent of one make on a server of the other, with an identity for this process.
fn pair(runtime: &Runtime, agent: Maker, server: Maker) -> (AnyAgent, AnyServer) {
    let server = AnyServer::start(server, TIMES);
    let mut agent = AnyAgent::new(agent);
    let token = server.token(Maker::Spire);
    server.create_own_entry(Maker::Spire, "/lower", &["-downstream"]);
    agent.start(&server, Some(&token));
    agent.expect_identity(runtime);
    (agent, server)
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn links_between_spires_programs_and_ours_agree_on_a_hybrid_key_exchange() {
    let runtime = Runtime::new().expect("runtime");
    let (_agent, server) = pair(&runtime, Maker::Spire, Maker::Ironroot);
    expect_hybrid("TLS handshake finished", || server.log());
    let (agent, upper) = pair(&runtime, Maker::Ironroot, Maker::Spire);
    expect_hybrid("connected to the server", || agent.log());
    let below = format!(
        "UpstreamAuthority \"spire\" {{ plugin_data {{ server_address = \"127.0.0.1\", server_port = \"{}\", \
         workload_api_socket = \"{}\" }} }}",
        upper.port(),
        agent.socket().display()
    );
    let lower = AnyServer::start_with(Maker::Ironroot, TIMES, &below);
    expect_hybrid("connected to the upstream server", || lower.log());
}
