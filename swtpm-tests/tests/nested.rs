//! Servers in three tiers, each a workload of an agent of the tier above: `UpstreamAuthority "spire"`.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::bundle::PublishJwtAuthorityRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::types::JwtKey;
use ironroot_api::pb::workload::X509svid;
use ironroot_api::tls::{
    ClientTrust, KeyExchanges, ServerTrust, SvidResolver, TrustAnchors, client_config, provider, server_config,
};
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::server_client::{ServerClient, key};
use ironroot_lab::upstream_files::UpstreamFiles;
use ironroot_lab::workload_client;
use ironroot_server::ca::MAX_KEYS_OF_A_SERVER;
use rcgen::PublicKeyData;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use webpki::KeyUsage;

const AUDIENCE: &str = "https://elsewhere.example.org";

/// A server, and an agent of it whose workload this process is.
struct Tier {
    server: Server,
    device: Device,
    runtime: Arc<Runtime>,
}

impl Tier {
    /// A tier whose CAs live so long and are certified by whoever `plugins` name; this process is `path` there.
    fn start(runtime: &Arc<Runtime>, ca_ttl: &'static str, plugins: String, path: &str, more: &[&str]) -> Self {
        let server =
            Server::start(&ServerOptions { ca_ttl, plugins, x509_svid_ttl: "10s", ..ServerOptions::default() });
        let alias = format!("spiffe://{TRUST_DOMAIN}/node");
        let text = server.cli(&["token", "generate", "-spiffeID", &alias, "-output", "json"]);
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let join_token = Some(json["value"].as_str().expect("a token").to_owned());
        let uid = format!("unix:uid:{}", nix::unistd::geteuid());
        server.create_entry(&alias, path, &[&uid], more);
        let mut device = Device::without_tpm();
        let options = AgentOptions { join_token, key_manager: "disk", ..AgentOptions::default() };
        device.provision_with_bundle(&server.bundle_pem(), server.port(), &options);
        device.start();
        let tier = Self { server, device, runtime: runtime.clone() };
        tier.svid();
        tier
    }

    /// The block that puts a server below this tier: this tier's agent gives it its SVID.
    fn as_upstream(&self) -> String {
        let (port, socket) = (self.server.port(), self.device.socket());
        format!(
            "UpstreamAuthority \"spire\" {{ plugin_data {{ server_address = \"127.0.0.1\", server_port = \"{port}\", \
             workload_api_socket = \"{}\" }} }}",
            socket.display()
        )
    }

    fn svid(&self) -> X509svid {
        let socket = self.device.socket();
        let served = self.runtime.block_on(workload_client::first_svid(&socket, Instant::now(), DEADLINE));
        let served = served.unwrap_or_else(|status| panic!("{status}\n{}\n{}", self.device.log(), self.server.log()));
        served.0.svids.into_iter().next().expect("an SVID")
    }

    fn anchors(&self) -> Arc<TrustAnchors> {
        let roots = Certificate::parse_pem(&self.server.bundle_pem()).expect("PEM");
        let roots: Vec<_> = roots.iter().map(|root| root.der().clone()).collect();
        TrustAnchors::new(TrustDomain::new(TRUST_DOMAIN).expect("legal"), &roots).expect("authorities")
    }

    /// The certificate of the CA that has signed what is served now.
    fn issuer(&self) -> CertificateDer<'static> {
        chain(&self.svid())[1].clone()
    }

    /// Waits until another CA signs.
    fn expect_another_issuer(&self, claim: &str, before: &CertificateDer<'static>) {
        expect_within(DEADLINE * 2, claim, || self.server.log(), || self.issuer() != *before);
    }
}

fn three_tiers(ca_ttls: [&'static str; 3]) -> [Tier; 3] {
    let runtime = Arc::new(Runtime::new().expect("runtime"));
    let top = Tier::start(&runtime, ca_ttls[0], String::new(), "/middle", &["-downstream"]);
    let middle = Tier::start(&runtime, ca_ttls[1], top.as_upstream(), "/lowest", &["-downstream"]);
    let lowest = Tier::start(&runtime, ca_ttls[2], middle.as_upstream(), "/app", &[]);
    [top, middle, lowest]
}

fn chain(svid: &X509svid) -> Vec<CertificateDer<'static>> {
    let chain = Certificate::parse_concatenated(&svid.x509_svid).expect("certificates");
    chain.iter().map(|certificate| certificate.der().clone()).collect()
}

