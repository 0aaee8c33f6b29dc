//! Federation with a trust domain of SPIRE's: both directions, both profiles, both makes of agents, and workloads that verify each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::pb::workload::X509svidResponse;
use ironroot_api::tls::{
    ClientTrust, KeyExchanges, ServerTrust, SvidResolver, TrustAnchors, client_config, provider, server_config,
};
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within, free_port,
};
use ironroot_lab::spire::{SpireAgent, SpireServer, Times};
use ironroot_lab::web_certificate::WebCertificate;
use ironroot_lab::workload_client;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const PARTNER: &str = "partner.example";
const TIMES: Times = Times { ca: "1h", agent: "10m", x509_svid: "5m" };

/// Our server of the lab's trust domain, and SPIRE's of the partner's, which federate with each other.
struct Pair {
    ours: Server,
    theirs: SpireServer,
    _web: WebCertificate,
}

/// Which profile each endpoint has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Profile {
    Spiffe,
    Web,
}

impl Pair {
    fn start(profile: Profile) -> Self {
        let (web, our_port, their_port) = (WebCertificate::new(), free_port(), free_port());
        let shown = match profile {
            Profile::Spiffe => "profile \"https_spiffe\" { }".to_owned(),
            Profile::Web => format!("profile \"https_web\" {{ {} }}", web.block()),
        };
        let lines = |port: u16, with: &str, at: u16| {
            let proven = match profile {
                Profile::Spiffe => {
                    format!("\"https_spiffe\" {{ endpoint_spiffe_id = \"spiffe://{with}/spire/server\" }}")
                }
                Profile::Web => "\"https_web\" { }".to_owned(),
            };
            format!(
                "federation {{
                    bundle_endpoint {{ address = \"127.0.0.1\" port = {port} {shown} }}
                    federates_with \"{with}\" {{
                        bundle_endpoint_url = \"https://localhost:{at}\"
                        bundle_endpoint_profile {proven}
                    }}
                }}"
            )
        };
        let environment = vec![("SSL_CERT_FILE".to_owned(), web.authority())];
        let server_lines = lines(our_port, PARTNER, their_port);
        let ours =
            Server::start(&ServerOptions { server_lines, environment: environment.clone(), ..Default::default() });
        let server_lines = lines(their_port, TRUST_DOMAIN, our_port);
        let theirs = SpireServer::start_in(PARTNER, TIMES, (&server_lines, ""), &environment);
        let pair = Self { ours, theirs, _web: web };
        if profile == Profile::Spiffe {
            pair.introduce();
        }
        pair.expect_bundles();
        pair
    }

    /// The first bundle of each goes by hand, in SPIFFE's format.
    fn introduce(&self) {
        let theirs = self.spires(&["bundle", "show", "-format", "spiffe"]);
        let file = self.ours.directory().join("theirs.json");
        std::fs::write(&file, theirs).expect("written");
        let id = format!("spiffe://{PARTNER}");
        self.ours.cli(&["bundle", "set", "-id", &id, "-format", "spiffe", "-path", file.to_str().expect("text")]);
        let file = self.ours.directory().join("ours.json");
        std::fs::write(&file, self.ours.cli(&["bundle", "show", "-format", "spiffe"])).expect("written");
        let id = format!("spiffe://{TRUST_DOMAIN}");
        self.spires(&["bundle", "set", "-id", &id, "-format", "spiffe", "-path", file.to_str().expect("text")]);
    }

    fn spires(&self, arguments: &[&str]) -> String {
        let output = self.theirs.cli_output(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}\n{}", self.theirs.log());
        String::from_utf8(output.stdout).expect("text")
    }

    fn expect_bundles(&self) {
        self.ours.cli(&["federation", "list"]);
        let have = || self.ours.log().contains("Bundle refreshed") && self.theirs.log().contains("Bundle refreshed");
        let patience = DEADLINE + Duration::from_secs(70);
        expect_within(patience, "each has fetched the other's bundle", || self.theirs.log() + &self.ours.log(), have);
    }
}

fn uid() -> String {
    format!("unix:uid:{}", nix::unistd::geteuid())
}

fn entry(trust_domain: &str, with: &str) -> Vec<String> {
    let id = |path: &str| format!("spiffe://{trust_domain}{path}");
    let with = format!("spiffe://{with}");
    let words = ["entry", "create", "-parentID", &id("/node"), "-spiffeID", &id("/app"), "-selector", &uid()];
    words.into_iter().map(str::to_owned).chain(["-federatesWith".to_owned(), with]).collect()
}

/// What this process is served once the bundle of the other trust domain is among it.
fn federated(runtime: &Runtime, socket: &std::path::Path, other: &str, log: &dyn Fn() -> String) -> X509svidResponse {
    let mut got = None;
    let key = format!("spiffe://{other}");
    let asked = || {
        let answer = runtime.block_on(workload_client::first_svid(socket, Instant::now(), Duration::from_secs(5)));
        got = answer.ok().map(|(answer, ..)| answer).filter(|answer| answer.federated_bundles.contains_key(&key));
        got.is_some()
    };
    expect_within(DEADLINE, "the bundle of the other trust domain is served", log, asked);
    got.expect("served")
}

fn anchors(trust_domain: &str, concatenated: &[u8]) -> Arc<TrustAnchors> {
    let certificates = ironroot_api::certificate::Certificate::parse_concatenated(concatenated).expect("DER");
    let ders: Vec<CertificateDer<'static>> = certificates.iter().map(|c| c.der().clone()).collect();
    TrustAnchors::new(TrustDomain::new(trust_domain).expect("legal"), &ders).expect("authorities")
}

