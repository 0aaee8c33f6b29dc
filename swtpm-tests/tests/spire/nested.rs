//! Servers in tiers: SPIRE's below ours and ours below SPIRE's, as SPIRE nests its own.

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::workload::X509svidResponse;
use ironroot_api::tls::TrustAnchors;
use ironroot_lab::deployment::{DEADLINE, TRUST_DOMAIN, expect_within};
use ironroot_lab::spire::Times;
use ironroot_lab::workload_client;

use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tokio::runtime::Runtime;
use webpki::KeyUsage;

use crate::deployment::{AnyAgent, AnyServer, Maker};

/// CAs outlive the test; SVIDs do not matter.
const TIMES: Times = Times { ca: "1h", agent: "30m", x509_svid: "10m" };
/// CAs are replaced after 50 s and sign for 100. SPIRE's agent looks at its own certificate every five seconds and one that has a join token
/// does not come back without: what a CA has left when the next one takes over must last for longer than that.
const SHORT: Times = Times { ca: "2m", agent: "40s", x509_svid: "20s" };
const AUDIENCE: &str = "https://elsewhere.example.org";

/// A server, and an agent of it whose workloads this process is.
struct Tier {
    server: AnyServer,
    agent: AnyAgent,
}

impl Tier {
    /// A tier whose server asks whoever `plugins` name for its CA, and whose entry for this process is at `path`.
    fn start(
        runtime: &Runtime,
        makers: (Maker, Maker),
        times: Times,
        plugins: &str,
        path: &str,
        more: &[&str],
    ) -> Self {
        let server = AnyServer::start_with(makers.0, times, plugins);
        let mut agent = AnyAgent::new(makers.1);
        let token = server.token(Maker::Spire);
        server.create_own_entry(Maker::Spire, path, more);
        agent.start(&server, Some(&token));
        agent.expect_identity(runtime);
        Self { server, agent }
    }

    /// The block that puts a server below this tier: this tier's agent gives it its SVID.
    fn as_upstream(&self) -> String {
        let (port, socket) = (self.server.port(), self.agent.socket());
        format!(
            "UpstreamAuthority \"spire\" {{ plugin_data {{ server_address = \"127.0.0.1\", server_port = \"{port}\", \
             workload_api_socket = \"{}\" }} }}",
            socket.display()
        )
    }

    fn bundle(&self) -> Value {
        serde_json::from_str(&self.server.cli(Maker::Spire, &["bundle", "show", "-output", "json"])).expect("JSON")
    }

    fn key_ids(&self) -> Vec<String> {
        let bundle = self.bundle();
        let keys = bundle["jwt_authorities"].as_array().cloned().unwrap_or_default();
        keys.iter().map(|key| key["key_id"].as_str().expect("an ID").to_owned()).collect()
    }

    fn anchors(&self) -> std::sync::Arc<TrustAnchors> {
        let pem = self.server.cli(Maker::Spire, &["bundle", "show"]);
        let roots = Certificate::parse_pem(&pem).expect("PEM");
        let roots: Vec<_> = roots.iter().map(|root| root.der().clone()).collect();
        TrustAnchors::new(TrustDomain::new(TRUST_DOMAIN).expect("legal"), &roots).expect("authorities")
    }
}

/// The chain of the first SVID, as peers see it.
fn chain(served: &X509svidResponse) -> Vec<CertificateDer<'static>> {
    let chain = Certificate::parse_concatenated(&served.svids[0].x509_svid).expect("certificates");
    chain.iter().map(|certificate| certificate.der().clone()).collect()
}

fn assert_verifies(served: &X509svidResponse, anchors: &TrustAnchors, certificates: usize) {
    let chain = chain(served);
    assert_eq!(chain.len(), certificates);
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        anchors.verify(&chain[0], &chain[1..], usage, now_unix()).expect("it verifies under the root alone");
    }
}

