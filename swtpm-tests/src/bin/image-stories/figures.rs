//! What the agent costs an image and a device, as a table.

use ironroot_lab::machine::{Machine, Shell};

use crate::Outcome;
use crate::lab::{COUNT_SEALED, Lab, WORKLOAD, expect_identity, expect_more_sealed, first_svid};

/// How many workloads have identities when a day's writes are counted.
const WORKLOADS: [u32; 3] = [1, 10, 100];
/// Where the first of their users is.
const FIRST_USER: u32 = 61_000;
/// A day has so many writes of the cache at most, by the agent's own rule: one every 15 minutes (`sealed_cache::WRITE_INTERVAL`).
const WRITES_A_DAY: u64 = 86_400 / ironroot_agent::sealed_cache::WRITE_INTERVAL.as_secs();
/// Bytes of a sector in the kernel's counters.
const SECTOR_BYTES: u64 = 512;

pub fn measure(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    let mut machine = board.power_on(&lab.power())?;
    let svid = first_svid(&mut machine)?;
    let mut rows =
        vec![("first identity after the kernel's start, with a server".to_owned(), format!("{:.1} s", svid.seconds))];
    let shell = machine.shell()?;
    rows.push(("exec of the agent to its socket".to_owned(), format!("{:.2} s", exec_to_socket(shell)?)));
    rows.extend(sizes(shell)?);
    rows.push(("memory of the agent (PSS), one workload".to_owned(), memory(shell)?));
    let mut made = 0;
    for workloads in WORKLOADS {
        for number in made + 1..workloads {
            lab.create_entry(&format!("/figures-{number}"), FIRST_USER + number);
        }
        made = workloads - 1;
        // At once an agent writes WRITE_BURST times, then one time in WRITE_INTERVAL. One that was started anew has all of them before it.
        machine.shell()?.run("systemctl restart ironroot-agent")?;
        expect_identity(machine.shell()?, if made == 0 { WORKLOAD } else { FIRST_USER + made })?;
        let (writes, bytes) = one_write(lab, &mut machine)?;
        let day = bytes * WRITES_A_DAY;
        rows.push((
            format!("flash writes, {workloads} workloads"),
            format!("{bytes} bytes in {writes} requests for one write of the cache; at most {} a day", mebibytes(day)),
        ));
        rows.push((format!("memory of the agent (PSS), {workloads} identities"), memory(machine.shell()?)?));
    }
    Ok(rows.iter().map(|(what, value)| format!("\n  | {what} | {value} |")).collect())
}

/// Seconds, by systemd's own times.
fn exec_to_socket(shell: &mut Shell) -> Outcome<f64> {
    let said = shell
        .run("systemctl show ironroot-agent -p ExecMainStartTimestampMonotonic -p ActiveEnterTimestampMonotonic")?;
    let time =
        |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).and_then(|value| value.parse::<f64>().ok());
    let (start, ready) = (time("ExecMainStartTimestampMonotonic="), time("ActiveEnterTimestampMonotonic="));
    Ok((ready.ok_or("no time")? - start.ok_or("no time")?) / 1e6)
}

/// Bytes in the image: the program, the library of the chip, all of the package's files.
fn sizes(shell: &mut Shell) -> Outcome<Vec<(String, String)>> {
    let total = |files: &str| format!("stat -L -c %s {files} | awk '{{s += $1}} END {{print s}}'");
    let mut rows = Vec::new();
    for (what, files) in [
        ("the agent's program", "/usr/bin/ironroot-agent"),
        (
            "libtss2 (esys, sys, mu, tctildr, tcti-device)",
            "/usr/lib/*-linux-gnu/libtss2-{esys,sys,mu,tctildr,tcti-device}.so.?",
        ),
        (
            "unit, user, configuration",
            "/lib/systemd/system/ironroot-* /usr/lib/sysusers.d/ironroot-agent.conf /etc/ironroot/*",
        ),
    ] {
        let files = if files.contains('{') { expand(files) } else { files.to_owned() };
        rows.push((format!("bytes in the root: {what}"), shell.run(&total(&files))?));
    }
    Ok(rows)
}

/// Braces, which the guest's shell does not know.
fn expand(files: &str) -> String {
    let Some(((before, middle), after)) =
        files.split_once('{').and_then(|(b, rest)| Some(((b, rest.split_once('}')?.0), rest.split_once('}')?.1)))
    else {
        return files.to_owned();
    };
    middle.split(',').map(|part| format!("{before}{part}{after} ")).collect()
}

fn memory(shell: &mut Shell) -> Outcome<String> {
    let kilobytes =
        shell.run("awk '/^Pss:/{print $2}' /proc/$(systemctl show -p MainPID --value ironroot-agent)/smaps_rollup")?;
    Ok(format!("{:.1} MB", kilobytes.parse::<f64>()? / 1000.0))
}

/// Requests and bytes that reach the disk for one of the agent's own writes of its cache: an entry comes, and what is held is sealed.
fn one_write(lab: &Lab, machine: &mut Machine) -> Outcome<(u64, u64)> {
    let (sealed, before) = sealed_and_written(machine.shell()?)?;
    let entry = lab.create_entry("/figures", FIRST_USER);
    expect_more_sealed(machine.shell()?, sealed)?;
    let (sealed_after, after) = sealed_and_written(machine.shell()?)?;
    lab.server.cli(&["entry", "delete", "-entryID", &entry]);
    let writes = sealed_after - sealed;
    Ok(((after[4] - before[4]) / writes, (after[6] - before[6]) * SECTOR_BYTES / writes))
}

/// How often the agent has sealed, and the data partition's counters, once everything is on it.
fn sealed_and_written(shell: &mut Shell) -> Outcome<(u64, Vec<u64>)> {
    // A sync may be under way.
    shell.run("sleep 7; sync")?;
    let said = shell.run(&format!("{COUNT_SEALED}; cat /sys/class/block/vda4/stat"))?;
    let all = numbers(&said);
    let (sealed, written) = all.split_first().ok_or("no counters")?;
    Ok((*sealed, written.to_vec()))
}

fn numbers(stat: &str) -> Vec<u64> {
    stat.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}
