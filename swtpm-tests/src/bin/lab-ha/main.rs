//! Servers on a PostgreSQL that Patroni keeps alive, and what befalls them: `scripts/lab-ha` prepares the ground and runs this.
//!
//!   lab-ha [SCENARIO...]    every scenario, or these
//!   lab-ha --list           their names
//!
//! ```text
//!   n1 (10.77.0.11)   n2   n3      etcd, Patroni and PostgreSQL, each node in a network namespace
//!        └────────────┴────┘
//!        bridge, in the namespace in which this runs
//!        north   south   west      ironroot-servers, a SoftHSM token each, one database
//!        └───────┴───────┘
//!        balancer ── agents
//! ```

mod cluster;
mod fleet;
mod node;
mod proof;
mod scenarios;
mod shell;
mod tokens;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use cluster::Cluster;
use scenarios::{SCENARIOS, Scenario};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Exit code for a wrong command line. Source: sysexits.h, EX_USAGE.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["--list"] {
        SCENARIOS.iter().for_each(|scenario| println!("{:<18} {}", scenario.name, scenario.claim));
        return ExitCode::SUCCESS;
    }
    let Some(wanted) = wanted(&arguments) else {
        eprintln!("lab-ha: there is no such scenario: scripts/lab-ha --list names them");
        return ExitCode::from(EXIT_USAGE);
    };
    match run(&wanted) {
        Ok(failed) if failed.is_empty() => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("lab-ha: broken: {}", failed.join(" "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("lab-ha: {error}");
            ExitCode::FAILURE
        }
    }
}

fn wanted(names: &[String]) -> Option<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Some(SCENARIOS.iter().collect());
    }
    names.iter().map(|name| SCENARIOS.iter().find(|scenario| scenario.name == name)).collect()
}

/// The names of those that did not hold.
fn run(wanted: &[&'static Scenario]) -> Outcome<Vec<&'static str>> {
    let began = Instant::now();
    let mut cluster = Cluster::start()?;
    println!("three nodes, one of them a synchronous standby, after {:.1} s", began.elapsed().as_secs_f64());
    let mut failed = Vec::new();
    for scenario in wanted {
        println!("\n{}: {}", scenario.name, scenario.claim);
        let began = Instant::now();
        if let Err(broken) = (scenario.run)(&mut cluster) {
            println!("  BROKEN: {broken}");
            failed.push(scenario.name);
        }
        println!("  {:.0} s", began.elapsed().as_secs_f64());
        cluster.mend()?;
    }
    Ok(failed)
}
