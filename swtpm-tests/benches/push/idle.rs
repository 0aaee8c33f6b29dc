//! What an agent costs that has nothing to do: bytes on the wire, by the kernel's counters of its connection, and wake-ups of its threads.
//! Certificates last for days here, as their renewal is no idling: what one costs is not in it.

use std::process::Command;
use std::time::{Duration, Instant};

use ironroot_lab::deployment::{ServerOptions, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{row, standing};

/// Longest wait for a heartbeat.
const PATIENCE: Duration = Duration::from_secs(300);
/// Ethernet's header, IPv4's, TCP's with its time stamps: bytes of each segment beside what it carries.
const SEGMENT_BYTES: f64 = 14.0 + 20.0 + 32.0;
/// What the two ends do in a day besides heartbeats: polls, PINGs of the server (each is reckoned at a heartbeat), connections.
const POLLS: f64 = 24.0;
const PINGS: f64 = 96.0;
const CONNECTIONS: f64 = 2.0;
const DAY: f64 = 86_400.0;

pub fn report() {
    let lasting =
        ServerOptions { ca_ttl: "720h", agent_ttl: "168h", x509_svid_ttl: "168h", ..ServerOptions::default() };
    let (server, mut device) = standing(&lasting);
    device.expect_sealed(1);
    let pid = device.process().expect("it runs").pid();
    let connected = settled(server.port());
    let (beat, seconds, wakes) = heartbeat(server.port(), pid);
    let polled = poll(server.port(), pid);
    let beats = beat / seconds * DAY;
    let day = beats + POLLS * polled + PINGS * beat + CONNECTIONS * connected;
    row(
        "an idle agent's bytes on the wire a day, both ways, headers included",
        &format!(
            "{:.0} kB: heartbeats {:.0} ({beat:.0} bytes each {seconds:.0} s), {POLLS} polls {:.0}, {PINGS} PINGs {:.0}, {CONNECTIONS} connections {:.0}",
            day / 1e3,
            beats / 1e3,
            POLLS * polled / 1e3,
            PINGS * beat / 1e3,
            CONNECTIONS * connected / 1e3
        ),
        "≤ 200 kB",
    );
    row("its wake-ups a second, all threads", &format!("{:.3}", wakes / seconds), "≤ 0.05");
}

/// From one heartbeat to the next: its bytes, the seconds between, and how often a thread slept meanwhile.
fn heartbeat(port: u16, pid: u32) -> (f64, f64, f64) {
    next_bytes(port, bytes(port));
    let (began, before, slept) = (Instant::now(), settled(port), sleeps(pid));
    next_bytes(port, before);
    let seconds = began.elapsed().as_secs_f64();
    (settled(port) - before, seconds, sleeps(pid) - slept)
}

/// Bytes of a sync that an operator asks for: entries and bundle are as they were.
fn poll(port: u16, pid: u32) -> f64 {
    let before = settled(port);
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGHUP).expect("it lives");
    next_bytes(port, before);
    settled(port) - before
}

fn next_bytes(port: u16, before: f64) {
    let is_more = || (bytes(port) > before).then_some(());
    wait_for(PATIENCE, is_more).expect("a heartbeat comes");
}

/// Once two looks a second apart agree.
fn settled(port: u16) -> f64 {
    let mut last = 0.0;
    let same = || {
        std::thread::sleep(Duration::from_secs(1));
        let now = bytes(port);
        (std::mem::replace(&mut last, now) == now).then_some(now)
    };
    wait_for(PATIENCE, same).expect("it is silent")
}

/// Of the agent's connections to the server at `port`: what they carried, and the headers.
fn bytes(port: u16) -> f64 {
    let asked = Command::new("ss").args(["-tinOH", "state", "established", &format!("( dport = :{port} )")]).output();
    let told = String::from_utf8(asked.expect("ss runs (iproute2)").stdout).expect("text");
    let field = |name: &str| {
        let values = told.split_whitespace().filter_map(|word| word.strip_prefix(name)?.parse::<f64>().ok());
        values.sum::<f64>()
    };
    let segments = field("segs_out:") + field("segs_in:");
    field("bytes_sent:") + field("bytes_received:") + SEGMENT_BYTES * segments
}

/// How often the threads of a process went to sleep by themselves since they began, which is how often they were woken.
fn sleeps(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let of = |thread: std::io::Result<std::fs::DirEntry>| {
        let status = std::fs::read_to_string(thread.ok()?.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<f64>().ok()
    };
    threads.filter_map(of).sum()
}
