//! A server of another version on the database of today's.

use std::path::PathBuf;

use crate::Outcome;
use crate::cluster::Cluster;
use crate::fleet::Fleet;
use crate::shell::shell;

/// Names the directory of the other version's `ironroot-server`.
const VARIABLE: &str = "IRONROOT_OLD_BIN";

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
    fleet.servers[0].restart();
    fleet.expect_all_work("/downgraded")?;
    println!("  one downgraded again: each server takes changes, and each follows them");
    Ok(())
}
