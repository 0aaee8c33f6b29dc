//! etcd has no quorum for a while.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::cluster::Cluster;
use crate::fleet::Fleet;

const FROZEN: Duration = Duration::from_secs(15);
/// A change that takes longer was an outage.
const OUTAGE: Duration = Duration::from_secs(3);

pub fn run(cluster: &mut Cluster) -> Outcome<()> {
    let fleet = Fleet::start(cluster)?;
    let primary = cluster.expect_primary(None)?;
    for at in (0..3).filter(|at| *at != primary) {
        cluster.nodes[at].freeze_etcd(true)?;
    }
    let (began, mut slowest, mut changes) = (Instant::now(), Duration::ZERO, 0);
    while began.elapsed() < FROZEN {
        let each = Instant::now();
        fleet.servers[0].cli(&["token", "generate"]);
        (slowest, changes) = (slowest.max(each.elapsed()), changes + 1);
    }
    let stays = cluster.primary();
    println!(
        "  {changes} changes in {} s without a quorum, the slowest after {:.2} s",
        FROZEN.as_secs(),
        slowest.as_secs_f64()
    );
    match stays == Some(primary) && slowest < OUTAGE {
        true => Ok(()),
        false => Err(format!("the primary was {primary}, and is {stays:?}").into()),
    }
}