fn now_unix() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().cast_signed()
}

fn resolver(svid: &X509svid) -> Arc<SvidResolver> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.x509_svid_key.to_vec()));
    SvidResolver::new(CertifiedKey::from_der(chain(svid), key, &provider()).expect("its key"))
}

/// Whether a client with one SVID and a server with the other believe each other, each by its own bundle.
async fn shake(client: (&X509svid, Arc<TrustAnchors>), server: (&X509svid, Arc<TrustAnchors>)) -> std::io::Result<()> {
    let expected = Certificate::parse(&chain(server.0)[0]).expect("DER").leaf_spiffe_id().expect("an ID");
    let trust = ServerTrust::Bundle { anchors: client.1, expected };
    let connector = TlsConnector::from(client_config(trust, resolver(client.0), KeyExchanges::default()));
    let acceptor =
        TlsAcceptor::from(server_config(ClientTrust::new(server.1), resolver(server.0), KeyExchanges::default()));
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("workload").expect("a constant legal name");
    let (connected, accepted) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    connected.map(drop)?;
    let accepted = accepted?;
    assert!(accepted.get_ref().1.peer_certificates().is_some());
    Ok(())
}

#[test]
fn svids_of_the_lowest_tier_lead_to_the_root_of_the_top_and_workloads_of_all_tiers_believe_each_other() {
    let tiers = three_tiers(["24h", "12h", "6h"]);
    let runtime = tiers[0].runtime.clone();
    let svids = tiers.each_ref().map(Tier::svid);
    for (tier, svid) in svids.iter().enumerate() {
        let chain = chain(svid);
        assert_eq!(chain.len(), tier + 2, "a CA more for each tier");
        tiers[0]
            .anchors()
            .verify(&chain[0], &chain[1..], KeyUsage::client_auth(), now_unix())
            .expect("by the root alone");
    }
    let root = tiers[0].server.bundle_pem();
    assert!(tiers.iter().all(|tier| tier.server.bundle_pem() == root), "one root in all bundles");
    for (one, other) in [(0, 2), (2, 0), (1, 2)] {
        let (client, server) = ((&svids[one], tiers[one].anchors()), (&svids[other], tiers[other].anchors()));
        runtime.block_on(shake(client, server)).unwrap_or_else(|error| panic!("{one} to {other}: {error}"));
    }
    let good = |from: &Tier, to: &Tier| {
        runtime.block_on(async {
            let tokens = workload_client::fetch_jwt(&from.device.socket(), &[AUDIENCE], "").await;
            let Ok(tokens) = tokens else { return false };
            workload_client::validate_jwt(&to.device.socket(), AUDIENCE, &tokens[0].svid).await.is_ok()
        })
    };
    for (from, to) in [(2, 0), (0, 2), (2, 1)] {
        let explain = || format!("{}\n{}", tiers[from].server.log(), tiers[to].server.log());
        expect_within(DEADLINE, "a token is good in another tier", explain, || good(&tiers[from], &tiers[to]));
    }
    let ca = Certificate::parse(&chain(&svids[2])[1]).expect("DER");
    assert!(ca.inner().tbs_certificate().subject().to_string().contains("OU=DOWNSTREAM-2"));
}

