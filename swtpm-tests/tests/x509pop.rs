//! Devices without a TPM that have a certificate from elsewhere.

use std::path::Path;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::denial_reason;
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::device_pki::{self, DeviceIdentity, DevicePki};
use ironroot_lab::server_client::ServerClient;
use ironroot_lab::upstream_files::UpstreamFiles;
use rcgen::SanType;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

const ALICE: u32 = 60_001;

fn server(pki: &DevicePki) -> Server {
    Server::start(&ServerOptions { plugins: pki.server_block(), ..ServerOptions::default() })
}

fn device(server: &Server, identity: &DeviceIdentity) -> Device {
    let device = Device::without_tpm();
    let node_attestor = Some(identity.agent_block());
    device.provision(server, &AgentOptions { node_attestor, key_manager: "memory", ..AgentOptions::default() });
    device
}

#[test]
fn a_device_with_a_certificate_attests_serves_and_attests_again_and_a_banned_one_does_not() {
    for (name, algorithm) in [("p256", &rcgen::PKCS_ECDSA_P256_SHA256), ("rsa", &rcgen::PKCS_RSA_SHA256)] {
        let pki = DevicePki::new();
        let (server, identity) = (server(&pki), pki.issue(name, algorithm));
        let alias = format!("spiffe://{TRUST_DOMAIN}/with-a-certificate");
        let selectors: Vec<&str> = identity.selectors.iter().map(String::as_str).collect();
        server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/spire/server"), "/with-a-certificate", &selectors, &[]);
        server.create_entry(&alias, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
        let mut device = device(&server, &identity);
        device.start();
        assert_eq!(device.expect_identity(ALICE).ids, [format!("spiffe://{TRUST_DOMAIN}/alice")]);
        assert!(server.cli(&["agent", "list"]).contains(&identity.agent_id));

        // Its own key is gone with the process, and nobody gives it a token.
        device.kill_agent();
        device.start();
        device.expect_identity(ALICE);
        server.cli(&["agent", "ban", "-spiffeID", &identity.agent_id]);
        let nothing = || device.fetch(ALICE).is_err();
        expect_within(DEADLINE, "a banned agent serves nothing", || device.log(), nothing);
    }
}

#[test]
fn with_the_key_an_agents_own_id_is_one_of_its_selectors_and_names_a_node_alias() {
    let pki = DevicePki::new();
    let identity = pki.issue("named", &rcgen::PKCS_ECDSA_P256_SHA256);
    let own = format!("spiffe_id:{}", identity.agent_id);
    let options = |server_lines: &str| ServerOptions {
        plugins: pki.server_block(),
        server_lines: server_lines.to_owned(),
        ..ServerOptions::default()
    };
    let shown = |server: &Server| server.cli(&["agent", "show", "-spiffeID", &identity.agent_id]);
    // Without the key it is none of them.
    let plain = Server::start(&options(""));
    let mut there = device(&plain, &identity);
    there.start();
    there.expect_log("agent attested");
    assert!(!shown(&plain).contains(&own), "{}", shown(&plain));
    there.kill_agent();

    let server = Server::start(&options("experimental { agent_spiffe_id_as_selector = true }"));
    let alias = format!("spiffe://{TRUST_DOMAIN}/this-one");
    server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/spire/server"), "/this-one", &[&own], &[]);
    server.create_entry(&alias, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    let mut device = device(&server, &identity);
    device.start();
    assert_eq!(device.expect_identity(ALICE).ids, [format!("spiffe://{TRUST_DOMAIN}/alice")]);
    let shown = shown(&server);
    assert!(identity.selectors.iter().chain([&own]).all(|selector| shown.contains(selector.as_str())), "{shown}");
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("a URI"))
}

#[tokio::test]
async fn an_agent_is_called_by_the_template_and_stays_the_same_when_its_certificate_is_renewed() {
    let pki = DevicePki::new();
    let template = r#"agent_path_template = "/rack/{{ .URISanSelectors.rack }}/{{ .Subject.CommonName | lower }}""#;
    let options = ServerOptions { plugins: pki.server_block_with(template), ..ServerOptions::default() };
    let server = Server::start(&options);
    let client = ServerClient::new(&server).await;
    let names = [uri(&format!("x509pop://{TRUST_DOMAIN}/rack/r1"))];
    let issue = || pki.issue_with("Device-1", &rcgen::PKCS_ECDSA_P384_SHA384, &names);
    let id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/rack/r1/device-1");
    for _ in 0..2 {
        let attested = issue().attest(&client).await.expect("attests");
        assert_eq!(attested.id().as_str(), id);
    }
    assert!(server.cli(&["agent", "show", "-spiffeID", &id]).contains("x509pop:san:rack:r1"));
    server.cli(&["agent", "ban", "-spiffeID", &id]);
    let refused = issue().attest(&client).await.map(drop).expect_err("its name is banned, whatever the certificate");
    assert_eq!(denial_reason(&refused), Some(Reason::AgentBanned), "{refused}");
    let nameless = pki.issue("device-2", &rcgen::PKCS_ECDSA_P256_SHA256);
    let refused = nameless.attest(&client).await.map(drop).expect_err("it has no rack");
    assert!(refused.message().contains("asks for .URISanSelectors.rack"), "{refused}");
    let slashed = pki.issue_with("../device-1", &rcgen::PKCS_ECDSA_P256_SHA256, &names);
    let refused = slashed.attest(&client).await.map(drop).expect_err("no path");
    assert!(refused.message().contains("no legal agent ID"), "{refused}");
}

#[tokio::test]
async fn a_certificate_is_held_against_the_address_of_its_device() {
    let pki = DevicePki::new();
    let plugins = pki.server_block_with("verify_client_ip = true\nmax_intermediates = 1");
    let server = Server::start(&ServerOptions { plugins, ..ServerOptions::default() });
    let client = ServerClient::new(&server).await.at([127, 0, 0, 9].into());
    let of = |last| pki.issue_with("device", &rcgen::PKCS_RSA_SHA256, &[SanType::IpAddress([127, 0, 0, last].into())]);
    of(9).attest(&client).await.expect("it is there");
    for elsewhere in [of(8), pki.issue("device", &rcgen::PKCS_ECDSA_P256_SHA256)] {
        let refused = elsewhere.attest(&client).await.map(drop).expect_err("another machine's");
        assert!(refused.message().contains("comes from 127.0.0.9"), "{refused}");
    }
}

fn read_pair(directory: &Path, files: [&str; 2]) -> (Vec<Vec<u8>>, PrivateKeyDer<'static>) {
    let [chain, key] = files.map(|name| std::fs::read(directory.join(name)).expect("written"));
    let chain = CertificateDer::pem_slice_iter(&chain).map(|der| der.expect("PEM").to_vec()).collect();
    (chain, PrivateKeyDer::from_pem_slice(&key).expect("PEM"))
}

/// SPIRE's mode `spiffe`: what has an SVID that a server of this data store has signed becomes an agent.
#[tokio::test]
async fn an_svid_below_the_prefix_is_exchanged_for_an_agents() {
    let plugins = "NodeAttestor \"x509pop\" { plugin_data { mode = \"spiffe\" } }".to_owned();
    let server = Server::start(&ServerOptions { plugins, ..ServerOptions::default() });
    let client = ServerClient::new(&server).await;
    let exchange = async |path: &str| {
        let directory = tempfile::tempdir().expect("directory");
        let (id, to) = (format!("spiffe://{TRUST_DOMAIN}{path}"), directory.path().to_str().expect("text"));
        server.cli(&["x509", "mint", "-spiffeID", &id, "-write", to]);
        let (chain, key) = read_pair(directory.path(), ["svid.pem", "key.pem"]);
        device_pki::attest(&client, chain, &key).await
    };
    let attested = exchange("/spire-exchange/host/one").await.expect("attests");
    assert_eq!(attested.id().as_str(), format!("spiffe://{TRUST_DOMAIN}/spire/agent/x509pop/host/one"));
    for path in ["/other/host", "/spire-exchange"] {
        let refused = exchange(path).await.map(drop).expect_err("not to be exchanged");
        assert!(refused.message().contains("does not begin with /spire-exchange/"), "{refused}");
    }
    let stranger = DevicePki::new().issue("stranger", &rcgen::PKCS_ECDSA_P256_SHA256);
    let refused = stranger.attest(&client).await.map(drop).expect_err("no SVID of ours");
    assert!(refused.message().contains("not acceptable"), "{refused}");
}

/// SVIDs that lead to the same bundle: one of a CA beside the server's, below the same root, and one that an agent fetched before its ban.
//= FLT-S26
#[tokio::test]
async fn an_svid_that_another_ca_has_signed_or_a_banned_agent_has_fetched_is_not_exchanged() {
    let upstream = UpstreamFiles::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let plugins = format!(
        "{}\nNodeAttestor \"join_token\" {{}}\nNodeAttestor \"x509pop\" {{ plugin_data {{ mode = \"spiffe\" }} }}",
        upstream.plugin()
    );
    let server = Server::start(&ServerOptions { plugins, ..ServerOptions::default() });
    let client = ServerClient::new(&server).await;
    let id = format!("spiffe://{TRUST_DOMAIN}/spire-exchange/victim");
    let (chain, key) = upstream.svid_beside(&id);
    let refused = device_pki::attest(&client, chain, &key).await.map(drop).expect_err("signed elsewhere");
    assert!(refused.message().contains("signed by another CA of the trust domain"), "{refused}");

    let token = server.cli(&["token", "generate"]);
    let token = token.split_whitespace().nth(1).expect("a token").to_owned();
    let agent = format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/{token}");
    server.create_entry(&agent, "/spire-exchange/one", &[&format!("unix:uid:{ALICE}")], &[]);
    let mut device = Device::without_tpm();
    let options = AgentOptions { join_token: Some(token), key_manager: "memory", ..AgentOptions::default() };
    device.provision(&server, &options);
    device.start();
    let (chain, key) = read_pair(&device.expect_identity(ALICE).directory, ["svid.0.pem", "svid.0.key"]);
    let exchange = || device_pki::attest(&client, chain.clone(), &key);
    exchange().await.expect("attests");
    server.cli(&["agent", "evict", "-spiffeID", &format!("spiffe://{TRUST_DOMAIN}/spire/agent/x509pop/one")]);
    server.cli(&["agent", "ban", "-spiffeID", &agent]);
    let refused = exchange().await.map(drop).expect_err("banned");
    assert!(refused.message().contains("fetched through an agent that is banned"), "{refused}");
}

#[tokio::test]
async fn a_banned_certificate_does_not_come_back_with_its_signature_written_in_another_way() {
    let pki = DevicePki::new();
    let server = server(&pki);
    let client = ServerClient::new(&server).await;
    let identity = pki.issue("device", &rcgen::PKCS_ECDSA_P256_SHA256);
    let twin = pki.sign_again(&identity);
    assert_ne!(twin.agent_id, identity.agent_id, "SPIRE's IDs differ");
    identity.attest(&client).await.expect("attests");
    let refused = twin.attest(&client).await.map(drop).expect_err("one certificate is one agent");
    assert!(refused.message().contains(&identity.agent_id) && denial_reason(&refused).is_none(), "{refused}");
    server.cli(&["agent", "ban", "-spiffeID", &identity.agent_id]);
    for form in [&twin, &identity] {
        let refused = form.attest(&client).await.map(drop).expect_err("banned");
        assert_eq!(denial_reason(&refused), Some(Reason::AgentBanned), "{refused}");
        assert!(refused.message().contains(&identity.agent_id), "{refused}");
    }
    assert!(!server.cli(&["agent", "list"]).contains(&twin.agent_id));
    server.cli(&["agent", "evict", "-spiffeID", &identity.agent_id]);
    twin.attest(&client).await.expect("the ban went with the agent");
}

#[tokio::test]
async fn a_device_has_the_name_that_a_new_template_gives_it_and_the_old_one_no_more() {
    let pki = DevicePki::new();
    let with = |template: &str| {
        let template = format!("agent_path_template = \"/{template}/{{{{ .Subject.CommonName }}}}\"");
        ServerOptions { plugins: pki.server_block_with(&template), ..ServerOptions::default() }
    };
    let mut server = Server::start(&with("old"));
    let identity = pki.issue("device", &rcgen::PKCS_ECDSA_P256_SHA256);
    identity.attest(&ServerClient::new(&server).await).await.expect("attests");
    server.reconfigure(&with("new"));
    server.restart();
    let client = ServerClient::new(&server).await;
    for _ in 0..2 {
        let attested = identity.attest(&client).await.expect("it is the same device");
        assert!(attested.id().as_str().ends_with("/spire/agent/new/device"), "{}", attested.id());
    }
    let agents = server.cli(&["agent", "list"]);
    assert!(agents.contains("/new/device") && !agents.contains("/old/device"), "{agents}");
    let id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/new/device");
    server.cli(&["agent", "ban", "-spiffeID", &id]);
    server.reconfigure(&with("third"));
    server.restart();
    let refused =
        identity.attest(&ServerClient::new(&server).await).await.map(drop).expect_err("a ban is the device's");
    assert_eq!(denial_reason(&refused), Some(Reason::AgentBanned), "{refused}");
}

/// Forty at once are more than an address may have waiting.
#[tokio::test]
async fn certificates_that_attested_before_do_so_again_at_once_although_they_share_an_address() {
    let pki = DevicePki::new();
    let options = ServerOptions { plugins: pki.server_block(), rate_limits: true, ..ServerOptions::default() };
    let server = Server::start(&options);
    let client = ServerClient::new(&server).await;
    let names = (0..40).map(|number| format!("device-{number}"));
    let fleet: Vec<_> = names.map(|name| pki.issue(&name, &rcgen::PKCS_ECDSA_P256_SHA256)).collect();
    let alone = (1..).zip(&fleet).map(|(host, device)| {
        let client = client.clone().at([127, 0, 1, host].into());
        async move { device.attest(&client).await.map(drop) }
    });
    join_all(alone).await.into_iter().for_each(|first| first.expect("attests from an address of its own"));
    let together = join_all(fleet.iter().map(|device| device.attest(&client))).await;
    together.into_iter().for_each(|again| drop(again.expect("known by its certificate")));
    // Who was never here is held to the rate of its address.
    let strangers: Vec<_> =
        (0..40).map(|number| pki.issue(&format!("new-{number}"), &rcgen::PKCS_ECDSA_P256_SHA256)).collect();
    let mut tries: FuturesUnordered<_> = strangers.iter().map(|device| device.attest(&client)).collect();
    let mut held = false;
    while let Some(tried) = tries.next().await {
        held = tried.is_err_and(|status| status.message().contains("rate limit"));
        if held {
            break;
        }
    }
    assert!(held, "{}", server.log());
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (pki, stranger) = (DevicePki::new(), DevicePki::new());
    let server = server(&pki);
    let mut device = device(&server, &stranger.issue("stranger", &rcgen::PKCS_ECDSA_P256_SHA256));
    device.start();
    device.expect_log("certificate evidence refused");
    assert!(!server.cli(&["agent", "list"]).contains("x509pop"));
}

#[test]
fn a_server_that_was_not_told_of_an_authority_takes_no_certificate() {
    let (pki, server) = (DevicePki::new(), Server::start(&ServerOptions::default()));
    let mut device = device(&server, &pki.issue("device", &rcgen::PKCS_ECDSA_P256_SHA256));
    device.start();
    device.expect_log("is not configured on this server");
}
