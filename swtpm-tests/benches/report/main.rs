//! What the product costs, measured on whole deployments: real binaries, swtpm, SoftHSM, this machine. Prints a table of
//! figures beside their goals; a figure that misses its goal is printed, not hidden, and fails nothing.
//!
//!   scripts/bench

mod attestation;
mod boot;
mod footprint;
mod workload_api;

use ironroot_lab::deployment::{AgentOptions, Device, Server, ServerOptions};
use ironroot_lab::manufacturer::Manufacturer;

fn main() {
    println!("| what | measured | goal |\n|---|---|---|");
    let mut lab = Lab::start();
    workload_api::report(&lab);
    footprint::report(&mut lab);
    attestation::report(&mut lab);
    boot::report(&mut lab);
}

/// A server and an enrolled device that serves this process.
pub struct Lab {
    /// The server.
    pub server: Server,
    /// The device; its agent runs.
    pub device: Device,
}

impl Lab {
    fn start() -> Self {
        let maker = Manufacturer::new("Toy TPM Works").expect("maker");
        let mut device = Device::manufacture(&maker);
        let server = Server::start(&ServerOptions::default());
        server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
        let own = nix::unistd::geteuid().as_raw();
        server.create_entry(&device.agent_id(), "/probe", &[&format!("unix:uid:{own}")], &[]);
        device.provision(&server, &AgentOptions::default());
        device.start();
        device.expect_identity(own);
        device.expect_sealed(1);
        Self { server, device }
    }
}

/// One line of the report.
pub fn row(what: &str, measured: &str, goal: &str) {
    println!("| {what} | {measured} | {goal} |");
}

/// A runtime for the measuring side.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}
