//! What it costs an agent to keep short-lived SVIDs renewed that open streams hold: CPU, and bytes to and from the server.
//!
//!   cargo bench --bench rotation
//!   IRONROOT_BESIDE=PID:SOCKET cargo bench --bench rotation
//!
//! A figure of a busy machine says little, so each stands beside two others of the same windows: the bare cryptography of the
//! same SVIDs (one key generation, one signature, one verification each), and, where another agent is named whose server has
//! the same entries (`unix:uid:70000` and on, 60 s each), that agent's. Reads /proc and becomes other users: run it as root.

mod meter;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ironroot_lab::deployment::{AgentOptions, Device, Server, ServerOptions, as_uid, binary};
use ironroot_lab::manufacturer::Manufacturer;
use serde_json::json;

use meter::{CountingProxy, bare_crypto_us, cpu_ms};

/// Identities, each with one workload of its own user; `IRONROOT_SVIDS` changes it.
const SVIDS: u32 = 500;
/// The first of their users.
const FIRST_UID: u32 = 70_000;
/// How long each SVID lasts, seconds.
const TTL: u32 = 60;
/// Half-lives that pass before the measurement, so that renewals are spread as they stay spread.
const WARM_UP: Duration = Duration::from_secs(45);
/// Three half-lives.
const WINDOW: Duration = Duration::from_secs(90);

fn main() {
    let count = std::env::var("IRONROOT_SVIDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SVIDS);
    let lab = Lab::start(count);
    let beside = std::env::var("IRONROOT_BESIDE").ok().map(|text| Beside::parse(&text));
    let mut workloads = workloads(&lab.device.socket(), count);
    if let Some(beside) = &beside {
        workloads.extend(self::workloads(&beside.socket, count));
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
        create_entries(&server, &device.agent_id(), count);
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

fn create_entries(server: &Server, parent: &str, count: u32) {
    let entry = |n: u32| {
        json!({
            "parent_id": parent,
            "spiffe_id": format!("spiffe://lab.example/rotation/{n}"),
            "selectors": [{ "type": "unix", "value": format!("uid:{}", FIRST_UID + n) }],
            "x509_svid_ttl": TTL,
        })
    };
    let file = server.directory().join("entries.json");
    let entries = json!({ "entries": (0..count).map(entry).collect::<Vec<_>>() });
    std::fs::write(&file, entries.to_string()).expect("written");
    server.cli(&["entry", "create", "-data", &file.display().to_string()]);
}

/// Another agent, measured in the same windows.
struct Beside {
    pid: u32,
    socket: PathBuf,
}

impl Beside {
    fn parse(text: &str) -> Self {
        let (pid, socket) = text.split_once(':').expect("IRONROOT_BESIDE=PID:SOCKET");
        Self { pid: pid.parse().expect("a process ID"), socket: socket.into() }
    }
}

/// One process for each user, with an open stream that has had its first message.
fn workloads(socket: &Path, count: u32) -> Vec<Child> {
    let program = binary("lab-workload");
    let start = |n| {
        let mut command = as_uid(FIRST_UID + n, &program);
        command.arg("watch").arg(socket).stdout(Stdio::piped()).spawn().expect("starts")
    };
    let mut children: Vec<Child> = (0..count).map(start).collect();
    for child in &mut children {
        let mut line = String::new();
        let output = child.stdout.as_mut().expect("piped");
        BufReader::with_capacity(16, output).read_line(&mut line).expect("a line");
        assert_eq!(line, "1\n", "each workload has its identity");
    }
    children
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
        println!("| same, the agent beside it | {theirs:.1} ms/s; ours is {:.2} of it | ≤ 0.5 |", ours / theirs);
    }
}