fn shown(answer: &X509svidResponse) -> Arc<SvidResolver> {
    let chain = ironroot_api::certificate::Certificate::parse_concatenated(&answer.svids[0].x509_svid).expect("DER");
    let chain = chain.iter().map(|c| c.der().clone()).collect();
    let key = PrivateKeyDer::Pkcs8(answer.svids[0].x509_svid_key.to_vec().into());
    SvidResolver::new(CertifiedKey::from_der(chain, key, &provider()).expect("a pair"))
}

/// One end listens and the other dials, each proven by what the other's agent serves of its trust domain.
async fn meet(listener: (&str, &X509svidResponse), dialer: (&str, &X509svidResponse)) {
    let believed = |of: &str, by: &X509svidResponse| anchors(of, &by.federated_bundles[&format!("spiffe://{of}")]);
    let accepts =
        server_config(ClientTrust::new(believed(dialer.0, listener.1)), shown(listener.1), KeyExchanges::default());
    let expected = SpiffeId::parse(&listener.1.svids[0].spiffe_id).expect("legal");
    let trust = ServerTrust::Bundle { anchors: believed(listener.0, dialer.1), expected };
    let dials = client_config(trust, shown(dialer.1), KeyExchanges::default());
    let (one, other) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("workload").expect("a constant legal name");
    let (accepted, dialled) =
        tokio::join!(TlsAcceptor::from(accepts).accept(one), TlsConnector::from(dials).connect(name, other));
    let accepted = accepted.expect("the dialler is proven");
    dialled.expect("the listener is proven");
    assert!(accepted.get_ref().1.peer_certificates().is_some(), "both have shown a certificate");
}

fn token(json: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    json["value"].as_str().expect("a token").to_owned()
}

/// Workloads of both trust domains verify each other, whichever agent serves them.
fn workloads_meet(pair: &Pair) {
    let runtime = Runtime::new().expect("runtime");
    let ours_entry = entry(TRUST_DOMAIN, PARTNER);
    pair.ours.cli(&ours_entry.iter().map(String::as_str).collect::<Vec<_>>());
    let theirs_entry = entry(PARTNER, TRUST_DOMAIN);
    pair.spires(&theirs_entry.iter().map(String::as_str).collect::<Vec<_>>());
    let generate = |domain: &str| {
        ["token", "generate", "-output", "json", "-spiffeID"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("spiffe://{domain}/node")])
            .collect::<Vec<_>>()
    };
    let words = |words: &[String]| words.iter().map(String::as_str).map(str::to_owned).collect::<Vec<String>>();
    let our_tokens = [(); 2].map(|()| {
        let arguments = words(&generate(TRUST_DOMAIN));
        token(&pair.ours.cli(&arguments.iter().map(String::as_str).collect::<Vec<_>>()))
    });
    let their_tokens = [(); 2].map(|()| {
        let arguments = words(&generate(PARTNER));
        token(&pair.spires(&arguments.iter().map(String::as_str).collect::<Vec<_>>()))
    });
    // On our server: SPIRE's agent and ours. On SPIRE's: ours and SPIRE's.
    let mut spires_on_ours = SpireAgent::new();
    spires_on_ours.provision(&pair.ours.bundle_pem(), pair.ours.port());
    spires_on_ours.start(Some(&our_tokens[0]));
    let mut spires_on_theirs = SpireAgent::new().in_trust_domain(PARTNER);
    let their_pem = pair.spires(&["bundle", "show"]);
    spires_on_theirs.provision(&their_pem, pair.theirs.port());
    spires_on_theirs.start(Some(&their_tokens[0]));
    let ours = |bundle: &str, port: u16, join_token: &str, trust_domain: &'static str| {
        let mut device = Device::without_tpm();
        let join_token = Some(join_token.to_owned());
        let options = AgentOptions { join_token, trust_domain, key_manager: "disk", ..AgentOptions::default() };
        device.provision_with_bundle(bundle, port, &options);
        device.start();
        device
    };
    let ours_on_ours = ours(&pair.ours.bundle_pem(), pair.ours.port(), &our_tokens[1], TRUST_DOMAIN);
    let ours_on_theirs = ours(&their_pem, pair.theirs.port(), &their_tokens[1], PARTNER);
    let of_ours = [
        federated(&runtime, &spires_on_ours.socket(), PARTNER, &|| spires_on_ours.log()),
        federated(&runtime, &ours_on_ours.socket(), PARTNER, &|| ours_on_ours.log()),
    ];
    let of_theirs = [
        federated(&runtime, &spires_on_theirs.socket(), TRUST_DOMAIN, &|| spires_on_theirs.log()),
        federated(&runtime, &ours_on_theirs.socket(), TRUST_DOMAIN, &|| ours_on_theirs.log()),
    ];
    for (mine, theirs) in of_ours.iter().flat_map(|mine| of_theirs.iter().map(move |theirs| (mine, theirs))) {
        runtime.block_on(meet((TRUST_DOMAIN, mine), (PARTNER, theirs)));
        runtime.block_on(meet((PARTNER, theirs), (TRUST_DOMAIN, mine)));
    }
}

//= FED-06
#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn trust_domains_federate_by_spiffe_ids_and_workloads_of_both_makes_agents_meet() {
    workloads_meet(&Pair::start(Profile::Spiffe));
}

//= FED-06
#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn trust_domains_federate_by_certificates_of_the_web() {
    let pair = Pair::start(Profile::Web);
    assert!(pair.ours.cli(&["bundle", "list"]).contains(PARTNER));
    assert!(pair.spires(&["bundle", "list"]).contains(TRUST_DOMAIN));
}
