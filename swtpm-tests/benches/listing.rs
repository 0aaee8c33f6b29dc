//! What `entry show` of a hundred thousand entries takes: memory of the command, seconds, and CPU time of the server that is asked.
//!
//!   cargo bench -p ironroot-swtpm-tests --bench listing
//!   IRONROOT_SPIRE_BIN=DIR   SPIRE's command, asking the same server
//!   IRONROOT_ENTRIES=N       so many entries

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ironroot_lab::deployment::{Server, ServerOptions, binary, wait_for};
use ironroot_lab::server_client::ServerClient;
use ironroot_lab::spire;
use ironroot_lab::usage::{cpu_ms, peak_mb};
use tokio::runtime::Runtime;

/// Entries in the server.
const ENTRIES: usize = 100_000;
/// Longest that one command may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    let count = std::env::var("IRONROOT_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(ENTRIES);
    let mut server = Server::start(&ServerOptions::default());
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async { ServerClient::new(&server).await.fill(count).await });
    println!("| what | memory at most, MB | seconds | server's CPU, s | goal |\n|---|---|---|---|---|");
    for form in ["pretty", "json"] {
        let ours = Command::new(binary("ironroot-server"));
        show(&mut server, ours, form, &format!("`entry show -output {form}` of {count} entries"), "≤ 200 MB");
        if spire::is_given() {
            let spires = spire::spire_command("spire-server", &[]);
            show(&mut server, spires, form, "the same by SPIRE's command", "-");
        }
    }
}

fn show(server: &mut Server, mut command: Command, form: &str, what: &str, goal: &str) {
    let pid = server.process().expect("it runs").pid();
    let (began, cpu, mut peak) = (Instant::now(), cpu_ms(pid), 0.0);
    command.args(["entry", "show", "-output", form, "-socketPath"]).arg(server.socket()).stdout(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    let ended = wait_for(PATIENCE, || {
        // The last look before it ends: a process that has ended has no memory any more.
        peak = peak_mb(child.id()).unwrap_or(peak);
        child.try_wait().expect("waits")
    });
    assert!(ended.is_some_and(|status| status.success()), "{what}: {ended:?}");
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), (cpu_ms(pid) - cpu) / 1e3);
    println!("| {what} | {peak:.0} | {seconds:.2} | {cpu:.2} | {goal} |");
}