impl Tier {
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.server.cli(&[arguments, &["-output", "json"]].concat())).expect("JSON")
    }

    /// The subject key ID of the root that the CA which signs now hangs on.
    fn root_in_use(&self) -> String {
        text(&self.json(&["localauthority", "x509", "show"])["active"]["upstream_authority_subject_key_id"])
    }

    /// Whether the roots of the bundle are tainted, those that are not first.
    fn taints(&self) -> Vec<bool> {
        let authorities = self.json(&["bundle", "show"])["x509_authorities"].as_array().cloned().unwrap_or_default();
        let mut taints: Vec<_> = authorities.iter().map(|authority| authority["tainted"] == true).collect();
        taints.sort_unstable();
        taints
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Source: SPIRE, test/integration/suites/force-rotation-self-signed, whose servers below do the same.
#[test]
fn a_root_that_the_top_taints_is_left_by_every_tier_by_itself_before_its_bundle_says_so() {
    let tiers = three_tiers(["24h", "12h", "6h"]);
    let top = &tiers[0];
    let old = text(&top.json(&["upstreamauthority", "show"])["active"]["authority_id"]);
    let new = text(&top.json(&["upstreamauthority", "prepare"])["prepared_authority"]["authority_id"]);
    top.server.cli(&["upstreamauthority", "activate", "-subjectKeyID", &new]);
    let ca = text(&top.json(&["localauthority", "x509", "prepare"])["prepared_authority"]["authority_id"]);
    top.server.cli(&["localauthority", "x509", "activate", "-authorityID", &ca]);
    assert!(tiers[1..].iter().all(|tier| tier.root_in_use() == old), "until it is tainted");
    top.server.cli(&["upstreamauthority", "taint", "-subjectKeyID", &old]);
    for tier in &tiers[1..] {
        expect_within(DEADLINE, "the taint arrives", || tier.server.log(), || tier.taints() == [false, true]);
        assert_eq!(tier.root_in_use(), new, "the CA is another one by then\n{}", tier.server.log());
        let log = tier.server.log();
        assert!(log.contains("Current root CA is signed by a tainted upstream authority, preparing rotation"), "{log}");
        expect_within(
            DEADLINE,
            "SVIDs hang on the new root",
            || tier.device.log(),
            || {
                let chain = chain(&tier.svid());
                let last = Certificate::parse(chain.last().expect("a chain")).expect("DER");
                last.authority_key_id().is_some_and(|id| ironroot_text::hex::hex(&id) == new)
            },
        );
    }
    top.server.cli(&["upstreamauthority", "revoke", "-subjectKeyID", &old]);
    for tier in &tiers {
        expect_within(DEADLINE, "the old root leaves", || tier.server.log(), || tier.taints() == [false]);
        tier.svid();
    }
}

/// Has so many servers below this one publish as many keys each as they may.
async fn publish_from_below(server: &Server, servers: usize) {
    let (client, public_key) = (ServerClient::new(server).await, key().subject_public_key_info());
    for number in 0..servers {
        let channel = client.below(server, &client.agent().await, &format!("/below-{number}")).await;
        for of_it in 0..MAX_KEYS_OF_A_SERVER {
            let (key_id, expires_at) = (format!("{number}-{of_it}"), now_unix() + 3600);
            let key = JwtKey { public_key: public_key.clone().into(), key_id, expires_at, tainted: false };
            let request = PublishJwtAuthorityRequest { jwt_authority: Some(key) };
            BundleClient::new(channel.clone()).publish_jwt_authority(request).await.expect("there is room");
        }
    }
}

#[test]
fn a_server_with_more_keys_below_it_than_the_one_above_takes_still_follows_the_taints_and_roots_above() {
    let runtime = Arc::new(Runtime::new().expect("runtime"));
    let top = Tier::start(&runtime, "24h", String::new(), "/middle", &["-downstream"]);
    let middle = Tier::start(&runtime, "12h", top.as_upstream(), "/app", &[]);
    runtime.block_on(publish_from_below(&middle.server, 2));
    let is_refused = || middle.server.log().contains("of this downstream server are in the bundle already");
    expect_within(DEADLINE, "a key too many", || middle.server.log(), is_refused);
    let old = text(&top.json(&["upstreamauthority", "show"])["active"]["authority_id"]);
    let new = text(&top.json(&["upstreamauthority", "prepare"])["prepared_authority"]["authority_id"]);
    expect_within(DEADLINE, "a new root arrives", || middle.server.log(), || middle.taints() == [false, false]);
    top.server.cli(&["upstreamauthority", "activate", "-subjectKeyID", &new]);
    let ca = text(&top.json(&["localauthority", "x509", "prepare"])["prepared_authority"]["authority_id"]);
    top.server.cli(&["localauthority", "x509", "activate", "-authorityID", &ca]);
    top.server.cli(&["upstreamauthority", "taint", "-subjectKeyID", &old]);
    expect_within(DEADLINE, "a taint arrives", || middle.server.log(), || middle.taints() == [false, true]);
    assert_eq!(middle.root_in_use(), new, "{}", middle.server.log());
    top.server.cli(&["upstreamauthority", "revoke", "-subjectKeyID", &old]);
    expect_within(DEADLINE, "the old root leaves", || middle.server.log(), || middle.taints() == [false]);
    let told = middle.server.log().matches("has not taken every key of this server").count();
    assert!((1..=2).contains(&told), "once, not each time: {told}\n{}", middle.server.log());
}

#[test]
fn a_key_of_jwt_svids_that_the_top_taints_is_tainted_in_every_tier_and_leaves_with_the_tops() {
    let tiers = three_tiers(["24h", "12h", "6h"]);
    let top = &tiers[0];
    let old = text(&top.json(&["localauthority", "jwt", "show"])["active"]["authority_id"]);
    let new = text(&top.json(&["localauthority", "jwt", "prepare"])["prepared_authority"]["authority_id"]);
    top.server.cli(&["localauthority", "jwt", "activate", "-authorityID", &new]);
    top.server.cli(&["localauthority", "jwt", "taint", "-authorityID", &old]);
    let of_the_old = |tier: &Tier| {
        let keys = tier.json(&["bundle", "show"])["jwt_authorities"].as_array().cloned().unwrap_or_default();
        keys.into_iter().find(|key| key["key_id"] == old.as_str())
    };
    for tier in &tiers {
        let is_tainted = || of_the_old(tier).is_some_and(|key| key["tainted"] == true);
        expect_within(DEADLINE, "its taint arrives", || tier.server.log(), is_tainted);
    }
    top.server.cli(&["localauthority", "jwt", "revoke", "-authorityID", &old]);
    for tier in &tiers {
        expect_within(DEADLINE, "it leaves", || tier.server.log(), || of_the_old(tier).is_none());
    }
}

#[test]
fn while_the_top_tier_is_down_the_lower_ones_go_on_and_start_again() {
    let [mut top, mut middle, mut lowest] = three_tiers(["24h", "12h", "40s"]);
    top.server.kill();
    top.device.kill_agent();
    let before = lowest.issuer();
    lowest.expect_another_issuer("the middle tier goes on certifying CAs of the lowest", &before);
    middle.server.kill();
    middle.server.restart();
    lowest.server.kill();
    lowest.server.restart();
    let before = lowest.issuer();
    lowest.expect_another_issuer("so it does after both were started anew", &before);
    let svid = chain(&lowest.svid());
    lowest.anchors().verify(&svid[0], &svid[1..], KeyUsage::client_auth(), now_unix()).expect("it verifies");

    // Now nobody certifies the lowest: it signs to its end, and says what it lacks.
    middle.server.kill();
    middle.device.kill_agent();
    let ready = || String::from_utf8_lossy(&lowest.server.cli_output(&["healthcheck", "-verbose"]).stderr).into_owned();
    let told = || ready().contains("the authority above this server has not certified its CA");
    expect_within(DEADLINE, "health checks are told", || format!("{}\n{}", ready(), lowest.server.log()), told);
    lowest.svid();
}

#[test]
fn a_server_that_never_had_a_ca_says_what_it_lacks_above_and_does_not_start() {
    let options = ServerOptions {
        plugins: "UpstreamAuthority \"spire\" { plugin_data { server_address = \"127.0.0.1\", server_port = \"1\", \
                  workload_api_socket = \"/nonexistent/api.sock\" } }"
            .to_owned(),
        ..ServerOptions::default()
    };
    let mut server = Server::prepare(&options);
    server.spawn();
    let ended = || server.log().contains("workload_api_socket names no agent that runs");
    expect_within(DEADLINE, "it says so", String::new, ended);
}

#[test]
fn a_server_below_files_has_servers_below_itself() {
    let files = UpstreamFiles::new(&rcgen::PKCS_RSA_SHA256);
    let runtime = Arc::new(Runtime::new().expect("runtime"));
    let upper = Tier::start(&runtime, "24h", files.plugin(), "/lower", &["-downstream"]);
    let lower = Tier::start(&runtime, "12h", upper.as_upstream(), "/app", &[]);
    let chain = chain(&lower.svid());
    assert_eq!(chain.len(), 4, "SVID, CA, the upper CA, the CA in the file");
    for anchors in [upper.anchors(), lower.anchors()] {
        anchors.verify(&chain[0], &chain[1..], KeyUsage::server_auth(), now_unix()).expect("by the root alone");
    }
}
