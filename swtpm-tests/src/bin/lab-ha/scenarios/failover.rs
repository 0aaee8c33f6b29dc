//! The primary's machine is gone for a while. What the servers do meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ironroot_lab::deployment::{AgentOptions, Device, wait_for};

use crate::Outcome;
use crate::cluster::{Cluster, PATIENCE};
use crate::fleet::Fleet;
use crate::node::Node;

/// Whose SVIDs are looked at.
const WORKLOAD: u32 = 60_001;
/// Between two changes, and two looks at an SVID.
const PAUSE: Duration = Duration::from_millis(200);

pub fn kill(cluster: &mut Cluster) -> Outcome<()> {
    befalls(cluster, Node::kill, |_| Ok(()))
}

pub fn freeze(cluster: &mut Cluster) -> Outcome<()> {
    befalls(cluster, |node| node.freeze(true), |node| node.freeze(false))
}

pub fn cut(cluster: &mut Cluster) -> Outcome<()> {
    befalls(cluster, |node| node.cut(), |node| node.heal())
}

pub fn crash(cluster: &mut Cluster) -> Outcome<()> {
    befalls(cluster, |node| node.crash(), |_| Ok(()))
}

/// What was acknowledged, and what was not.
#[derive(Default)]
struct Changes {
    made: Vec<String>,
    refused: BTreeMap<String, usize>,
    longest: Duration,
    slowest_refusal: Duration,
}

/// Changes at one server, one after the other, until `over`.
fn change(fleet: &Fleet, over: &AtomicBool) -> Changes {
    let (mut changes, mut last) = (Changes::default(), Instant::now());
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let (id, began) = (format!("spiffe://lab.example/change-{number}"), Instant::now());
        let made = fleet.servers[1].cli_output(&[
            "entry",
            "create",
            "-parentID",
            "spiffe://lab.example/host",
            "-spiffeID",
            &id,
            "-selector",
            "unix:uid:1",
        ]);
        if made.status.success() {
            changes.longest = changes.longest.max(last.elapsed());
            last = Instant::now();
            changes.made.push(id);
        } else {
            changes.slowest_refusal = changes.slowest_refusal.max(began.elapsed());
            let said = String::from_utf8_lossy(&made.stderr);
            let said = said.lines().find(|line| line.contains("data store")).or(said.lines().last());
            *changes.refused.entry(said.unwrap_or("nothing").to_owned()).or_default() += 1;
        }
        std::thread::sleep(PAUSE);
    }
    changes
}

/// When the workload had a new SVID, until `over`; an error is a fetch that failed.
fn fetch(device: &Device, over: &AtomicBool) -> Result<Vec<Instant>, String> {
    let (mut changed, mut last) = (Vec::new(), String::new());
    while !over.load(Ordering::Relaxed) {
        let serial = device.fetch(WORKLOAD)?.leaves[0].serial_decimal();
        if serial != last {
            changed.push(Instant::now());
            last = serial;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(changed)
}

fn befalls(
    cluster: &mut Cluster,
    begin: impl FnOnce(&mut Node) -> Outcome<()>,
    end: impl FnOnce(&Node) -> Outcome<()>,
) -> Outcome<()> {
    let fleet = Fleet::start(cluster)?;
    let device = fleet.device(WORKLOAD, &AgentOptions::default())?;
    let primary = cluster.expect_primary(None)?;
    let over = AtomicBool::new(false);
    let (changes, serials, told) = std::thread::scope(|scope| {
        let changes = scope.spawn(|| change(&fleet, &over));
        let serials = scope.spawn(|| fetch(&device, &over));
        let told = live_through(cluster, &fleet, primary, begin, end);
        over.store(true, Ordering::Relaxed);
        (changes.join(), serials.join(), told)
    });
    let changes = changes.map_err(|_| "the changes panicked")?;
    let serials = serials.map_err(|_| "the fetches panicked")??;
    let (began, promoted) = told?;
    let signed = serials.iter().filter(|at| (began..promoted).contains(*at)).count();
    let (took, longest) = (promoted.duration_since(began).as_secs_f64(), changes.longest.as_secs_f64());
    println!("  another primary after {took:.1} s; the longest time without a change {longest:.1} s");
    println!(
        "  {} changes taken; refused, at the latest after {:.1} s:",
        changes.made.len(),
        changes.slowest_refusal.as_secs_f64()
    );
    changes.refused.iter().for_each(|(why, times)| println!("    {times} x {why}"));
    println!(
        "  {} SVIDs of the workload, {signed} of them new while no primary was there, no fetch failed",
        serials.len()
    );
    let kept = cluster.sql(&fleet.database, "SELECT spiffe_id FROM entries")?;
    let lost = changes.made.iter().filter(|id| !kept.lines().any(|line| line == id.as_str())).count();
    println!("  taken, then lost: {lost}");
    if lost > 0 { Err(format!("{lost} changes were lost that had been acknowledged").into()) } else { Ok(()) }
}

/// When it began, and when there was another primary.
fn live_through(
    cluster: &mut Cluster,
    fleet: &Fleet,
    primary: usize,
    begin: impl FnOnce(&mut Node) -> Outcome<()>,
    end: impl FnOnce(&Node) -> Outcome<()>,
) -> Outcome<(Instant, Instant)> {
    let began = Instant::now();
    begin(&mut cluster.nodes[primary])?;
    cluster.expect_primary(Some(primary))?;
    let promoted = Instant::now();
    fleet.expect_healthy()?;
    end(&cluster.nodes[primary])?;
    // What thaws or comes back must not be believed.
    wait_for(PATIENCE, || cluster.primary()).ok_or("no primary after it came back")?;
    fleet.expect_healthy()?;
    Ok((began, promoted))
}
