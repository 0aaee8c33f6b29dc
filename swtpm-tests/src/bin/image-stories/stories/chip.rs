//! Another chip, and none.

use ironroot_lab::machine::{BOOT_DEADLINE, Power};

use crate::Outcome;
use crate::lab::{Lab, WORKLOAD, expect_log, fetch, first_svid, journal};
use crate::stories::require;

pub fn other_machine(lab: &mut Lab) -> Outcome<String> {
    let victim = lab.enrolled_board()?;
    let thief = lab.new_board()?;
    thief.take_disk_of(&victim)?;
    let mut machine = thief.power_on(&lab.power())?;
    let shell = machine.shell()?;
    let line = expect_log(shell, "the sealed cache is refused")?;
    require(line.contains("another TPM"), &format!("refused for another reason: {line}"))?;
    expect_log(shell, "is not enrolled")?;
    require(fetch(shell, WORKLOAD)?.is_err(), "a stolen disk gave an identity")?;
    machine.cut();
    let mut machine = victim.power_on(&lab.power())?;
    first_svid(&mut machine)?;
    expect_log(machine.shell()?, "identities restored from the sealed cache")?;
    Ok("the cache: sealed by another TPM; the server: not enrolled; nothing served; the victim serves as before"
        .to_owned())
}

pub fn missing(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    let mut machine = board.power_on(&Power { chip: false, ..lab.power() })?;
    let shell = machine.shell()?;
    let line = expect_log(shell, "cannot open the TPM")?;
    let state =
        shell.expect("the boot ends", "systemctl is-system-running; cat /proc/uptime", BOOT_DEADLINE, |said, _| {
            !said.starts_with("starting") && !said.starts_with("initializing")
        })?;
    let status = shell.try_run("systemctl status ironroot-agent --no-pager -n 0")?.0;
    require(status.contains("active (running)"), &format!("the unit is not active: {status}\n{}", journal(shell)))?;
    require(fetch(shell, WORKLOAD)?.is_err(), "an identity without a chip")?;
    let uptime = state.split_whitespace().nth(1).unwrap_or_default().to_owned();
    require(uptime.parse::<f64>().is_ok_and(|seconds| seconds < 120.0), &format!("the boot waited: {state}"))?;
    Ok(format!("{} after {uptime} s; the log: {line}", state.split_whitespace().next().unwrap_or_default()))
}
