//! Asynchronous replication, a standby that has not got the last commits, and the primary dies.

use std::time::{Duration, Instant};

use ironroot_lab::deployment::wait_for;
use tokio::runtime::Runtime;

use crate::Outcome;
use crate::cluster::{Cluster, seconds_since};
use crate::fleet::Fleet;
use crate::tokens;

/// Spent after the standbys have stopped to get anything.
const LOST: usize = 20;
const PATIENCE: Duration = Duration::from_secs(90);

pub fn run(cluster: &mut Cluster) -> Outcome<()> {
    cluster.set_synchronous(false)?;
    let mut fleet = Fleet::start(cluster)?;
    let runtime = Runtime::new()?;
    let made = runtime.block_on(tokens::make(&fleet.servers[0], LOST));
    let clients = runtime.block_on(tokens::clients(&fleet));
    let primary = cluster.expect_primary(None)?;
    cluster.nodes[primary].lag()?;
    let spent = runtime.block_on(tokens::spend_at(&clients, &made));
    let killed = Instant::now();
    cluster.nodes[primary].kill()?;
    cluster.expect_primary(Some(primary))?;
    println!("  {spent} tokens spent that no standby knows of; another primary after {}", seconds_since(killed));
    // Each at another server than before.
    let again = runtime.block_on(tokens::spend_at(&clients, &[&made[1..], &made[..1]].concat()));
    println!("  spent a second time: {again}");
    let ended = wait_for(PATIENCE, || fleet.all_ended().then_some(()));
    ended.ok_or("the servers go on with the older state")?;
    println!("  every server has ended after {}: {}", seconds_since(killed), fleet.last_words());
    fleet.servers.iter_mut().for_each(|server| server.spawn());
    let waits = |at: usize| fleet.says(at).contains("nothing is issued until an operator accepts");
    wait_for(PATIENCE, || (0..3).all(waits).then_some(()))
        .ok_or_else(|| format!("they do not wait: {}", fleet.says(0)))?;
    println!("  started again: {}", fleet.says(0).trim());
    let accepted =
        fleet.servers[0].cli(&["restore", "accept", "-config", &fleet.servers[0].config_path().display().to_string()]);
    println!("  restore accept at one of them: {}", accepted.trim().replace('\n', " "));
    let began = Instant::now();
    fleet.expect_healthy()?;
    println!("  all three issue again after {}", seconds_since(began));
    if again > 0 { Err(format!("{again} tokens were spent twice").into()) } else { Ok(()) }
}
