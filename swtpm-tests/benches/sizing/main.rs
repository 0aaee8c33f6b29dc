//! What to size a server by: the sixteen cells of SPIRE's own table (its doc/scaling_spire.md), each measured, SPIRE's server beside ours
//! in the same run by the same clients.
//!
//!   cargo bench --bench sizing                     every cell; some fifteen minutes
//!   cargo bench --bench sizing -- 10 1000          the columns of so many agents
//!   cargo bench --bench sizing -- polling 50000    so many agents that poll a server of ours, and nothing else
//!   cargo bench --bench sizing -- registry 10000000 1000000
//!                                                  a server of ours with so many entries and devices
//!   IRONROOT_SPIRE_BIN=DIR                         SPIRE's programs are there; without it our half alone
//!
//! Agents are connections here, each with a certificate of its own, which ask what SPIRE's agents ask, as often as those do. They run on
//! the same cores as the server: what a server could do alone is more.

mod cell;
mod fleet;
mod polling;
mod registry;

use ironroot_lab::deployment::{Server, ServerOptions};
use ironroot_lab::server_client::ServerClient;
use ironroot_lab::spire::{SpireServer, Times, is_given};
use tokio::runtime::Runtime;

use cell::Cell;
use fleet::{Fleet, Told};

/// Columns and rows of the table.
const AGENTS: [usize; 4] = [10, 100, 1_000, 5_000];
const WORKLOADS: [usize; 4] = [10, 100, 1_000, 10_000];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let numbers: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let runtime = Runtime::new().expect("a runtime");
    let is_asked_for = |what: &str| arguments.iter().any(|argument| argument == what);
    let number = |place: usize, default| numbers.get(place).copied().unwrap_or(default);
    if is_asked_for("polling") {
        return runtime.block_on(polling::report(number(0, 50_000)));
    }
    if is_asked_for("registry") {
        return registry::report(&runtime, number(0, 10_000_000), number(1, 1_000_000));
    }
    let columns = if numbers.is_empty() { AGENTS.to_vec() } else { numbers };
    println!(
        "| agents | workloads | CPU, % of a core | SPIRE | CPU, agents told what changes | memory (PSS), MB | SPIRE | sync p50 / p99, ms | SPIRE | every SVID signed, s | SPIRE |\n|---|---|---|---|---|---|---|---|---|---|---|"
    );
    for agents in columns {
        let ours = runtime.block_on(column(agents, ours()));
        let spires = is_given().then(|| runtime.block_on(column(agents, spires())));
        for (row, workloads) in WORKLOADS.iter().enumerate() {
            println!("{}", line(agents, *workloads, &ours[row], spires.as_ref().map(|cells| &cells[row])));
        }
    }
}

/// A server of either make.
enum Made {
    Ours(Box<Server>),
    Spires(Box<SpireServer>),
}

fn ours() -> Made {
    Made::Ours(Box::new(Server::start(&ServerOptions::default())))
}

fn spires() -> Made {
    Made::Spires(Box::new(SpireServer::start(Times { ca: "24h", agent: "1h", x509_svid: "1h" })))
}

/// The cells of a column: one server and its fleet, which gets more and more workloads.
async fn column(agents: usize, mut server: Made) -> Vec<Cell> {
    let (socket, port, pid) = match &mut server {
        Made::Ours(server) => (server.socket(), server.port(), server.process().expect("it runs").pid()),
        Made::Spires(server) => (server.socket(), server.port(), server.process().expect("it runs").pid()),
    };
    let client = ServerClient::to(socket, port).await;
    let fleet = Fleet::attest(&client, agents).await;
    let mut told = match server {
        Made::Ours(_) => Some(Told::default()),
        Made::Spires(_) => None,
    };
    let mut cells = Vec::with_capacity(WORKLOADS.len());
    for workloads in WORKLOADS {
        cells.push(cell::measure(&client, &fleet, workloads, pid, told.as_mut()).await);
    }
    cells
}

fn line(agents: usize, workloads: usize, ours: &Cell, spires: Option<&Cell>) -> String {
    let figure = |digits: usize, figure: fn(&Cell) -> f64| {
        let spires = spires.map_or("-".to_owned(), |cell| format!("{:.digits$}", figure(cell)));
        format!("{:.digits$} | {spires}", figure(ours))
    };
    let latency = |cell: &Cell| format!("{:.1} / {:.1}", cell.sync_ms.0, cell.sync_ms.1);
    format!(
        "| {agents} | {workloads} | {} | {} | {} | {} | {} | {} |",
        figure(1, |cell| cell.cpu_percent),
        ours.told_cpu_percent.map_or("-".to_owned(), |percent| format!("{percent:.1}")),
        figure(1, |cell| cell.memory_mb),
        latency(ours),
        spires.map_or("-".to_owned(), latency),
        figure(2, |cell| cell.signed_seconds),
    )
}
