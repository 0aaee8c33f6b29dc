//! What is recorded on any link of ours today, no quantum computer reads later: the key exchange that both ends have agreed on.

use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within, free_port,
};
use ironroot_lab::key_exchange::expect_hybrid;

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
