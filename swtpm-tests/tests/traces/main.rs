//! Traces over OTLP: what a collector learns of an attestation, an issuance and a fetch, and that no collector costs an identity.

mod collector;

use std::fs;
use std::path::Path;
use std::time::Instant;

use collector::{Collector, Spans, hangs, hostile, talks_nonsense, text};
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within, free_port,
};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::metrics::{scrape, switch_on, value};
use ironroot_lab::web_certificate::WebCertificate;
use ironroot_shell::telemetry::otlp::MAX_QUEUED_SPANS;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

const ALICE: u32 = 60_001;
const SERVER: &str = "ironroot-server";
const AGENT: &str = "ironroot-agent";
const ATTEST: &str = "spire.api.server.agent.v1.Agent/AttestAgent";
const ISSUE: &str = "spire.api.server.svid.v1.SVID/BatchNewX509SVID";
const FETCH: &str = "SpiffeWorkloadAPI/FetchX509SVID";

/// Has the daemon of this configuration send its traces; `more`: further keys of the block, or blocks.
fn trace(config: &Path, endpoint: &str, more: &str) {
    let text = fs::read_to_string(config).expect("the configuration");
    let block = format!("telemetry {{ otlp {{ endpoint = \"{endpoint}\" {more} }} }}\n");
    fs::write(config, text + &block).expect("written");
}

/// The same beside metrics at this port.
fn trace_and_count(config: &Path, endpoint: &str, port: u16) {
    switch_on(config, port);
    let text = fs::read_to_string(config).expect("the configuration");
    let block = format!("telemetry {{ otlp {{ endpoint = \"{endpoint}\" }} ");
    fs::write(config, text.replace("telemetry { ", &block)).expect("written");
}

fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

fn expect(spans: &Spans, service: &str, name: &str, good: impl Fn(&Span) -> bool) -> Span {
    let state = || format!("{:#?}", spans.all().iter().map(|it| (&it.service, &it.span.name)).collect::<Vec<_>>());
    let found = || spans.find(service, name, &good);
    expect_within(DEADLINE, &format!("a span {name} of {service}"), state, || found().is_some());
    found().expect("it was there")
}

fn speaks_of(span: &Span, event: &str, spiffe_id: &str) -> bool {
    let is_it = |name: &str, id: Option<String>| name == event && id.as_deref() == Some(spiffe_id);
    span.events.iter().any(|it| is_it(&it.name, text(&it.attributes, "spiffe_id")))
}

