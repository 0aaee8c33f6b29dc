//! `kill -9` of the primary while join tokens are redeemed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::Outcome;
use crate::cluster::{Cluster, seconds_since};
use crate::fleet::Fleet;
use crate::tokens;

const TOKENS: usize = 1000;
/// How many answers are in when it dies.
const BEFORE: usize = 600;

pub fn run(cluster: &mut Cluster) -> Outcome<()> {
    let fleet = Fleet::start(cluster)?;
    let runtime = Runtime::new()?;
    let made = runtime.block_on(tokens::make(&fleet.servers[0], TOKENS));
    let done = Arc::new(AtomicUsize::new(0));
    let primary = cluster.expect_primary(None)?;
    let (ledger, outage) = runtime.block_on(async {
        tokio::join!(tokens::redeem(&fleet, &made, done.clone()), async {
            while done.load(Ordering::Relaxed) < BEFORE {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::task::block_in_place(|| {
                let killed = Instant::now();
                cluster.nodes[primary].kill()?;
                cluster.expect_primary(Some(primary))?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(seconds_since(killed))
            })
        })
    });
    let ledger = ledger?;
    println!("  killed after {BEFORE} answers; the standby took over after {}", outage?);
    println!("{ledger}");
    fleet.expect_healthy()?;
    ledger.settle(cluster, &fleet.database)
}
