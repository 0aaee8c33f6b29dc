//! A mesh as Istio is one: its own code takes our bundle from the endpoint, and its root is taken by us from one; workloads of both meet.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::workload::X509svidResponse;
use ironroot_api::tls::{
    ClientTrust, KeyExchanges, ServerTrust, SvidResolver, TrustAnchors, client_config, provider, server_config,
};
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within, free_port,
};
use ironroot_lab::stand_in_web::{StandInWeb, answer};
use ironroot_lab::toy_ca::{ToyCa, ToySvid};
use ironroot_lab::web_certificate::WebCertificate;
use ironroot_lab::workload_client;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const MESH: &str = "cluster.local";
/// Istio takes no other form of IDs.
const APP: &str = "/ns/default/sa/app";
const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";

/// Our server, whose endpoint is proven by a certificate of the web's, and an agent of it; the mesh's bundle is at a stand-in's.
struct Lab {
    web: WebCertificate,
    mesh: StandInWeb,
    server: Server,
    device: Device,
    port: u16,
    runtime: Runtime,
}

impl Lab {
    fn new(mesh_bundle: &str) -> Self {
        let (web, port) = (WebCertificate::new(), free_port());
        let mesh = StandInWeb::start(&web, vec![answer(mesh_bundle)]);
        let server_lines = format!(
            "root {{ enabled = false }}
            federation {{
                bundle_endpoint {{ address = \"127.0.0.1\" port = {port} profile \"https_web\" {{ {} }} }}
                federates_with \"{MESH}\" {{
                    bundle_endpoint_url = \"https://localhost:{}/\"
                    bundle_endpoint_profile \"https_web\" {{ }}
                }}
            }}",
            web.block(),
            mesh.port()
        );
        let environment = vec![("SSL_CERT_FILE".to_owned(), web.authority())];
        let server = Server::start(&ServerOptions { server_lines, environment, ..Default::default() });
        let fetched = || server.log().contains("Bundle refreshed");
        expect_within(DEADLINE, "the mesh's bundle is taken", || server.log(), fetched);
        let id = |path: &str| format!("spiffe://{TRUST_DOMAIN}{path}");
        let with = format!("spiffe://{MESH}");
        let selector = format!("unix:uid:{}", nix::unistd::geteuid());
        let entry = ["entry", "create", "-parentID", &id("/node"), "-spiffeID", &id(APP), "-selector", &selector];
        server.cli(&[&entry[..], &["-federatesWith", &with]].concat());
        let token: Value =
            serde_json::from_str(&server.cli(&["token", "generate", "-output", "json", "-spiffeID", &id("/node")]))
                .expect("JSON");
        let mut device = Device::without_tpm();
        let join_token = token["value"].as_str().map(str::to_owned);
        device.provision(&server, &AgentOptions { join_token, key_manager: "disk", ..AgentOptions::default() });
        device.start();
        Self { web, mesh, server, device, port, runtime: Runtime::new().expect("runtime") }
    }

    /// What our workload is served once `fits` says that it is that.
    fn served(&self, claim: &str, fits: impl Fn(&X509svidResponse) -> bool) -> X509svidResponse {
        let mut got = None;
        let socket = self.device.socket();
        let asked = || {
            let first = workload_client::first_svid(&socket, Instant::now(), Duration::from_secs(5));
            got = self.runtime.block_on(first).ok().map(|(answer, ..)| answer).filter(&fits);
            got.is_some()
        };
        expect_within(DEADLINE, claim, || format!("{}\n{}", self.device.log(), self.server.log()), asked);
        got.expect("served")
    }

    /// What Istio's own code says of our endpoint, and of a peer's chain by what it took there.
    fn istio(&self, chain: &str) -> Output {
        let file = self.server.directory().join("chain.pem");
        std::fs::write(&file, chain).expect("written");
        let mut command = Command::new(istio());
        command.arg(TRUST_DOMAIN).arg(format!("https://localhost:{}", self.port)).arg(self.web.authority()).arg(file);
        command.output().expect("it starts")
    }
}

/// `swtpm-tests/clients/istio`, as `scripts/setup --tests` has built it.
fn istio() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/go/bin/istio");
    assert!(path.exists(), "{} is missing: run scripts/setup --tests", path.display());
    path
}

/// A bundle with roots alone, as a mesh has it: no key for JWT-SVIDs.
fn mesh_bundle(roots: &[&ToyCa], sequence: u64) -> String {
    let (base64, base64url) =
        (base64::engine::general_purpose::STANDARD, base64::engine::general_purpose::URL_SAFE_NO_PAD);
    let key = |root: &&ToyCa| {
        let spki = Certificate::parse(root.der()).expect("a certificate").spki_der();
        let point = &spki[spki.len() - 64..];
        json!({ "use": "x509-svid", "kty": "EC", "crv": "P-256", "x": base64url.encode(&point[..32]),
            "y": base64url.encode(&point[32..]), "x5c": [base64.encode(root.der())] })
    };
    let keys: Vec<Value> = roots.iter().map(key).collect();
    json!({ "keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": 2_419_200 }).to_string()
}

fn pem(chain: &[Certificate]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD;
    let block =
        |der: &[u8]| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64.encode(der));
    chain.iter().map(|certificate| block(certificate.der())).collect()
}

fn chain(answer: &X509svidResponse) -> Vec<Certificate> {
    Certificate::parse_concatenated(&answer.svids[0].x509_svid).expect("DER")
}

