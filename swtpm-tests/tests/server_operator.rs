//! What an operator asks of a running server beside its registry: SVIDs without an entry, the log's level, what it is.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::svid::MintX509svidRequest;
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_lab::deployment::{Server, ServerOptions, TRUST_DOMAIN};
use ironroot_lab::server_client::{ServerClient, csr, key};
use serde_json::Value;
use tonic::Code;

fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

fn pem(path: &Path) -> Vec<Certificate> {
    Certificate::parse_pem(&std::fs::read_to_string(path).expect("written")).expect("certificates")
}

#[test]
fn an_svid_is_minted_without_an_entry_and_written_with_its_key_as_the_owners_alone() {
    let server = Server::start(&ServerOptions::default());
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().to_str().expect("text");
    let web = id("/web");
    let names = ["-dns", "web.example.org", "-dns", "*.web.example.org"];
    let command = ["x509", "mint", "-spiffeID", &web, "-ttl", "90s", "-write", place];
    let said = server.cli(&[&command[..], &names].concat());
    assert!(said.contains(&format!("X509-SVID written to {place}/svid.pem\nPrivate key written to")), "{said}");
    let chain = pem(&directory.path().join("svid.pem"));
    let leaf = chain.first().expect("a leaf");
    assert_eq!(leaf.leaf_spiffe_id().expect("one").as_str(), web);
    assert!((90..=110).contains(&(leaf.not_after_unix() - leaf.not_before_unix())), "the life that was asked for");
    let key = directory.path().join("key.pem");
    assert_eq!(std::fs::metadata(&key).expect("there").permissions().mode() & 0o777, 0o600);
    let key = der::pem::decode_vec(&std::fs::read(key).expect("read")).expect("PEM").1;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key).expect("PKCS#8");
    assert!(leaf.spki_der().ends_with(key.public_key().as_ref()), "the key is the certificate's");
    let root = pem(&directory.path().join("bundle.pem"));
    assert_eq!(chain.last().expect("a CA").authority_key_id(), root.last().expect("a root").subject_key_id());
    let lines = server.log();
    assert!(lines.contains("method=\"MintX509SVID\"") && lines.contains(&web), "{lines}");
}

#[test]
fn a_life_that_the_ca_cuts_short_is_told_and_what_may_not_be_minted_is_refused_by_name() {
    let server = Server::start(&ServerOptions { ca_ttl: "10m", ..ServerOptions::default() });
    let web = id("/web");
    let output = server.cli_output(&["x509", "mint", "-spiffeID", &web, "-ttl", "10h", "-output", "json"]);
    let (answer, said) = (output.stdout, String::from_utf8(output.stderr).expect("text"));
    assert!(said.contains("X509-SVID lifetime was capped shorter than specified ttl"), "{said}");
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    assert!(
        answer["x509_svid"][0].is_string() && answer["private_key"].is_string() && answer["root_cas"][0].is_string()
    );
    for (asked, dns, words) in [
        (id("/spire/server"), "a", "path is in the reserved namespace"),
        (id(""), "a", "CSR URI SAN is invalid"),
        ("spiffe://other.example/web".to_owned(), "a", "CSR URI SAN is invalid"),
        (web.clone(), "a b", "CSR DNS name is invalid"),
    ] {
        let output = server.cli_output(&["x509", "mint", "-spiffeID", &asked, "-dns", dns]);
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(!output.status.success() && said.contains(words), "{asked}: {said}");
    }
}

#[tokio::test]
async fn a_request_without_proof_of_its_key_mints_nothing() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let mut svids = SvidClient::new(client.admin().await);
    let mut mint = async |csr: Vec<u8>| {
        let answer = svids.mint_x509svid(MintX509svidRequest { csr: csr.into(), ttl: 0 }).await;
        answer.map(drop).expect_err("refused")
    };
    let mut forged = csr(&key(), &[rcgen::SanType::URI(id("/web").as_str().try_into().expect("ASCII"))]);
    *forged.last_mut().expect("bytes") ^= 1;
    for (request, words) in [
        (Vec::new(), "missing CSR"),
        (vec![0x30, 0], "malformed CSR"),
        (forged, "failed to verify CSR signature"),
        (csr(&key(), &[]), "CSR URI SAN is required"),
    ] {
        let status = mint(request).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(words), "{status}");
    }
}

#[test]
fn a_running_server_logs_as_much_as_it_is_told_to() {
    let server = Server::start(&ServerOptions::default());
    let launch = server.cli(&["logger", "get"]);
    let level =
        launch.lines().nth(1).and_then(|line| line.strip_prefix("Launch Level : ")).expect("a level").to_owned();
    assert!(launch.contains(&format!("Logger Level : {level}\n")), "{launch}");
    let set = server.cli(&["logger", "set", "-level", "error", "-output", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&set).expect("JSON")["current_level"], "ERROR");
    assert!(server.log().contains("method=\"SetLogLevel\""), "who made it quiet is in the log\n{}", server.log());
    server.cli(&["token", "generate"]);
    assert!(!server.log().contains("CreateJoinToken"), "{}", server.log());
    assert_eq!(server.cli(&["logger", "reset"]), launch);
    server.cli(&["token", "generate"]);
    assert!(server.log().contains("CreateJoinToken"), "{}", server.log());
    assert!(server.log().contains("method=\"ResetLogLevel\""), "and who made it talk again\n{}", server.log());
    let refused = server.cli_output(&["logger", "set", "-level", "loud"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("not a log level"));
}

#[tokio::test]
async fn debug_getinfo_counts_agents_and_entries_and_shows_the_servers_chain() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    for path in ["/a", "/b"] {
        server.create_entry(agent.id().as_str(), path, &["unix:uid:1"], &[]);
    }
    let info: Value = serde_json::from_str(&server.cli(&["debug", "getinfo", "-output", "json"])).expect("JSON");
    assert_eq!((&info["agents_count"], &info["entries_count"]), (&1.into(), &2.into()), "{info}");
    let chain = info["svid_chain"].as_array().expect("a chain");
    assert_eq!(chain[0]["id"]["path"], "/spire/server", "{info}");
    let bundle = Certificate::parse_pem(&server.bundle_pem()).expect("a bundle");
    let root = bundle[0].inner().tbs_certificate().subject().to_string();
    assert_eq!(chain.last().expect("an end")["subject"], root.as_str(), "up to the authority in the bundle: {info}");
    let text = server.cli(&["debug", "getinfo"]);
    assert!(text.contains("Registered Agents:       1\n  Registration Entries:    2\n"), "{text}");
}
