//! A device's ordinary life.

use ironroot_lab::deployment::{Server, ServerOptions};
use ironroot_lab::machine::{Power, Shell};

use crate::Outcome;
use crate::lab::{AGENT_DEADLINE, Lab, WORKLOAD, expect_identity, expect_log, expect_sealed, fetch, first_svid};
use crate::stories::require;

/// What systemd takes from a machine's SMBIOS unless it is told not to: here lines of tmpfiles.d, which root carries out.
/// Source: systemd.system-credentials(7), tmpfiles.extra.
const INTRUDER: &str = "io.systemd.credential:tmpfiles.extra=f /run/lab-intruder 0644 root root - -";

pub fn factory(lab: &mut Lab) -> Outcome<String> {
    let board = lab.new_board()?;
    let mut machine = board.power_on(&Power { smbios: Some(INTRUDER.to_owned()), ..lab.power() })?;
    let hash = lab.enrol(&mut machine)?;
    let svid = first_svid(&mut machine)?;
    require(svid.said.contains("/app"), &format!("the workload got something else: {}", svid.said))?;
    let shell = machine.shell()?;
    let stranger = fetch(shell, WORKLOAD + 1)?;
    require(stranger.is_err(), "a process without an entry got an identity")?;
    let chip = shell.run("ls -l /dev/tpmrm0; systemctl show -p User --value ironroot-agent")?;
    require(chip.contains("tss") && chip.ends_with("ironroot-agent"), &format!("the agent has other rights: {chip}"))?;
    let secure = shell
        .run("cat /sys/kernel/security/lockdown; systemctl is-system-running --wait; systemctl --failed --no-legend")?;
    require(secure.contains("[integrity]"), &format!("the kernel is not locked down: {secure}"))?;
    require(secure.ends_with("running"), &format!("not every unit is well: {secure}"))?;
    closed(shell)?;
    expect_sealed(shell)?;
    let facts = format!("enrolled as {}…, first identity {:.1} s after the kernel's start", &hash[..8], svid.seconds);
    lab.keep(board, machine, hash)?;
    Ok(facts)
}

/// The root is root's and everybody may look into it; nobody logs in; the machine's owner brings no files of root's.
fn closed(shell: &mut Shell) -> Outcome<()> {
    let modes = shell.run("stat -c '%a %u %g' / /etc /usr/lib/systemd/system | sort -u")?;
    require(modes == "755 0 0", &format!("the root's folders have other modes or owners: {modes}"))?;
    let units = "getty@tty2 autovt@tty2 serial-getty@ttyS0 console-getty getty.target";
    let begun =
        shell.run(&format!("for unit in {units}; do systemctl start $unit && echo \"$unit begins\"; done; true"))?;
    require(!begun.contains("begins"), &format!("somebody could log in: {begun}"))?;
    let taken = shell.try_run("ls /run/lab-intruder")?;
    require(taken.1 != "0", "a credential of the machine's SMBIOS made a file of root's")
}

pub fn other_server(lab: &mut Lab) -> Outcome<String> {
    // Of the same trust domain, with a root of its own: to it the anchor in the image is the wrong one.
    let other = Server::start(&ServerOptions::default());
    let board = lab.new_board()?;
    let mut machine = board.power_on(&Power::reaching(other.port()))?;
    let shell = machine.shell()?;
    // Before that it may say that the network is not there yet.
    let why =
        "journalctl --no-pager -o cat -u ironroot-agent | grep -E 'sync failed.*(bundle|certificate)' | tail -n 1";
    let line = shell.expect("the agent says why", why, AGENT_DEADLINE, |said, _| !said.is_empty())?;
    require(fetch(shell, WORKLOAD)?.is_err(), "an identity from another server")?;
    let well = shell.run("systemctl is-active ironroot-agent; systemctl show -p NRestarts --value ironroot-agent")?;
    require(well == "active\n0", &format!("the unit did not stay up: {well}"))?;
    let row = "tail -n 1 /var/lib/ironroot-manifest/device.csv";
    let hash = shell.expect("the row is there", row, AGENT_DEADLINE, |said, _| said.len() == 64)?;
    lab.import(&hash);
    machine.cut();
    drop(other);
    let mut machine = board.power_on(&lab.power())?;
    first_svid(&mut machine)?;
    Ok(format!("nothing served, the unit stayed up; an identity from its own server; the log: {line}"))
}

pub fn offline(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    lab.server.kill();
    let mut machine = board.power_on(&lab.power())?;
    let svid = first_svid(&mut machine)?;
    let shell = machine.shell()?;
    expect_log(shell, "identities restored from the sealed cache")?;
    let times = shell.run(
        "systemctl show -p ExecMainStartTimestampMonotonic --value ironroot-agent; systemctl is-system-running --wait; \
         systemctl show -p ActiveEnterTimestampMonotonic --value sysinit.target",
    )?;
    let times: Vec<u64> = times.lines().filter_map(|line| line.parse().ok()).collect();
    require(
        times.len() == 2 && times[0] < times[1],
        &format!("the agent waited for what it does not need: {times:?}"),
    )?;
    Ok(format!(
        "{:.1} s from the kernel's start to the identity; the agent was there before sysinit.target",
        svid.seconds
    ))
}

pub fn network(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    let mut machine = board.power_on(&lab.power())?;
    first_svid(&mut machine)?;
    machine.plug_network(false)?;
    let later = WORKLOAD + 2;
    let entry = lab.create_entry("/later", later);
    let shell = machine.shell()?;
    require(fetch(shell, WORKLOAD)?.is_ok(), "the workload lost its identity with the network")?;
    require(fetch(shell, later)?.is_err(), "a new identity came through a cut network")?;
    machine.plug_network(true)?;
    expect_identity(machine.shell()?, later)?;
    lab.server.cli(&["entry", "delete", "-entryID", &entry]);
    Ok("the old identity served meanwhile, the new one after it".to_owned())
}
