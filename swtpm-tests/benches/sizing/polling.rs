//! As many agents as poll one server: what that takes of it, and whether each gets its answer.

use std::time::{Duration, Instant};

use ironroot_lab::deployment::{Server, ServerOptions};
use ironroot_lab::samples::percentile;
use ironroot_lab::server_client::ServerClient;
use ironroot_lab::usage::{pss_mb, whole_cpu_ms};

use super::fleet::{Fleet, SYNC_INTERVAL};

/// Four syncs of each agent.
const WINDOW: Duration = Duration::from_secs(20);

pub async fn report(agents: usize) {
    let mut server = Server::start(&ServerOptions::default());
    let pid = server.process().expect("it runs").pid();
    let client = ServerClient::new(&server).await;
    let (empty_mb, began) = (pss_mb(pid), Instant::now());
    let fleet = Fleet::attest(&client, agents).await;
    let attested = began.elapsed().as_secs_f64();
    let (began, cpu) = (Instant::now(), whole_cpu_ms(pid));
    let mut took = fleet.sync_for(SYNC_INTERVAL, WINDOW).await;
    let elapsed = began.elapsed().as_secs_f64();
    let percent = (whole_cpu_ms(pid) - cpu) / 10.0 / elapsed;
    println!("| what | measured |\n|---|---|");
    println!("| agents that poll, each every {} s | {agents} |", SYNC_INTERVAL.as_secs());
    println!("| until all had attested by token and were connected, s | {attested:.1} |");
    println!("| syncs that were answered a second | {:.0} |", took.len() as f64 / elapsed);
    println!(
        "| a sync, median / 99th percentile / longest, ms | {:.1} / {:.1} / {:.1} |",
        percentile(&mut took, 0.5),
        percentile(&mut took, 0.99),
        percentile(&mut took, 1.0)
    );
    println!("| server's CPU, % of a core (the agents run on the same cores) | {percent:.0} |");
    println!(
        "| server's memory (PSS), MB; for each agent, kB | {:.0}; {:.1} |",
        pss_mb(pid),
        (pss_mb(pid) - empty_mb) * 1024.0 / agents as f64
    );
}
