//! Clocks that are wrong.

use ironroot_lab::machine::Power;

use crate::Outcome;
use crate::lab::{Lab, WORKLOAD, clock, expect_log, fetch, first_svid};
use crate::stories::require;

/// What a machine without a battery shows.
const LONG_AGO: &str = "1970-01-01T00:00:00";
/// Days that a device lies in a warehouse.
const WAREHOUSE_DAYS: u32 = 1096;

pub fn at_1970(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    let power = Power { clock: Some(LONG_AGO.to_owned()), ..lab.power() };
    // Nothing on the disk that would know better.
    let mut machine = board.power_on(&lab.power())?;
    machine.shell()?.run("rm -rf /var/lib/systemd/timesync /var/lib/private/systemd/timesync; sync")?;
    machine.cut();
    let mut machine = board.power_on(&power)?;
    let online = first_svid(&mut machine)?;
    let shell = machine.shell()?;
    let shown = shell.run("date +%Y-%m-%dT%H:%M:%S")?;
    // What knows the machine's own clock alone shows the identity, and says that the clock is behind.
    let by_clock = fetch(shell, WORKLOAD)?.map_err(|said| format!("\"api fetch\" by that clock: {said}"))?;
    require(by_clock.contains("this machine's clock shows"), &format!("nobody speaks of the clock: {by_clock}"))?;
    machine.cut();
    lab.server.kill();
    let mut machine = board.power_on(&power)?;
    let offline = first_svid(&mut machine)?;
    Ok(format!(
        "the guest's clock shows {shown}; {:.1} s with a server, {:.1} s without; \"api fetch\" warns of it",
        online.seconds, offline.seconds
    ))
}

pub fn at_last_shutdown(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    lab.server.kill();
    let mut machine = board.power_on(&Power { clock: Some(LONG_AGO.to_owned()), ..lab.power() })?;
    let svid = first_svid(&mut machine)?;
    let shell = machine.shell()?;
    expect_log(shell, "identities restored from the sealed cache")?;
    let (off_since, shown) = (lab.off_since()?, clock(shell)?);
    require(
        shown >= off_since,
        &format!("the clock shows {shown}, {} s before the shutdown", off_since.saturating_sub(shown)),
    )?;
    Ok(format!("the guest's clock shows {} s more than at the shutdown; {:.1} s", shown - off_since, svid.seconds))
}

pub fn warehouse(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    lab.server.reboot_at(&format!("+{WAREHOUSE_DAYS}d"));
    let today = time::OffsetDateTime::now_utc() + time::Duration::days(WAREHOUSE_DAYS.into());
    let clock = format!("{}T{:02}:{:02}:{:02}", today.date(), today.hour(), today.minute(), today.second());
    let mut machine = board.power_on(&Power { clock: Some(clock), ..lab.power() })?;
    let svid = first_svid(&mut machine)?;
    Ok(format!("{:.1} s from the kernel's start to a new identity, by the anchor in the image", svid.seconds))
}