/// Two tiers, each its server and its agent: SVIDs and tokens of either are good in the other.
fn two_tiers(upper: (Maker, Maker), lower: (Maker, Maker)) {
    let runtime = Runtime::new().expect("runtime");
    let upper = Tier::start(&runtime, upper, TIMES, "", "/lower", &["-downstream"]);
    let lower = Tier::start(&runtime, lower, TIMES, &upper.as_upstream(), "/app", &[]);
    let above = upper.agent.expect_identity(&runtime);
    assert_verifies(&above, &lower.anchors(), chain(&above).len());
    // One CA more; the root is in the bundles.
    assert_verifies(&lower.agent.expect_identity(&runtime), &upper.anchors(), chain(&above).len() + 1);
    let explain = || format!("{}\n{}", upper.server.log(), lower.server.log());
    expect_within(DEADLINE, "each has the keys of both", explain, || {
        let (above, below) = (upper.key_ids(), lower.key_ids());
        above.len() == 2 && below.len() == 2 && above.iter().all(|key| below.contains(key))
    });
    assert_eq!(upper.bundle()["x509_authorities"], lower.bundle()["x509_authorities"]);
    let good_in = |from: &Tier, to: &Tier, path: &str| {
        let explain = || format!("{}\n{}", from.agent.log(), to.agent.log());
        expect_within(DEADLINE, "a token of one tier is good in the other", explain, || {
            runtime.block_on(async {
                let (from, to) = (from.agent.socket(), to.agent.socket());
                let Ok(tokens) = workload_client::fetch_jwt(&from, &[AUDIENCE], "").await else { return false };
                let validated = workload_client::validate_jwt(&to, AUDIENCE, &tokens[0].svid).await;
                validated.is_ok_and(|id| id == format!("spiffe://{TRUST_DOMAIN}{path}"))
            })
        });
    };
    good_in(&lower, &upper, "/app");
    good_in(&upper, &lower, "/lower");
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn spires_server_below_ours_has_its_ca_from_ours_and_its_keys_in_our_bundle() {
    for agent in [Maker::Spire, Maker::Ironroot] {
        two_tiers((Maker::Ironroot, agent), (Maker::Spire, Maker::Spire));
    }
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_server_below_spires_has_its_ca_from_spires_and_its_keys_in_spires_bundle() {
    for agent in [Maker::Spire, Maker::Ironroot] {
        two_tiers((Maker::Spire, agent), (Maker::Ironroot, agent));
    }
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_server_below_spires_follows_the_rotations_of_both_and_goes_on_when_spires_crashes() {
    let runtime = Runtime::new().expect("runtime");
    let mut upper = Tier::start(&runtime, (Maker::Spire, Maker::Spire), SHORT, "", "/lower", &["-downstream"]);
    let lower = Tier::start(&runtime, (Maker::Ironroot, Maker::Spire), SHORT, &upper.as_upstream(), "/app", &[]);
    let mut issuers = std::collections::BTreeSet::new();
    let mut crashed = false;
    let explain = || lower.server.log();
    expect_within(DEADLINE * 4, "four CAs sign one after the other", explain, || {
        let Ok(served) = lower.agent.fetch(&runtime) else { return false };
        let chain = chain(&served);
        let roots = Certificate::parse_concatenated(&served.svids[0].bundle).expect("certificates");
        let roots: Vec<_> = roots.iter().map(|root| root.der().clone()).collect();
        let anchors = TrustAnchors::new(TrustDomain::new(TRUST_DOMAIN).expect("legal"), &roots).expect("authorities");
        anchors.verify(&chain[0], &chain[1..], KeyUsage::client_auth(), now_unix()).expect("by the bundle beside it");
        issuers.insert(chain[1].to_vec());
        if issuers.len() == 2 && !std::mem::replace(&mut crashed, true) {
            upper.server.crash();
        }
        issuers.len() == 4
    });
}

impl Tier {
    fn json(&self, arguments: &[&str]) -> Value {
        let maker = if matches!(self.server, AnyServer::Ours(_)) { Maker::Ironroot } else { Maker::Spire };
        serde_json::from_str(&self.server.cli(maker, &[arguments, &["-output", "json"]].concat())).expect("JSON")
    }

    /// Whether the roots of the bundle are tainted, those that are not first.
    fn taints(&self) -> Vec<bool> {
        let authorities = self.bundle()["x509_authorities"].as_array().cloned().unwrap_or_default();
        let mut taints: Vec<_> = authorities.iter().map(|authority| authority["tainted"] == true).collect();
        taints.sort_unstable();
        taints
    }

    /// Has another CA sign under another root, and taints the root of before; what revokes that, and the subject key ID of the new one.
    fn taint_root(&self) -> (Vec<String>, String) {
        let is_ours = matches!(self.server, AnyServer::Ours(_));
        let (noun, flag) = match is_ours {
            true => (vec!["upstreamauthority"], "-subjectKeyID"),
            false => (vec!["localauthority", "x509"], "-authorityID"),
        };
        let ask = |verb: &str, more: &[&str]| self.json(&[&noun[..], &[verb], more].concat());
        let old = text(&ask("show", &[])["active"]["authority_id"]);
        let new = text(&ask("prepare", &[])["prepared_authority"]["authority_id"]);
        ask("activate", &[flag, &new]);
        if is_ours {
            let ca = text(&self.json(&["localauthority", "x509", "prepare"])["prepared_authority"]["authority_id"]);
            self.json(&["localauthority", "x509", "activate", "-authorityID", &ca]);
        }
        ask("taint", &[flag, &old]);
        let revoke = noun.iter().copied().chain(["revoke", flag, &old]).map(str::to_owned).collect();
        (revoke, new)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Source: SPIRE, test/integration/suites/force-rotation-self-signed, steps 10 to 15, with the servers below.
fn taint_from_above(makers: [Maker; 3]) {
    let runtime = Runtime::new().expect("runtime");
    let [first, second, third] = makers;
    let top = Tier::start(&runtime, (first, first), TIMES, "", "/middle", &["-downstream"]);
    let middle = Tier::start(&runtime, (second, second), TIMES, &top.as_upstream(), "/lowest", &["-downstream"]);
    let lowest = Tier::start(&runtime, (third, third), TIMES, &middle.as_upstream(), "/app", &[]);
    let (revoke, new) = top.taint_root();
    for tier in [&middle, &lowest] {
        expect_within(DEADLINE, "the taint arrives", || tier.server.log(), || tier.taints() == [false, true]);
        let line = "Current root CA is signed by a tainted upstream authority, preparing rotation";
        assert!(tier.server.log().contains(line), "{}", tier.server.log());
        expect_within(
            DEADLINE * 2,
            "SVIDs hang on the new root",
            || tier.agent.log(),
            || {
                let Ok(served) = tier.agent.fetch(&runtime) else { return false };
                let last = Certificate::parse(chain(&served).last().expect("a chain")).expect("DER");
                last.authority_key_id().is_some_and(|id| ironroot_text::hex::hex(&id) == new)
            },
        );
    }
    top.json(&revoke.iter().map(String::as_str).collect::<Vec<_>>());
    for tier in [&top, &middle, &lowest] {
        expect_within(DEADLINE, "the old root leaves", || tier.server.log(), || tier.taints() == [false]);
        tier.agent.expect_identity(&runtime);
    }
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_server_between_spires_leaves_a_tainted_root_and_spires_below_it_does_too() {
    taint_from_above([Maker::Spire, Maker::Ironroot, Maker::Spire]);
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn spires_server_between_ours_leaves_a_tainted_root_of_ours_and_ours_below_it_does_too() {
    taint_from_above([Maker::Ironroot, Maker::Spire, Maker::Ironroot]);
}

fn now_unix() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    now.as_secs().cast_signed()
}
