//! The drill: a CA's key is in other hands. Real agents, each with its chip, and workloads on each; how long until nobody holds anything
//! that the old CA signed is printed, never asserted: the machine is shared.

use std::time::Instant;

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::agent::{AgentX509svidParams, RenewAgentRequest};
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::change::WatchChangesRequest;
use ironroot_api::pb::change::change_client::ChangeClient;
use ironroot_api::pb::entry::BatchCreateEntryRequest;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::svid::{BatchNewX509svidRequest, NewX509svidParams};
use ironroot_api::pb::types;
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, expect_within};
use ironroot_lab::jwt;
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::server_client::{Agent, ServerClient, csr, key};
use ironroot_lab::workload_client;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const AGENTS: usize = 3;
/// Of each agent.
const IDENTITIES: usize = 20;
const AUDIENCE: &str = "https://vault.example.org";

struct Drill {
    server: Server,
    devices: Vec<Device>,
    runtime: Runtime,
}

impl Drill {
    /// A fleet that is attested and served.
    fn begin(lines: &str) -> Self {
        let maker = Manufacturer::new("Toy TPM Works").expect("maker");
        let mut devices: Vec<Device> = (0..AGENTS).map(|_| Device::manufacture(&maker)).collect();
        let server = Server::start(&ServerOptions { server_lines: lines.to_owned(), ..ServerOptions::default() });
        let enrolled: String = devices.iter().map(|device| format!("{}\n", device.ek_sha256())).collect();
        server.import_devices(&format!("ek_sha256\n{enrolled}"));
        let own = format!("unix:uid:{}", nix::unistd::geteuid());
        for device in &devices {
            for number in 0..IDENTITIES {
                server.create_entry(&device.agent_id(), &format!("/app-{number}"), &[&own], &[]);
            }
        }
        for device in &mut devices {
            device.provision(&server, &AgentOptions::default());
            device.start();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let drill = Self { server, devices, runtime };
        drill.expect("every agent serves all its identities", |drill| {
            drill.devices.iter().all(|device| drill.issuers(device).len() == IDENTITIES)
        });
        drill
    }

    fn expect(&self, claim: &str, holds: impl Fn(&Self) -> bool) {
        let logs = || self.devices.iter().map(Device::log).chain([self.server.log()]).collect::<Vec<_>>().join("\n");
        expect_within(DEADLINE, claim, logs, || holds(self));
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.server.cli(&[arguments, &["-output", "json"]].concat())).expect("JSON")
    }

    /// Who signed each SVID that this device's workloads are served, hexadecimal: the CA's key ID.
    fn issuers(&self, device: &Device) -> Vec<String> {
        let served = self.runtime.block_on(workload_client::fetch(&device.socket()));
        let svids = served.map(|served| served.svids).unwrap_or_default();
        let issuer = |der: &[u8]| {
            let leaf = Certificate::parse_concatenated(der).expect("a chain").remove(0);
            leaf.authority_key_id().expect("AKI").iter().map(|byte| format!("{byte:02x}")).collect()
        };
        svids.iter().map(|svid| issuer(&svid.x509_svid)).collect()
    }

    /// The serial numbers of the agents' own certificates.
    fn serials(&self) -> Vec<String> {
        let agents = self.json(&["agent", "list"])["agents"].as_array().expect("agents").clone();
        agents.iter().map(|agent| agent["x509svid_serial_number"].as_str().expect("text").to_owned()).collect()
    }

    fn active(&self) -> String {
        text(&self.json(&["localauthority", "x509", "show"])["active"]["authority_id"])
    }

    fn replace_ca(&self) -> String {
        let prepared = self.json(&["localauthority", "x509", "prepare"]);
        let new = text(&prepared["prepared_authority"]["authority_id"]);
        self.server.cli(&["localauthority", "x509", "activate", "-authorityID", &new]);
        new
    }