fn anchors(of: &str, concatenated: &[u8]) -> Arc<TrustAnchors> {
    let authorities = Certificate::parse_concatenated(concatenated).expect("DER");
    let ders: Vec<CertificateDer<'static>> = authorities.iter().map(|authority| authority.der().clone()).collect();
    TrustAnchors::new(TrustDomain::new(of).expect("legal"), &ders).expect("authorities")
}

fn shown(chain: Vec<CertificateDer<'static>>, pkcs8: Vec<u8>) -> Arc<SvidResolver> {
    let key = PrivateKeyDer::Pkcs8(pkcs8.into());
    SvidResolver::new(CertifiedKey::from_der(chain, key, &provider()).expect("a pair"))
}

/// Whether our workload, which listens, and one of the mesh's that `root` signed for meet in mutual TLS.
async fn meet(ours: &X509svidResponse, root: &ToyCa) -> bool {
    let (leaf, key) = root.identity(&ToySvid::new(REVIEWS, 600));
    let ours_shown = shown(chain(ours).iter().map(|c| c.der().clone()).collect(), ours.svids[0].x509_svid_key.to_vec());
    let believed = anchors(MESH, &ours.federated_bundles[&format!("spiffe://{MESH}")]);
    let accepts = server_config(ClientTrust::new(believed), ours_shown, KeyExchanges::default());
    let expected = SpiffeId::parse(&ours.svids[0].spiffe_id).expect("legal");
    let trust = ServerTrust::Bundle { anchors: anchors(TRUST_DOMAIN, &ours.svids[0].bundle), expected };
    let dials = client_config(trust, shown(vec![leaf], key.serialize_der()), KeyExchanges::default());
    let (one, other) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("workload").expect("a constant legal name");
    let (accepted, _) =
        tokio::join!(TlsAcceptor::from(accepts).accept(one), TlsConnector::from(dials).connect(name, other));
    accepted.is_ok_and(|stream| stream.get_ref().1.peer_certificates().is_some())
}

#[test]
fn istios_own_code_takes_our_bundle_of_several_roots_and_believes_our_workloads_through_a_rotation_and_nobody_else() {
    let root = ToyCa::new(MESH);
    let lab = Lab::new(&mesh_bundle(&[&root], 1));
    let first = lab.served("an identity", |answer| !answer.svids.is_empty());
    let prepared: Value =
        serde_json::from_str(&lab.server.cli(&["localauthority", "x509", "prepare", "-output", "json"])).expect("JSON");
    let taken = lab.istio(&pem(&chain(&first)));
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    // Istio's code logs there too.
    let said = String::from_utf8_lossy(&taken.stdout);
    assert!(said.lines().any(|line| line == "2"), "the root that signs and the next: {said}");
    let next = prepared["prepared_authority"]["authority_id"].as_str().expect("an ID");
    lab.server.cli(&["localauthority", "x509", "activate", "-authorityID", next]);
    let next = format!("spiffe://{TRUST_DOMAIN}/ns/default/sa/next");
    let directory = lab.server.directory().to_str().expect("UTF-8");
    lab.server.cli(&["x509", "mint", "-spiffeID", &next, "-write", directory]);
    let minted = std::fs::read_to_string(lab.server.directory().join("svid.pem")).expect("written");
    let taken = lab.istio(&minted);
    assert!(taken.status.success(), "of the new root: {}", String::from_utf8_lossy(&taken.stderr));

    let stranger = ToyCa::new(TRUST_DOMAIN);
    let (leaf, _) = stranger.identity(&ToySvid::new(&format!("spiffe://{TRUST_DOMAIN}{APP}"), 600));
    let refused = lab.istio(&pem(&[Certificate::parse(&leaf).expect("a certificate")]));
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
}

#[test]
fn a_mesh_whose_bundle_has_roots_alone_is_taken_and_followed_through_a_change_of_its_root() {
    let (root, next) = (ToyCa::new(MESH), ToyCa::new(MESH));
    let lab = Lab::new(&mesh_bundle(&[&root], 7));
    let key = format!("spiffe://{MESH}");
    let roots = |answer: &X509svidResponse| {
        answer
            .federated_bundles
            .get(&key)
            .map_or(0, |bundle| Certificate::parse_concatenated(bundle).map_or(0, |all| all.len()))
    };
    let ours = lab.served("the mesh's bundle", |answer| roots(answer) == 1);
    assert!(lab.runtime.block_on(meet(&ours, &root)));
    assert!(!lab.runtime.block_on(meet(&ours, &next)), "nobody has said yet that this root counts");
    lab.mesh.say(answer(&mesh_bundle(&[&root, &next], 8)));
    lab.server.cli(&["federation", "refresh", "-id", MESH]);
    let ours = lab.served("both roots", |answer| roots(answer) == 2);
    assert!(lab.runtime.block_on(meet(&ours, &root)) && lab.runtime.block_on(meet(&ours, &next)));
    // The old root is gone from the newest bundle, and does not come back by an older one.
    lab.mesh.say(answer(&mesh_bundle(&[&next], 9)));
    lab.server.cli(&["federation", "refresh", "-id", MESH]);
    let ours = lab.served("the new root alone", |answer| roots(answer) == 1);
    assert!(!lab.runtime.block_on(meet(&ours, &root)) && lab.runtime.block_on(meet(&ours, &next)));
    lab.mesh.say(answer(&mesh_bundle(&[&root, &next], 8)));
    assert!(!lab.server.cli_output(&["federation", "refresh", "-id", MESH]).status.success());
    let listed = lab.server.cli(&["bundle", "list", "-id", &key, "-format", "spiffe"]);
    assert_eq!(listed.matches("x509-svid").count(), 1, "{listed}");
}
