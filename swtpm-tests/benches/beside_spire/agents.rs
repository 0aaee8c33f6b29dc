//! An agent on a small device: memory idle and with workloads, and what one fetch takes. Keys on disk, so that both do the same.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::spire::{SpireAgent, is_given, spire_binary};
use ironroot_lab::usage::{cpu_ms, pss_mb};
use ironroot_lab::workload_client;
use tokio::runtime::Runtime;

use super::{Pair, both, median, pair, row};

/// Workloads with an open stream.
const WORKLOADS: usize = 100;
/// Fetches, each on a new connection.
const FETCHES: usize = 300;

struct Measured {
    idle_mb: f64,
    crowded_mb: f64,
    fetch_ms: f64,
    fetch_cpu_us: f64,
}

pub fn report() {
    let server = Server::start(&ServerOptions::default());
    let uid = format!("unix:uid:{}", nix::unistd::geteuid());
    let parent = format!("spiffe://{TRUST_DOMAIN}/node");
    server.create_entry(&parent, "/app", &[&uid], &[]);
    let measured = both(
        || {
            let mut device = Device::without_tpm();
            let options = AgentOptions {
                join_token: Some(token(&server)),
                key_manager: "disk",
                sync_interval: "5s",
                ..Default::default()
            };
            device.provision(&server, &options);
            device.start();
            let pid = device.process().expect("it runs").pid();
            measure(&device.socket(), pid, || device.log())
        },
        || {
            let mut agent = SpireAgent::new();
            agent.provision(&server.bundle_pem(), server.port());
            agent.start(Some(&token(&server)));
            let pid = agent.process().expect("it runs").pid();
            measure(&agent.socket(), pid, || agent.log())
        },
    );
    row("agent memory (PSS), idle, one identity, MB", &pair(&measured, |m| m.idle_mb), 1, "≤ 12");
    row(&format!("agent memory (PSS), {WORKLOADS} open streams, MB"), &pair(&measured, |m| m.crowded_mb), 1, "≤ 20");
    row("fetch on a new connection, median, ms", &pair(&measured, |m| m.fetch_ms), 2, "≤ 1");
    row("agent CPU per fetch, µs", &pair(&measured, |m| m.fetch_cpu_us), 0, "≤ 0.5 of SPIRE's");
    binary_sizes();
}

/// Of what goes into a device image.
fn binary_sizes() {
    let megabytes = |path: PathBuf| std::fs::metadata(path).map(|file| file.len() as f64 / 1e6).ok();
    let device = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/device/ironroot-agent");
    let spires = is_given().then(|| megabytes(spire_binary("spire-agent"))).flatten();
    match megabytes(device) {
        Some(ours) => row("agent binary, profile `device`, MB", &Pair { ours, spires }, 1, "≤ 10"),
        None => println!("| agent binary, profile `device`, MB | not built | - | - | ≤ 10 |"),
    }
}

fn token(server: &Server) -> String {
    let alias = format!("spiffe://{TRUST_DOMAIN}/node");
    let json = server.cli(&["token", "generate", "-spiffeID", &alias, "-output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    json["value"].as_str().expect("a token").to_owned()
}

fn measure(socket: &Path, pid: u32, log: impl Fn() -> String) -> Measured {
    let runtime = Runtime::new().expect("runtime");
    let served = runtime.block_on(workload_client::first_svid(socket, Instant::now(), DEADLINE));
    served.unwrap_or_else(|status| panic!("nothing served: {status}\n{}", log()));
    let idle_mb = settled(pid, &log);
    let (mut times, cpu) = (Vec::with_capacity(FETCHES), cpu_ms(pid));
    for _ in 0..FETCHES {
        let began = Instant::now();
        runtime.block_on(workload_client::fetch(socket)).expect("served");
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let fetch_cpu_us = (cpu_ms(pid) - cpu) * 1e3 / FETCHES as f64;
    let crowded_mb = runtime.block_on(async {
        let mut streams = Vec::with_capacity(WORKLOADS);
        for _ in 0..WORKLOADS {
            let mut client = workload_client::client(socket).await.expect("connected");
            let mut stream = workload_client::watch(&mut client).await.expect("open");
            stream.message().await.expect("served").expect("a message");
            streams.push((client, stream));
        }
        settled(pid, &log)
    });
    Measured { idle_mb, crowded_mb, fetch_ms: median(times), fetch_cpu_us }
}

/// Megabytes, once two looks a second apart agree.
fn settled(pid: u32, log: impl Fn() -> String) -> f64 {
    let (mut last, mut looked) = (f64::MAX, Instant::now());
    let steady = || {
        if looked.elapsed().as_secs() < 1 {
            return false;
        }
        let now = pss_mb(pid);
        let steady = (now - last).abs() < 0.01 * now;
        (last, looked) = (now, Instant::now());
        steady
    };
    expect_within(DEADLINE, "memory settles", log, steady);
    last
}
