//! What is recorded on any link of ours today, no quantum computer reads later: the key exchange that both ends have agreed on.

use ironroot_lab::classic_peer::{self, ClassicServer};
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within, free_port,
};
use ironroot_lab::key_exchange::expect_hybrid;
use ironroot_lab::web_certificate::WebCertificate;

const PARTNER: &str = "partner.example";

#[test]
fn every_tls_link_of_ours_agrees_on_a_hybrid_key_exchange() {
    let port = free_port();
    let endpoint = format!(
        "federation {{ bundle_endpoint {{ address = \"127.0.0.1\" port = {port} profile \"https_spiffe\" {{ }} }} }}"
    );
    let server = Server::start(&ServerOptions { server_lines: endpoint, ..Default::default() });
    let mut device = Device::without_tpm();
    let join_token = Some(server.cli(&["token", "generate"]).split_whitespace().nth(1).expect("a token").to_owned());
    device.provision(&server, &AgentOptions { join_token, key_manager: "disk", ..Default::default() });
    device.start();
    expect_hybrid("connected to the server", || device.log());
    expect_hybrid("TLS handshake finished", || server.log());

    let partner = Server::start(&ServerOptions { trust_domain: PARTNER, ..Default::default() });
    let bundle = partner.directory().join("other.pem");
    std::fs::write(&bundle, server.bundle_pem()).expect("written");
    let id = format!("spiffe://{TRUST_DOMAIN}");
    partner.cli(&["bundle", "set", "-id", &id, "-path", bundle.to_str().expect("text")]);
    let (url, endpoint_id) = (format!("https://localhost:{port}/"), format!("{id}/spire/server"));
    let flags = ["federation", "create", "-trustDomain", TRUST_DOMAIN, "-bundleEndpointURL", &url];
    partner.cli(&[&flags[..], &["-bundleEndpointProfile", "https_spiffe", "-endpointSpiffeID", &endpoint_id]].concat());
    let fetched = || partner.log().contains("Bundle refreshed");
    expect_within(DEADLINE, "the bundle is fetched", || partner.log(), fetched);
    expect_hybrid("connected to a bundle endpoint", || partner.log());
    expect_hybrid("TLS handshake of a web client finished", || server.log());
}

/// A server with each listener that it can have, and the ports of these.
fn server_with_all_listeners(more: &str) -> (Server, [u16; 3], WebCertificate) {
    let (web, endpoint, discovery) = (WebCertificate::new(), free_port(), free_port());
    let server_lines = format!(
        "{more}
        federation {{ bundle_endpoint {{ address = \"127.0.0.1\" port = {endpoint} profile \"https_spiffe\" {{ }} }} }}
        oidc_discovery {{ domains = [\"localhost\"] address = \"127.0.0.1\" port = {discovery} {} }}",
        web.block()
    );
    let server = Server::start(&ServerOptions { server_lines, ..Default::default() });
    let ports = [server.port(), endpoint, discovery];
    (server, ports, web)
}

fn start_device(server: &Server, server_port: Option<u16>, lines: &str) -> Device {
    let token = server.cli(&["token", "generate"]).split_whitespace().nth(1).expect("a token").to_owned();
    let mut device = Device::without_tpm();
    let agent_lines = lines.to_owned();
    let options =
        AgentOptions { join_token: Some(token), key_manager: "disk", server_port, agent_lines, ..Default::default() };
    device.provision(server, &options);
    device.start();
    device
}

#[test]
fn with_require_pq_kem_no_listener_and_no_client_of_ours_has_a_link_without_the_hybrid() {
    const REQUIRED: &str = "require_pq_kem = true";
    let (open, ports, _web) = server_with_all_listeners("");
    for port in ports {
        let (came, said) = classic_peer::dial(port);
        assert!(came, "without the key a peer of yesterday is served: {said}");
    }
    let (server, ports, _web) = server_with_all_listeners(REQUIRED);
    for port in ports {
        let (came, said) = classic_peer::dial(port);
        assert!(!came && said.contains("handshake failure"), "port {port} of {ports:?}: {said}");
    }
    let _device = start_device(&server, None, REQUIRED);
    expect_hybrid("TLS handshake finished", || server.log());

    let classic = ClassicServer::start();
    let refused = |log: &str| log.contains("HandshakeFailure");
    let agent = start_device(&server, Some(classic.port()), REQUIRED);
    expect_within(DEADLINE, "the agent refuses it", || agent.log(), || refused(&agent.log()));
    let agent = start_device(&open, Some(classic.port()), "");
    let unproven = || agent.log().contains("the server is not believed") || agent.log().contains("cannot reach");
    expect_within(DEADLINE, "without the key only its certificate is refused", || agent.log(), unproven);
    assert!(!refused(&agent.log()), "{}", agent.log());

    let url = format!("https://localhost:{}/", classic.port());
    let partner = ServerOptions {
        trust_domain: PARTNER,
        server_lines: REQUIRED.to_owned(),
        environment: vec![("SSL_CERT_FILE".to_owned(), classic.authority())],
        ..Default::default()
    };
    let partner = Server::start(&partner);
    let flags = ["-trustDomain", TRUST_DOMAIN, "-bundleEndpointURL", &url, "-bundleEndpointProfile", "https_web"];
    partner.cli(&[&["federation", "create"][..], &flags].concat());
    expect_within(DEADLINE, "the bundle's client refuses it", || partner.log(), || refused(&partner.log()));
}
