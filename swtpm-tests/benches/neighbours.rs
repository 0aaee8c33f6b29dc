//! One local user with 10,000 streams or connections: what another user's fetch takes meanwhile, and what the agent's memory comes to.
//! As root, since its users are others.
//!
//!   cargo bench -p ironroot-swtpm-tests --bench neighbours

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ironroot_lab::deployment::{AgentOptions, Device, Server, ServerOptions};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::usage::{peak_mb, pss_mb};
use ironroot_lab::workload_client;
use tokio::runtime::Runtime;

/// Fetches of the other user in each measurement: it may do 500 things a second, and a connection and a request are two.
const ROUNDS: usize = 1500;
/// How long each crowd is there, seconds.
const SECONDS: &str = "25";
/// Users without any entry, and with one.
const STRANGER: u32 = 60_009;
const MEMBER: u32 = 60_010;

fn main() {
    println!("| what | measured | goal |\n|---|---|---|");
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let runtime = Runtime::new().expect("a runtime");
    for (what, uid, siege) in [
        ("nobody else", 0, &[][..]),
        ("a user with an identity wants 10,000 streams, on 100 connections", MEMBER, &["crowd", "100", "100", SECONDS]),
        ("the same, on 500", MEMBER, &["crowd", "500", "20", SECONDS]),
        ("the same, on 10,000", MEMBER, &["crowd", "10000", "1", SECONDS]),
        ("a user without one wants 10,000 streams, on 100 connections", STRANGER, &["crowd", "100", "100", SECONDS]),
        ("the same, on 10,000", STRANGER, &["crowd", "10000", "1", SECONDS]),
        (
            "the same leaves 10,000 messages unfinished, on 100 connections",
            STRANGER,
            &["besiege", "FetchX509SVID", "100", "100", "1", "1024", "1000", SECONDS],
        ),
    ] {
        let lab = Lab::start(&maker);
        lab.measure(&runtime, what, uid, siege);
    }
}

/// A server and a device of its own, so that peaks of memory are those of one crowd.
struct Lab {
    _server: Server,
    device: Device,
    pid: u32,
}

impl Lab {
    fn start(maker: &Manufacturer) -> Self {
        let mut device = Device::manufacture(maker);
        let server = Server::start(&ServerOptions::default());
        server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
        let own = nix::unistd::geteuid().as_raw();
        for (path, uid) in [("/probe", own), ("/member", MEMBER)] {
            server.create_entry(&device.agent_id(), path, &[&format!("unix:uid:{uid}")], &[]);
        }
        device.provision(&server, &AgentOptions { log_level: "INFO", ..AgentOptions::default() });
        device.start();
        device.expect_identity(own);
        device.expect_identity(MEMBER);
        let pid = device.process().expect("it runs").pid();
        Self { _server: server, device, pid }
    }

    fn measure(self, runtime: &Runtime, what: &str, uid: u32, siege: &[&str]) {
        let before = pss_mb(self.pid);
        let crowd = (!siege.is_empty()).then(|| self.crowd(uid, siege));
        let mut samples = runtime.block_on(self.fetches());
        let said = crowd.map(ended).unwrap_or_default();
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| samples[((samples.len() - 1) as f64 * share).round() as usize];
        let (p50, p99, peak) = (at(0.5), at(0.99), peak_mb(self.pid).expect("it lives"));
        println!(
            "| {what}: another user's fetch on a new connection | p50 {p50:.2} ms, p99 {p99:.2} ms{said} | p99 ≤ 50 ms |"
        );
        println!(
            "| the agent's memory meanwhile, at the most (RSS; PSS before {before:.1} MB) | {peak:.1} MB | ≤ 64 MiB |"
        );
    }

    /// Begun.
    fn crowd(&self, uid: u32, siege: &[&str]) -> Child {
        let mut crowd = self.device.command_as(uid, "lab-workload");
        crowd.arg(siege[0]).arg(self.device.socket()).args(&siege[1..]).stdout(Stdio::piped());
        let mut crowd = crowd.spawn().expect("starts");
        let mut line = String::new();
        let said = BufReader::new(crowd.stdout.as_mut().expect("piped")).read_line(&mut line);
        assert!(said.is_ok_and(|bytes| bytes > 0), "it begins");
        crowd
    }

    async fn fetches(&self) -> Vec<f64> {
        let socket = self.device.socket();
        let mut samples = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            workload_client::fetch(&socket).await.expect("served");
            samples.push(began.elapsed().as_secs_f64() * 1e3);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        samples
    }
}

/// What it has held, in words.
fn ended(crowd: Child) -> String {
    let output = crowd.wait_with_output().expect("ends");
    String::from_utf8_lossy(&output.stdout).lines().last().map(|line| format!("; {line}")).unwrap_or_default()
}
