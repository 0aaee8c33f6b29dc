//! What it costs an agent to keep short-lived SVIDs renewed that open streams hold: CPU, and bytes to and from the server.
//!
//!   cargo bench --bench rotation
//!   IRONROOT_SPIRE_BIN=DIR cargo bench --bench rotation
//!
//! A figure of a busy machine says little, so each stands beside two others of the same windows: the bare cryptography of the
//! same SVIDs (one key generation, one signature, one verification each), and, where SPIRE's programs are, what its agent needs for
//! the same entries and the same number of streams. Reads /proc and becomes other users: run it as root.

mod meter;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ironroot_api::pb::entry::BatchCreateEntryRequest;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::types;
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, as_uid, binary, expect_within,
};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::server_client::ServerClient;
use ironroot_lab::spire::{self, SpireAgent, SpireServer, Times};
use tokio::runtime::Runtime;

use meter::{CountingProxy, bare_crypto_us, cpu_ms};

/// Identities, each with one workload of its own user; `IRONROOT_SVIDS` changes it.
const SVIDS: u32 = 500;
/// The first of their users.
const FIRST_UID: u32 = 70_000;
/// How long each SVID lasts, seconds.
const TTL: i32 = 60;
/// Half-lives that pass before the measurement, so that renewals are spread as they stay spread.
const WARM_UP: Duration = Duration::from_secs(45);
/// Three half-lives.
const WINDOW: Duration = Duration::from_secs(90);

fn main() {
    let count = std::env::var("IRONROOT_SVIDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SVIDS);
    let lab = Lab::start(count);
    let beside = spire::is_given().then(|| Beside::start(count));
    let mut workloads = workloads(&lab.device.socket(), count);
    if let Some(beside) = &beside {
        workloads.extend(self::workloads(&beside.agent.socket(), count));
    }
    std::thread::sleep(WARM_UP);
    report(&lab, beside.as_ref(), count);
    workloads.iter_mut().for_each(|child| child.kill().expect("a workload that runs"));
}

/// Our server and an agent that reaches it through a meter.
struct Lab {
    server: Server,
    device: Device,
    wire: CountingProxy,
    agent: u32,
}

impl Lab {
    fn start(count: u32) -> Self {
        let maker = Manufacturer::new("Toy TPM Works").expect("maker");
        let mut device = Device::manufacture(&maker);
        let server = Server::start(&ServerOptions::default());
        server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
        let parent = device.agent_id().strip_prefix(&format!("spiffe://{TRUST_DOMAIN}")).map(str::to_owned);
        Runtime::new().expect("a runtime").block_on(async {
            create_entries(&ServerClient::new(&server).await, &parent.expect("ours"), count).await;
        });
        let wire = CountingProxy::to(server.port());
        // As a product has them, and not as tests do.
        let (sync_interval, log_level) = ("5s", "INFO");
        let options =
            AgentOptions { server_port: Some(wire.port()), sync_interval, log_level, ..AgentOptions::default() };
        device.provision(&server, &options);
        device.start();
        device.expect_identity(FIRST_UID);
        let agent = device.process().expect("the agent runs").pid();
        Self { server, device, wire, agent }
    }

    fn signed(&self) -> usize {
        self.server.log().matches("BatchNewX509SVID").count()
    }
}

/// Below the agent of this path, one for each user.
async fn create_entries(client: &ServerClient, parent: &str, count: u32) {
    let id = |path: &str| Some(types::Spiffeid { trust_domain: TRUST_DOMAIN.to_owned(), path: path.to_owned() });
    let entry = |n: u32| types::Entry {
        parent_id: id(parent),
        spiffe_id: id(&format!("/rotation/{n}")),
        selectors: vec![types::Selector { r#type: "unix".into(), value: format!("uid:{}", FIRST_UID + n) }],
        x509_svid_ttl: TTL,
        ..types::Entry::default()
    };
    let request = BatchCreateEntryRequest { entries: (0..count).map(entry).collect(), output_mask: None };
    let results = EntryClient::new(client.admin().await).batch_create_entry(request).await.expect("answered");
    let refused = results.get_ref().results.iter().find(|r| r.status.as_ref().is_none_or(|status| status.code != 0));
    assert!(refused.is_none(), "{refused:?}");
}

/// SPIRE's agent and its server, measured in the same windows.
struct Beside {
    _server: SpireServer,
    agent: SpireAgent,
    pid: u32,
}

impl Beside {
    fn start(count: u32) -> Self {
        let server = SpireServer::start(Times { ca: "24h", agent: "1h", x509_svid: "1h" });
        let token = Runtime::new().expect("a runtime").block_on(async {
            let client = ServerClient::to(server.socket(), server.port()).await;
            let token = client.join_token().await;
            create_entries(&client, &format!("/spire/agent/join_token/{token}"), count).await;
            token
        });
        let mut agent = SpireAgent::new().as_in_use();
        let bundle = server.cli_output(&["bundle", "show"]).stdout;
        agent.provision(&String::from_utf8(bundle).expect("PEM"), server.port());
        agent.start(Some(&token));
        let is_served = || is_served(&mut watch(&agent.socket(), FIRST_UID));
        expect_within(DEADLINE, "SPIRE's agent serves", || agent.log(), is_served);
        let pid = agent.process().expect("it runs").pid();
        Self { _server: server, agent, pid }
    }
}

/// One process for each user, with an open stream that has had its first message.
fn workloads(socket: &Path, count: u32) -> Vec<Child> {
    let mut children: Vec<Child> = (0..count).map(|n| watch(socket, FIRST_UID + n)).collect();
    assert!(children.iter_mut().all(is_served), "each workload has its identity");
    children
}

fn watch(socket: &Path, uid: u32) -> Child {
    let mut command = as_uid(uid, &binary("lab-workload"));
    command.arg("watch").arg(socket).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts")
}

/// Whether a workload's first message has one identity. Waits for that message, or until there can be none.
fn is_served(workload: &mut Child) -> bool {
    let mut line = String::new();
    let output = workload.stdout.as_mut().expect("piped");
    BufReader::with_capacity(16, output).read_line(&mut line).expect("a line");
    line == "1\n"
}

fn report(lab: &Lab, beside: Option<&Beside>, count: u32) {
    let crypto = bare_crypto_us();
    let cpu = || (cpu_ms(lab.agent), beside.map(|beside| cpu_ms(beside.pid)));
    let (began, before, bytes, signed) = (Instant::now(), cpu(), lab.wire.bytes(), lab.signed());
    std::thread::sleep(WINDOW);
    let (after, seconds) = (cpu(), began.elapsed().as_secs_f64());
    let (bytes, signed) = (lab.wire.bytes() - bytes, lab.signed() - signed);
    let ours = (after.0 - before.0) / seconds;
    let each = ours * seconds * 1e3 / signed as f64;
    println!("| what | measured | goal |\n|---|---|---|");
    println!(
        "| {count} SVIDs of {TTL} s held by open streams: agent's CPU | {ours:.1} ms/s; {each:.0} us for each of {signed}, {:.1} times the bare cryptography ({crypto:.0} us) | |",
        each / crypto
    );
    println!("| same: to and from the server | {:.2} MB/min | |", bytes as f64 * 60.0 / seconds / 1e6);
    if let (Some(before), Some(after)) = (before.1, after.1) {
        let theirs = (after - before) / seconds;
        println!("| same, SPIRE's agent | {theirs:.1} ms/s; ours is {:.2} of it | ≤ 0.5 |", ours / theirs);
    }
}
