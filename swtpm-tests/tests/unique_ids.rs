//! Unique identifiers in the subjects of workloads' X.509-SVIDs (`CredentialComposer "uniqueid"`).

use ironroot_api::certificate::Certificate;
use ironroot_lab::deployment::{AgentOptions, Device, Server, ServerOptions, TRUST_DOMAIN};

fn subject(certificate: &Certificate) -> String {
    certificate.inner().tbs_certificate().subject().to_string()
}

#[test]
fn workloads_svids_and_minted_ones_have_a_unique_identifier_of_their_id() {
    let plugins = "CredentialComposer \"uniqueid\" {}".to_owned();
    let server = Server::start(&ServerOptions { plugins, ..ServerOptions::default() });
    let id = format!("spiffe://{TRUST_DOMAIN}/web");
    let minted = server.cli(&["x509", "mint", "-spiffeID", &id]);
    let minted = Certificate::parse_pem(minted.split("Private key").next().expect("a chain")).expect("PEM");

    let uid = nix::unistd::geteuid().as_raw();
    let node = format!("spiffe://{TRUST_DOMAIN}/node");
    let token = server.cli(&["token", "generate", "-spiffeID", &node, "-output", "json"]);
    let token: serde_json::Value = serde_json::from_str(&token).expect("JSON");
    server.create_entry(&node, "/web", &[&format!("unix:uid:{uid}")], &[]);
    let mut device = Device::without_tpm();
    let join_token = token["value"].as_str().map(str::to_owned);
    device.provision(&server, &AgentOptions { join_token, key_manager: "disk", ..AgentOptions::default() });
    device.start();
    let fetched = device.expect_identity(uid);

    let unique = subject(&fetched.leaves[0]);
    assert_eq!(fetched.leaves[0].inner().tbs_certificate().subject().iter_rdn().count(), 3, "{unique}");
    assert_eq!(subject(&minted[0]), unique, "it is the ID's");
}
