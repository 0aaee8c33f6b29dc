//! Power that goes at any moment, and an agent that hangs.

use std::thread::sleep;
use std::time::Duration;

use ironroot_lab::machine::Board;
use ironroot_lab::swtpm::Swtpm;

use crate::Outcome;
use crate::lab::{Lab, WORKLOAD, expect_identity, expect_log, first_svid, journal};
use crate::stories::require;

/// Longest from the moment that the server is back until the power goes: an attestation, a sync, some writes.
const LONGEST_LIFE_MS: u64 = 12_000;
/// Longest from the power button to an early cut: firmware, kernel, the agent's start.
const LONGEST_START_MS: u64 = 30_000;
/// One cut of so many is followed by an early one.
const EARLY_EVERY: u32 = 3;
/// The watchdog of the unit (60 s), the pause before the restart, and a busy machine.
const WATCHDOG_DEADLINE: Duration = Duration::from_secs(180);

pub fn cuts(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    let (mut slowest, mut moments) = (0.0_f64, Vec::new());
    for cut in 0..lab.cuts {
        lab.server.kill();
        if cut % EARLY_EVERY == 0 {
            moments.push(format!("{:.1} (early)", early_cut(lab, &board)?));
        }
        let mut machine = board.power_on(&lab.power())?;
        // What the last cut has left: everything that had been told to be sealed.
        let svid = first_svid(&mut machine)?;
        slowest = slowest.max(svid.seconds);
        let shell = machine.shell()?;
        expect_log(shell, "identities restored from the sealed cache")?;
        require(!journal(shell).contains("is refused"), &format!("after {cut} cuts: {}", journal(shell)))?;
        // What is taken away raises the chip's counter, what comes is written.
        lab.server.restart();
        let entry = lab.create_entry("/cut", WORKLOAD + 100 + cut);
        let moment = moment_within(LONGEST_LIFE_MS)?;
        let half = moment / 2;
        sleep(half);
        lab.server.cli(&["entry", "delete", "-entryID", &entry]);
        sleep(moment - half);
        machine.cut();
        chip_counts_nothing(&board)?;
        moments.push(format!("{:.1}", moment.as_secs_f32()));
        // A night's run is told from while it lasts.
        eprintln!(
            "  {} of {} cuts: {:.1} s to the identity before it, the chip's lockout counter is 0 after it",
            cut + 1,
            lab.cuts,
            svid.seconds
        );
    }
    lab.server.kill();
    let mut machine = board.power_on(&lab.power())?;
    let svid = first_svid(&mut machine)?;
    expect_log(machine.shell()?, "identities restored from the sealed cache")?;
    machine.cut();
    chip_counts_nothing(&board)?;
    Ok(format!(
        "{} cuts, {} s after the server came back or (early) the power; slowest identity after one {:.1} s; the chip's lockout counter is 0",
        lab.cuts,
        moments.join(", "),
        slowest.max(svid.seconds)
    ))
}

/// The chip, started anew after a cut, has counted no failure towards its lockout: a start without a shutdown counts as one where a key asks for it.
fn chip_counts_nothing(board: &Board) -> Outcome<()> {
    let counter = Swtpm::with_copy_of(&board.chip())?.lockout_counter()?;
    require(counter == 0, &format!("the chip counts {counter} failures towards its lockout"))
}

/// The power goes again before the device has come up: seconds that it was there.
fn early_cut(lab: &Lab, board: &Board) -> Outcome<f32> {
    let moment = moment_within(LONGEST_START_MS)?;
    let machine = board.power_on(&lab.power())?;
    sleep(moment);
    machine.cut();
    Ok(moment.as_secs_f32())
}

fn moment_within(longest_ms: u64) -> Outcome<Duration> {
    Ok(Duration::from_millis(u64::from(rand()?) % longest_ms))
}

pub fn watchdog(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    let mut machine = board.power_on(&lab.power())?;
    first_svid(&mut machine)?;
    let shell = machine.shell()?;
    let before = shell.run("systemctl show -p MainPID --value ironroot-agent")?;
    shell.run(&format!("kill -STOP {before}; cut -d' ' -f1 /proc/uptime > /run/stopped"))?;
    shell.expect(
        "another process",
        "systemctl show -p MainPID --value ironroot-agent",
        WATCHDOG_DEADLINE,
        |said, _| said != before && said != "0",
    )?;
    expect_identity(shell, WORKLOAD)?;
    let took = shell.run("cat /run/stopped /proc/uptime")?;
    let times: Vec<f64> = took.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    Ok(format!("{:.0} s from the hang to an identity (WatchdogSec=90)", times[1] - times[0]))
}

fn rand() -> Outcome<u16> {
    let mut bytes = [0; 2];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "no randomness")?;
    Ok(u16::from_be_bytes(bytes))
}
