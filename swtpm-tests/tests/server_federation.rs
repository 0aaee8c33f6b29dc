//! Servers of two trust domains that federate with each other, and what strangers meet at a bundle endpoint.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ironroot_api::bundle::Bundle;
use ironroot_api::tls::KeyExchanges;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN, expect_within, free_port};
use ironroot_lab::server_client::ServerClient;
use ironroot_server::bundle_client::fetch::{DEADLINE as FETCH_DEADLINE, EndpointProof, fetch};
use ironroot_server::facts::federation::EndpointUrl;
use rustls_pki_types::CertificateDer;

const PARTNER: &str = "partner.example";

/// A server with a bundle endpoint, and its port.
fn with_endpoint(trust_domain: &'static str, more: &str) -> (Server, u16) {
    let port = free_port();
    let server_lines = format!(
        "federation {{ bundle_endpoint {{ address = \"127.0.0.1\" port = {port} refresh_hint = \"2m\" profile \"https_spiffe\" {{ }} }} {more} }}"
    );
    (Server::start(&ServerOptions { trust_domain, server_lines, ..Default::default() }), port)
}

fn federates_with(trust_domain: &str, port: u16) -> String {
    format!(
        "federates_with \"{trust_domain}\" {{
            bundle_endpoint_url = \"https://localhost:{port}/\"
            bundle_endpoint_profile \"https_spiffe\" {{ endpoint_spiffe_id = \"spiffe://{trust_domain}/spire/server\" }}
        }}"
    )
}

fn create(server: &Server, trust_domain: &str, port: u16) {
    let url = format!("https://localhost:{port}/");
    let id = format!("spiffe://{trust_domain}/spire/server");
    let flags = ["federation", "create", "-trustDomain", trust_domain, "-bundleEndpointURL", &url];
    server.cli(&[&flags[..], &["-bundleEndpointProfile", "https_spiffe", "-endpointSpiffeID", &id]].concat());
}

fn set_bundle(server: &Server, trust_domain: &str, pem: &str) {
    let file = server.directory().join("partner.pem");
    std::fs::write(&file, pem).expect("written");
    let id = format!("spiffe://{trust_domain}");
    server.cli(&["bundle", "set", "-id", &id, "-path", file.to_str().expect("text")]);
}

fn held(server: &Server, trust_domain: &str) -> String {
    let id = format!("spiffe://{trust_domain}");
    let output = server.cli_output(&["bundle", "list", "-id", &id, "-format", "spiffe"]);
    String::from_utf8(output.stdout).expect("text")
}

//= FED-01 FED-06 FED-09 FED-12
#[tokio::test]
async fn the_endpoint_shows_the_newest_bundle_to_whoever_asks_without_a_certificate() {
    let (server, port) = with_endpoint(TRUST_DOMAIN, "");
    let client = ServerClient::new(&server).await;
    let id = SpiffeId::parse(&format!("spiffe://{TRUST_DOMAIN}/spire/server")).expect("legal");
    let pem = ironroot_api::certificate::Certificate::parse_pem(&server.bundle_pem()).expect("PEM");
    let authorities: Vec<CertificateDer<'static>> = pem.iter().map(|authority| authority.der().clone()).collect();
    let proof = EndpointProof::spiffe(id, &authorities, KeyExchanges::default()).expect("authorities");
    let url = |path: &str| EndpointUrl::parse(&format!("https://localhost:{port}{path}")).expect("legal");
    let document = fetch(&url("/"), &proof, FETCH_DEADLINE).await.expect("fetched");
    let read = Bundle::from_document(TrustDomain::new(TRUST_DOMAIN).expect("legal"), &document).expect("a bundle");
    assert_eq!((read.passed_over, read.bundle.refresh_hint_seconds()), (0, 120));
    let shown: serde_json::Value =
        serde_json::from_str(&server.cli(&["bundle", "show", "-format", "spiffe"])).expect("JSON");
    let served: serde_json::Value = serde_json::from_slice(&document).expect("JSON");
    assert_eq!((&served["keys"], &served["spiffe_sequence"]), (&shown["keys"], &shown["spiffe_sequence"]));
    assert!(served["keys"].as_array().is_some_and(|keys| keys.iter().any(|key| key["use"] == "jwt-svid")), "{served}");
    let missing = fetch(&url("/other"), &proof, FETCH_DEADLINE).await.expect_err("no such path");
    assert_eq!(missing.to_string(), "unexpected status 404 fetching bundle");
    drop(client);
}

#[test]
fn connections_that_say_nothing_keep_nobody_from_the_endpoint() {
    let (server, port) = with_endpoint(TRUST_DOMAIN, "");
    let (other, _) = with_endpoint(PARTNER, "");
    let idle: Vec<TcpStream> = (0..300).filter_map(|_| TcpStream::connect(("127.0.0.1", port)).ok()).collect();
    let mut plain = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    plain.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "nothing is answered without TLS");
    set_bundle(&other, TRUST_DOMAIN, &server.bundle_pem());
    create(&other, TRUST_DOMAIN, port);
    let refreshed = || other.cli_output(&["federation", "refresh", "-id", TRUST_DOMAIN]).status.success();
    // Connections of one address are bounded; those that are two seconds old give way.
    expect_within(DEADLINE, "the endpoint answers", || server.log(), refreshed);
    drop(idle);
}

//= FED-03 FED-12
#[test]
fn two_servers_keep_each_others_bundles_current() {
    let (ours, our_port) = with_endpoint(TRUST_DOMAIN, "");
    let (theirs, their_port) = with_endpoint(PARTNER, &federates_with(TRUST_DOMAIN, our_port));
    // Nobody can be proven yet: it is said once, and the bundle is fetched as soon as there is a first one.
    let waits = || theirs.log().contains("local copy of bundle not found");
    expect_within(DEADLINE, "there is nothing to prove the endpoint by", || theirs.log(), waits);
    set_bundle(&theirs, TRUST_DOMAIN, &ours.bundle_pem());
    let fetched = || held(&theirs, TRUST_DOMAIN).contains("\"spiffe_refresh_hint\": 120");
    expect_within(DEADLINE, "the bundle is fetched", || theirs.log(), fetched);
    assert!(theirs.log().contains("Bundle refreshed"), "{}", theirs.log());
    assert_eq!(theirs.cli(&["federation", "list"]), "Found 0 federation relationships\n", "it is the configuration's");

    create(&ours, PARTNER, their_port);
    let unproven = ours.cli_output(&["federation", "refresh", "-id", PARTNER]);
    assert!(!unproven.status.success());
    assert!(String::from_utf8_lossy(&unproven.stderr).contains("failed to refresh bundle: "), "{unproven:?}");
    set_bundle(&ours, PARTNER, &theirs.bundle_pem());
    assert_eq!(ours.cli(&["federation", "refresh", "-id", PARTNER]), "Bundle refreshed\n");
    assert!(held(&ours, PARTNER).contains("jwt-svid"));
    let nobody = ours.cli_output(&["federation", "refresh", "-id", "nobody.example"]);
    let said = String::from_utf8_lossy(&nobody.stderr);
    assert!(said.contains("there is no federation relationship with trust domain \"nobody.example\""), "{said}");

    ours.cli(&["federation", "delete", "-id", PARTNER]);
    let over = || ours.log().contains("Trust domain no longer managed");
    expect_within(DEADLINE, "it is fetched no more", || ours.log(), over);
    assert!(held(&ours, PARTNER).contains("jwt-svid"), "what is held stays");
}
