//! Memory of the agent, size of its binary.

use std::path::Path;
use std::time::Duration;

use ironroot_lab::deployment::wait_for;
use ironroot_lab::workload_client;

use super::{Lab, row, runtime};
use ironroot_lab::usage::pss_mb;

const WORKLOADS: usize = 100;

pub fn report(lab: &mut Lab) {
    // A fresh agent: the measurement before this one opened thousands of connections.
    lab.device.kill_agent();
    lab.device.start();
    lab.device.expect_identity(nix::unistd::geteuid().as_raw());
    let pid = agent_pid(lab);
    let idle = settled(pid);
    let socket = lab.device.socket();
    let crowded = runtime().block_on(async {
        let mut streams = Vec::new();
        for _ in 0..WORKLOADS {
            let mut client = workload_client::client(&socket).await.expect("connected");
            let mut stream = workload_client::watch(&mut client).await.expect("open");
            stream.message().await.expect("served").expect("a message");
            streams.push((client, stream));
        }
        settled(pid)
    });
    row("agent memory (PSS), idle", &format!("{idle:.1} MB"), "≤ 12 MB");
    row(
        &format!("agent memory (PSS), {WORKLOADS} workloads with open streams"),
        &format!("{crowded:.1} MB"),
        "≤ 20 MB",
    );
    let device_binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/device/ironroot-agent");
    match std::fs::metadata(&device_binary) {
        Ok(file) => {
            row("agent binary, stripped, profile `device`", &format!("{:.1} MB", file.len() as f64 / 1e6), "≤ 10 MB")
        }
        Err(_) => row("agent binary, stripped, profile `device`", "not built", "≤ 10 MB"),
    }
}

/// The agent itself, below the wrapper that ends it with the lab (the wrapper execs, so they are one).
fn agent_pid(lab: &mut Lab) -> u32 {
    lab.device.process().expect("the agent runs").pid()
}

/// Waits until two looks a while apart agree within 1 %.
fn settled(pid: u32) -> f64 {
    let mut last = f64::MAX;
    let look = || {
        let now = pss_mb(pid);
        let steady = (now - last).abs() < 0.01 * now;
        last = now;
        steady.then_some(now)
    };
    wait_for(Duration::from_secs(20), look).unwrap_or_else(|| pss_mb(pid))
}
