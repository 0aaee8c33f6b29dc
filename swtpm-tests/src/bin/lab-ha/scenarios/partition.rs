//! A server is cut off: from the database, then from its agents.

use std::time::{Duration, Instant};

use ironroot_lab::balancer::Balancer;
use ironroot_lab::deployment::{AgentOptions, wait_for};

use crate::Outcome;
use crate::cluster::{Cluster, seconds_since};
use crate::fleet::Fleet;

const WORKLOAD: u32 = 60_001;
/// Longer than it takes an agent to see that a connection is silent.
const SVID_TTL: &str = "2m";
const PATIENCE: Duration = Duration::from_secs(90);

pub fn run(cluster: &mut Cluster) -> Outcome<()> {
    let fleet = Fleet::start_by(cluster, None, SVID_TTL)?;
    let balancer = Balancer::start(fleet.servers.iter().map(|server| server.port()).collect());
    let options = AgentOptions { server_port: Some(balancer.port()), sync_interval: "5s", ..AgentOptions::default() };
    let device = fleet.device(WORKLOAD, &options)?;
    let serial = || device.fetch(WORKLOAD).map(|fetched| fetched.leaves[0].serial_decimal());
    let new_serial = |before: &str| {
        wait_for(PATIENCE, || match serial() {
            Ok(serial) => (serial != before).then_some(Ok(())),
            Err(why) => Some(Err(why)),
        })
    };

    fleet.cut_from_database(0, true)?;
    let began = Instant::now();
    wait_for(PATIENCE, || (!fleet.is_healthy(0)).then_some(())).ok_or("it does not say that its database is away")?;
    println!(
        "  cut from the database, the first server says so after {}: {}",
        seconds_since(began),
        fleet.says(0).trim()
    );
    let before = serial()?;
    new_serial(&before).ok_or("no new SVID from memory")??;
    println!(
        "  its agent has had a new SVID from its memory; the others are healthy: {}",
        fleet.is_healthy(1) && fleet.is_healthy(2)
    );
    fleet.cut_from_database(0, false)?;
    let began = Instant::now();
    fleet.expect_healthy()?;
    println!("  healed, it is well after {}", seconds_since(began));

    fleet.cut_from_agents(0, true)?;
    let began = Instant::now();
    let moved = wait_for(PATIENCE, || match serial() {
        Ok(_) => (balancer.carried()[1..].iter().sum::<usize>() > 0).then_some(Ok(())),
        Err(why) => Some(Err(why)),
    });
    println!("  cut from its agents, which see a silent connection: at another server after {}", seconds_since(began));
    fleet.cut_from_agents(0, false)?;
    moved.ok_or("the agent stays away")??;
    Ok(())
}