fn enrolled(server: &Server, maker: &Manufacturer) -> Device {
    let device = Device::manufacture(maker);
    server.import_devices(&format!("ek_sha256,serial,label:site\n{},SN-1,berlin\n", device.ek_sha256()));
    let parent = server.create_node_alias("/gateway", "site:berlin");
    server.create_entry(&parent, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    device
}

#[test]
fn an_attestation_an_issuance_and_a_fetch_are_told_with_their_spiffe_ids() {
    let (collector, maker) = (Collector::start(), Manufacturer::new("Toy TPM Works").expect("maker"));
    let mut server = Server::prepare(&ServerOptions::default());
    trace(&server.config_path(), &format!("http://127.0.0.1:{}", collector.port), "");
    server.restart();
    let mut device = enrolled(&server, &maker);
    device.provision(&server, &AgentOptions::default());
    let socket = server.directory().join("otlp.sock");
    let local = Collector::on_socket(&socket);
    trace(&device.config_path(), &format!("unix://{}", socket.display()), "");
    device.start();
    device.expect_identity(ALICE);

    let attested =
        expect(&collector.spans, SERVER, ATTEST, |span| speaks_of(span, "agent attested", &device.agent_id()));
    assert_eq!(text(&attested.attributes, "spiffe_id"), Some(device.agent_id()));
    assert_eq!(
        (attested.kind(), attested.parent_span_id.len()),
        (SpanKind::Server, 0),
        "a stranger's word is not taken"
    );
    let signing = expect(&collector.spans, SERVER, "sign agent's X509-SVID", |_| true);
    assert_eq!((&signing.trace_id, &signing.parent_span_id), (&attested.trace_id, &attested.span_id));

    let issued = expect(&collector.spans, SERVER, ISSUE, |span| speaks_of(span, "X509-SVID signed", &id("/alice")));
    assert_eq!(text(&issued.attributes, "spiffe_id"), Some(device.agent_id()), "who asked");
    let asked = expect(&local.spans, AGENT, "sign SVIDs", |span| speaks_of(span, "SVID taken", &id("/alice")));
    assert_eq!(
        (&issued.trace_id, &issued.parent_span_id),
        (&asked.trace_id, &asked.span_id),
        "one trace on both sides"
    );

    let attest = expect(&local.spans, AGENT, "attest", |span| text(&span.attributes, "spiffe_id").is_some());
    assert_eq!(text(&attest.attributes, "spiffe_id"), Some(device.agent_id()));
    let fetched = expect(&local.spans, AGENT, FETCH, |span| speaks_of(span, "served", &id("/alice")));
    assert!(fetched.end_time_unix_nano >= fetched.start_time_unix_nano && fetched.status.is_none(), "{fetched:?}");
    let log = server.log() + &device.log();
    assert!(!log.contains("SVID taken") && !log.contains("X509-SVID signed"), "the log has none of it");
}

#[test]
fn a_process_that_ends_sends_what_waits() {
    let collector = Collector::start();
    let mut server = Server::prepare(&ServerOptions::default());
    trace(&server.config_path(), &format!("http://127.0.0.1:{}", collector.port), "");
    server.restart();
    server.create_entry(&id("/gateway"), "/last", &["unix:uid:1"], &[]);
    server.process().expect("it runs").terminate();
    expect(&collector.spans, SERVER, "spire.api.server.entry.v1.Entry/BatchCreateEntry", |_| true);
}

#[test]
fn a_collector_is_believed_by_the_authorities_of_its_file_alone() {
    let (certificate, other) = (WebCertificate::new(), WebCertificate::new());
    let collector = Collector::secured(&certificate);
    let mut server = Server::prepare(&ServerOptions::default());
    let ca_file = server.directory().join("collector-ca.pem");
    fs::copy(other.authority(), &ca_file).expect("copied");
    let more = format!("ca_file = \"{}\"", ca_file.display());
    trace(&server.config_path(), &format!("https://localhost:{}", collector.port), &more);
    server.restart();
    expect_within(DEADLINE, "a line", || server.log(), || server.log().contains("traces do not reach the collector"));
    assert!(server.log().contains("invalid peer certificate"), "{}", server.log());
    assert!(collector.spans.all().is_empty(), "no span left the server");
    fs::copy(certificate.authority(), &ca_file).expect("copied");
    expect(&collector.spans, SERVER, "grpc.health.v1.Health/Check", |_| true);
}

/// A server whose collector is at `endpoint` issues as always; how it counts and what it logs.
fn issues_beside(endpoint: &str) -> (Server, u16) {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let (mut server, port) = (Server::prepare(&ServerOptions::default()), free_port());
    trace_and_count(&server.config_path(), endpoint, port);
    server.restart();
    let mut device = enrolled(&server, &maker);
    device.provision(&server, &AgentOptions::default());
    trace(&device.config_path(), endpoint, "");
    device.start();
    device.expect_identity(ALICE);
    for _ in 0..MAX_QUEUED_SPANS {
        assert!(device.fetch(ALICE).is_ok(), "{}", device.log());
        if lost(port) > 0.0 {
            break;
        }
        flood(&server);
    }
    (server, port)
}

/// Calls, each with its span.
fn flood(server: &Server) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let channel = ironroot_api::unix_socket::connect(&server.socket()).await.expect("connected");
        let mut entries = ironroot_api::pb::entry::entry_client::EntryClient::new(channel);
        for _ in 0..200 {
            let asked = ironroot_api::pb::entry::CountEntriesRequest::default();
            entries.count_entries(asked).await.expect("answered");
        }
    });
}

fn lost(port: u16) -> f64 {
    let page = scrape(port).expect("a page");
    value(&page, "ironroot_server_spans_total", &["outcome=\"lost\""]).expect("counted")
}

#[test]
fn a_collector_that_hangs_talks_nonsense_or_is_away_costs_a_bound_and_a_line() {
    let places = [hostile(hangs), hostile(talks_nonsense), free_port()];
    for port in places {
        let began = Instant::now();
        let (mut server, metrics) = issues_beside(&format!("http://127.0.0.1:{port}"));
        let page = || format!("{}\n{}", scrape(metrics).unwrap_or_default(), server.log());
        expect_within(DEADLINE, "spans beyond the bound are lost, and counted", page, || {
            flood(&server);
            lost(metrics) > 0.0
        });
        let told = "traces do not reach the collector";
        expect_within(DEADLINE, "it is told", || server.log(), || server.log().contains(told));
        let lines = server.log().matches(told).count();
        let minutes = began.elapsed().as_secs() / 60 + 1;
        assert!(lines as u64 <= minutes, "{lines} lines in {minutes} minutes: {}", server.log());
        assert!(server.process().expect("it runs").terminate(), "and it ends in order: {}", server.log());
    }
}

#[test]
fn a_collector_that_comes_back_gets_what_waited() {
    let port = free_port();
    let mut server = Server::prepare(&ServerOptions::default());
    trace(&server.config_path(), &format!("http://127.0.0.1:{port}"), "");
    server.restart();
    server.create_entry(&id("/gateway"), "/early", &["unix:uid:1"], &[]);
    expect_within(DEADLINE, "a line", || server.log(), || server.log().contains("traces do not reach the collector"));
    let collector = Collector::at(port);
    expect(&collector.spans, SERVER, "spire.api.server.entry.v1.Entry/BatchCreateEntry", |_| true);
}
