//! From an entry that is created to the stream of the workload it is for, while a fleet listens; and what an agent costs that has
//! nothing to do: bytes on the wire and wake-ups.
//!
//!   cargo bench -p ironroot-swtpm-tests --bench push              # the idle half takes ten minutes
//!   cargo bench -p ironroot-swtpm-tests --bench push -- latency

mod fleet;
mod idle;
mod latency;

use ironroot_lab::deployment::{AgentOptions, Device, Server, ServerOptions};
use ironroot_lab::manufacturer::Manufacturer;

fn main() {
    let only = std::env::args().nth(1).filter(|word| !word.starts_with('-'));
    println!("| what | measured | goal |\n|---|---|---|");
    if only.as_deref().is_none_or(|only| only == "latency") {
        latency::report();
    }
    if only.as_deref().is_none_or(|only| only == "idle") {
        idle::report();
    }
}

/// One line of the report.
fn row(what: &str, measured: &str, goal: &str) {
    println!("| {what} | {measured} | {goal} |");
}

/// A server and a device of it that serves this process, told what changes.
fn standing(options: &ServerOptions) -> (Server, Device) {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let mut device = Device::manufacture(&maker);
    let server = Server::start(options);
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    let own = nix::unistd::geteuid().as_raw();
    server.create_entry(&device.agent_id(), "/standing", &[&format!("unix:uid:{own}")], &[]);
    device.provision(&server, &AgentOptions { sync_interval: "5s", log_level: "INFO", ..AgentOptions::default() });
    device.start();
    device.expect_log("the server tells of changes");
    device.expect_identity(own);
    (server, device)
}
