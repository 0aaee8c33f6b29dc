//! `kill -9` of a server, behind a balancer of TCP connections.

use std::time::{Duration, Instant};

use ironroot_lab::balancer::Balancer;
use ironroot_lab::deployment::{AgentOptions, Device, wait_for};

use crate::Outcome;
use crate::cluster::{Cluster, seconds_since};
use crate::fleet::Fleet;

const WORKLOAD: u32 = 60_001;
const AGENTS: usize = 6;
const PATIENCE: Duration = Duration::from_secs(60);
/// By when agents must be at another server.
const GOAL: Duration = Duration::from_secs(1);

pub fn run(cluster: &mut Cluster) -> Outcome<()> {
    let mut fleet = Fleet::start(cluster)?;
    let balancer = Balancer::start(fleet.servers.iter().map(|server| server.port()).collect());
    let options = AgentOptions { server_port: Some(balancer.port()), sync_interval: "5s", ..AgentOptions::default() };
    let devices = (0..AGENTS).map(|_| fleet.device(WORKLOAD, &options)).collect::<Outcome<Vec<_>>>()?;
    println!("  {AGENTS} agents by one balancer; connections at each server: {:?}", balancer.carried());
    // New SVIDs are seen to come through it.
    let killed = Instant::now();
    fleet.servers[0].kill();
    let moved =
        wait_for(PATIENCE, || (balancer.carried()[1..].iter().sum::<usize>() >= AGENTS).then(|| killed.elapsed()));
    let moved = moved.ok_or("agents stay away")?;
    println!("  all are at others after {:.2} s", moved.as_secs_f64());
    let began = Instant::now();
    for device in &devices {
        follow(device)?;
    }
    println!("  each has had SVIDs of another server, no fetch failed ({})", seconds_since(began));
    if moved > GOAL { Err(format!("{moved:?} is longer than {GOAL:?}").into()) } else { Ok(()) }
}

/// Until there was a new SVID; an error if a fetch fails.
fn follow(device: &Device) -> Outcome<()> {
    let first = device.fetch(WORKLOAD)?.leaves[0].serial_decimal();
    let mut failed = None;
    let changed = wait_for(PATIENCE, || match device.fetch(WORKLOAD) {
        Ok(fetched) => (fetched.leaves[0].serial_decimal() != first).then_some(()),
        Err(why) => {
            failed = Some(why);
            Some(())
        }
    });
    match (failed, changed) {
        (Some(why), _) => Err(why.into()),
        (None, None) => Err("no new SVID".into()),
        (None, Some(())) => Ok(()),
    }
}