    /// Until every agent and every workload has what `new` signed, and only that.
    fn expect_only(&self, new: &str, serials_before: &[String]) {
        self.expect("no SVID of the old authority is held", |drill| {
            let served = drill.devices.iter().flat_map(|device| {
                let issuers = drill.issuers(device);
                assert_eq!(issuers.len(), IDENTITIES, "nobody is without an identity meanwhile");
                issuers
            });
            served.into_iter().all(|issuer| issuer == new)
        });
        self.expect("every agent has a new certificate", |drill| {
            drill.serials().iter().all(|serial| !serials_before.contains(serial))
        });
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

#[test]
fn after_a_taint_every_agent_and_every_workload_has_the_new_authority_and_after_the_revocation_nothing_is_left() {
    let drill = Drill::begin("root { enabled = false }");
    // A caller with the old authority's certificate, whose connection outlives everything.
    let client = drill.runtime.block_on(ServerClient::new(&drill.server));
    let thief = drill.runtime.block_on(client.agent());
    let calls = |drill: &Drill| {
        let request = ironroot_api::pb::entry::GetAuthorizedEntriesRequest::default();
        drill.runtime.block_on(async { thief.entries().get_authorized_entries(request).await.map(drop) })
    };
    calls(&drill).expect("as long as its authority is one");
    let (old, serials) = (drill.active(), drill.serials());
    let new = drill.replace_ca();
    assert!(drill.devices.iter().all(|device| drill.issuers(device).iter().all(|issuer| *issuer == old)));
    let tainted_at = Instant::now();
    drill.server.cli(&["localauthority", "x509", "taint", "-authorityID", &old]);
    let of_the_thief = thief.credentials.leaf().serial_decimal();
    let before: Vec<_> = serials.into_iter().filter(|serial| *serial != of_the_thief).collect();
    drill.expect_only(&new, &before);
    println!(
        "from taint until {AGENTS} agents and {} workloads' SVIDs have the new authority: {:.1} s",
        AGENTS * IDENTITIES,
        tainted_at.elapsed().as_secs_f64()
    );
    calls(&drill).expect("tainted is not revoked");
    drill.server.cli(&["localauthority", "x509", "revoke", "-authorityID", &old]);
    let refused = calls(&drill).expect_err("nothing of it is accepted, on an open connection neither");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
    drill.expect("workloads have the new authority alone", |drill| {
        drill.devices.iter().all(|device| {
            let served = drill.runtime.block_on(workload_client::fetch(&device.socket())).expect("served");
            served.svids.iter().all(|svid| Certificate::parse_concatenated(&svid.bundle).expect("a bundle").len() == 1)
        })
    });
    assert!(drill.devices.iter().all(|device| drill.issuers(device).iter().all(|issuer| *issuer == new)));
}

#[test]
fn a_root_that_is_tainted_takes_everything_below_it_along() {
    let drill = Drill::begin("");
    let serials = drill.serials();
    let old = text(&drill.json(&["upstreamauthority", "show"])["active"]["authority_id"]);
    let next = text(&drill.json(&["upstreamauthority", "prepare"])["prepared_authority"]["authority_id"]);
    drill.server.cli(&["upstreamauthority", "activate", "-subjectKeyID", &next]);
    let new = drill.replace_ca();
    let tainted_at = Instant::now();
    drill.server.cli(&["upstreamauthority", "taint", "-subjectKeyID", &old]);
    drill.expect_only(&new, &serials);
    println!("from taint of a root until all have the new one: {:.1} s", tainted_at.elapsed().as_secs_f64());
    drill.server.cli(&["upstreamauthority", "revoke", "-subjectKeyID", &old]);
    drill.expect("the old root is out of the bundle", |drill| {
        let bundle = drill.json(&["bundle", "show"])["x509_authorities"].clone();
        bundle.as_array().is_some_and(|authorities| authorities.len() == 1)
    });
    assert!(drill.devices.iter().all(|device| drill.issuers(device).iter().all(|issuer| *issuer == new)));
}

#[test]
fn tokens_of_a_tainted_key_are_dropped_and_new_ones_are_of_the_active_key() {
    let drill = Drill::begin("");
    let device = &drill.devices[0];
    let fetch = || {
        let output =
            device.api(nix::unistd::geteuid().as_raw(), &["fetch", "jwt", "-audience", AUDIENCE, "-output", "json"]);
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(text(&answer[0]["svids"][0]["svid"]))
    };
    let key_of = |token: &str| text(&jwt::parts(token).0["kid"]);
    let first = fetch().expect("a token");
    let prepared = drill.json(&["localauthority", "jwt", "prepare"]);
    let new = text(&prepared["prepared_authority"]["authority_id"]);
    drill.server.cli(&["localauthority", "jwt", "activate", "-authorityID", &new]);
    assert_eq!(fetch().as_deref(), Some(&*first), "it is held, and good");
    drill.server.cli(&["localauthority", "jwt", "taint", "-authorityID", &key_of(&first)]);
    drill.expect("the token is of the active key", |_| fetch().is_some_and(|token| key_of(&token) == new));
    device.expect_log("JWT-SVIDs dropped");
    drill.server.cli(&["localauthority", "jwt", "revoke", "-authorityID", &key_of(&first)]);
    let uid = nix::unistd::geteuid().as_raw();
    let validates =
        |token: &str| device.api(uid, &["validate", "jwt", "-audience", AUDIENCE, "-svid", token]).status.success();
    drill.expect("nothing that it signed is accepted", |_| !validates(&first));
    assert!(fetch().is_some_and(|token| validates(&token)));
}

/// Agents without a process, as many as the goal of 60 s from taint on speaks of, and identities of each.
const SIMULATED: usize = 1_000;
const SIMULATED_IDENTITIES: usize = 5;

/// An agent that does what agents do: it is told of changes, looks at the bundle, and has everything signed anew that leads to what
/// is tainted.
struct Simulated {
    agent: Agent,
    entries: Vec<String>,
}

impl Simulated {
    /// Who signed its own certificate and all SVIDs that it has then.
    async fn follow_until_tainted(self, listening: tokio::sync::mpsc::Sender<()>) -> Vec<String> {
        let watch = ChangeClient::new(self.agent.channel.clone()).watch_changes(WatchChangesRequest::default()).await;
        let mut watch = watch.expect("held").into_inner();
        watch.message().await.expect("a word").expect("the first");
        listening.send(()).await.expect("somebody counts");
        drop(listening);
        loop {
            watch.message().await.expect("a word").expect("another");
            let request = GetBundleRequest { output_mask: None };
            let bundle = BundleClient::new(self.agent.channel.clone()).get_bundle(request).await.expect("the bundle");
            if bundle.get_ref().x509_authorities.iter().any(|authority| authority.tainted) {
                return self.sign_all().await;
            }
        }
    }

    async fn sign_all(&self) -> Vec<String> {
        let params = AgentX509svidParams { csr: csr(&key(), &[]).into() };
        let renewed =
            self.agent.agents().renew_agent(RenewAgentRequest { params: Some(params) }).await.expect("renewed");
        let wanted = |entry_id: &String| NewX509svidParams { entry_id: entry_id.clone(), csr: csr(&key(), &[]).into() };
        let request = BatchNewX509svidRequest { params: self.entries.iter().map(wanted).collect() };
        let signed = self.agent.svids().batch_new_x509svid(request).await.expect("signed").into_inner().results;
        let svids = signed.into_iter().filter_map(|result| result.svid).chain(renewed.into_inner().svid);
        svids.map(|svid| issuer_of(&svid.cert_chain[0])).collect()
    }
}

fn issuer_of(leaf: &[u8]) -> String {
    let leaf = Certificate::parse(leaf).expect("a certificate");
    leaf.authority_key_id().expect("AKI").iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn simulated(client: &ServerClient, admin: &mut EntryClient<tonic::transport::Channel>) -> Simulated {
    let agent = client.agent().await;
    let entry = |number| types::Entry {
        spiffe_id: Some(types::Spiffeid {
            trust_domain: agent.id().to_pb().trust_domain,
            path: format!("/simulated-{number}"),
        }),
        parent_id: Some(agent.id().to_pb()),
        selectors: vec![types::Selector { r#type: "unix".to_owned(), value: format!("uid:{number}") }],
        ..types::Entry::default()
    };
    let request =
        BatchCreateEntryRequest { entries: (0..SIMULATED_IDENTITIES).map(entry).collect(), output_mask: None };
    let created = admin.batch_create_entry(request).await.expect("created").into_inner().results;
    let entries = created.into_iter().map(|result| result.entry.expect("an entry").id).collect();
    Simulated { agent, entries }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_agents_that_are_told_have_everything_signed_by_the_new_authority() {
    let lines = "root { enabled = false }".to_owned();
    let server = Server::start(&ServerOptions { server_lines: lines, ..ServerOptions::default() });
    let client = ServerClient::new(&server).await;
    let mut admin = EntryClient::new(client.admin().await);
    let (listening, mut listen) = tokio::sync::mpsc::channel(SIMULATED);
    let mut agents = JoinSet::new();
    for _ in 0..SIMULATED {
        agents.spawn(simulated(&client, &mut admin).await.follow_until_tainted(listening.clone()));
    }
    drop(listening);
    let thief = client.agent().await;
    while listen.recv().await.is_some() {}
    let ask = |verb: &str, id: &str| {
        let named: &[&str] = if id.is_empty() { &[] } else { &["-authorityID", id] };
        let said = server.cli(&[&["localauthority", "x509", verb, "-output", "json"], named].concat());
        serde_json::from_str::<Value>(&said).expect("JSON")
    };
    let old = text(&ask("show", "")["active"]["authority_id"]);
    let new = text(&ask("prepare", "")["prepared_authority"]["authority_id"]);
    ask("activate", &new);
    let tainted_at = Instant::now();
    ask("taint", &old);
    let mut signed = 0;
    while let Some(issuers) = agents.join_next().await {
        let issuers = issuers.expect("no panic");
        assert_eq!(issuers, vec![new.clone(); SIMULATED_IDENTITIES + 1]);
        signed += issuers.len();
    }
    println!(
        "from taint until {SIMULATED} simulated agents have {signed} certificates of the new authority: {:.1} s",
        tainted_at.elapsed().as_secs_f64()
    );
    ask("revoke", &old);
    let request = ironroot_api::pb::entry::GetAuthorizedEntriesRequest::default();
    let refused = thief.entries().get_authorized_entries(request).await.expect_err("its authority is revoked");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
    println!(
        "from taint until nothing that the old authority signed is accepted, {SIMULATED} agents: {:.1} s (goal: 60 s)",
        tainted_at.elapsed().as_secs_f64()
    );
}
