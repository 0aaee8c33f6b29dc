//! A server of another version on the database of today's.

use std::path::PathBuf;
use std::time::Duration;

use ironroot_lab::deployment::wait_for;

use crate::Outcome;
use crate::cluster::Cluster;
use crate::fleet::Fleet;
use crate::shell::shell;

/// Names the directory of the other version's `ironroot-server`.
const VARIABLE: &str = "IRONROOT_OLD_BIN";
/// What a server says of a database that a newer one has brought further.
const NEWER_SCHEMA: &str = "this server knows versions up to";
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(cluster: &mut Cluster) -> Outcome<()> {
    let Some(old) = std::env::var_os(VARIABLE).map(|directory| PathBuf::from(directory).join("ironroot-server")) else {
        println!("  LEFT OUT: set {VARIABLE}, see scripts/lab-ha --help");
        return Ok(());
    };
    let mut fleet = Fleet::start_by(cluster, Some(&old), "20s")?;
    println!("  three servers of {}", shell(&format!("{} --version 2>&1", old.display()))?.trim());
    fleet.expect_all_work("/before")?;
    // One after the other.
    for at in 0..fleet.servers.len() {
        fleet.servers[at].run_by(None);
        fleet.servers[at].restart();
        fleet.expect_all_work(&format!("/upgraded-{at}"))?;
        println!("  {} of 3 upgraded: each server takes changes, and each follows them", at + 1);
    }
    fleet.servers[0].run_by(Some(old));
    fleet.servers[0].spawn();
    let refuses = || fleet.servers[0].log().contains(NEWER_SCHEMA).then_some(true);
    let is_refused = wait_for(PATIENCE, || refuses().or_else(|| fleet.is_healthy(0).then_some(false)));
    match is_refused.ok_or("the older one neither serves nor says why")? {
        false => println!("  one downgraded again: each server takes changes, and each follows them"),
        true => {
            println!("  one downgraded again: it refuses the newer schema by name; back to today's");
            fleet.servers[0].run_by(None);
            fleet.servers[0].restart();
        }
    }
    fleet.expect_all_work("/downgraded")
}
