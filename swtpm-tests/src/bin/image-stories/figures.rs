//! What the agent costs an image and a device, as a table.

use std::fmt;

use ironroot_lab::machine::{Machine, Shell};

use crate::Outcome;
use crate::lab::{COUNT_SEALED, Lab, WORKLOAD, expect_identity, expect_more_sealed, first_svid};

/// How many workloads have identities when a day's writes are counted; most memory of the agent then, MB; most that it may write in a day, MB.
const WORKLOADS: [(u32, f64, f64); 3] = [(1, 12.0, 1.0), (10, 20.0, 2.0), (100, 20.0, 2.0)];
/// Longest from exec to the socket, offline.
const MOST_START_SECONDS: f64 = 0.5;
/// Most that the agent may add to a root: its program, the libraries that it alone brings, its unit. MB.
const MOST_ROOT_MB: f64 = 10.0;
/// Most flushes of the disk in a day: on cheap cards each one can cost a whole erase block.
const MOST_FLUSHES_A_DAY: f64 = 48.0;
/// Where the first of their users is.
const FIRST_USER: u32 = 61_000;
/// A day has so many writes of the cache at most, by the agent's own rule: one every 15 minutes (`sealed_cache::WRITE_INTERVAL`).
const WRITES_A_DAY: u32 = 86_400 / ironroot_agent::sealed_cache::WRITE_INTERVAL.as_secs() as u32;
/// Bytes of a sector in the kernel's counters.
const SECTOR_BYTES: f64 = 512.0;

/// A line of the table: what, how much, and what it was to be.
struct Row {
    what: String,
    value: String,
    goal: Option<Goal>,
}

/// What the project wants of a device of the class of a Raspberry Pi, and whether it is so.
struct Goal {
    words: String,
    met: bool,
}

impl Row {
    fn new(what: impl Into<String>, value: impl Into<String>) -> Self {
        Self { what: what.into(), value: value.into(), goal: None }
    }

    /// At most `most`, in the unit of `value`.
    fn at_most(what: impl Into<String>, value: f64, most: f64, unit: &str) -> Self {
        let goal = Goal { words: format!("{most} {unit}"), met: value <= most };
        Self { what: what.into(), value: format!("{value:.1} {unit}"), goal: Some(goal) }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (goal, met) = match &self.goal {
            None => ("", ""),
            Some(Goal { words, met: true }) => (words.as_str(), "met"),
            Some(Goal { words, met: false }) => (words.as_str(), "**missed**"),
        };
        write!(f, "| {} | {} | {goal} | {met} |", self.what, self.value)
    }
}

pub fn measure(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    let mut machine = board.power_on(&lab.power())?;
    let svid = first_svid(&mut machine)?;
    let first = format!("{:.1} s", svid.seconds);
    let mut rows = vec![Row::new("first identity after the kernel's start, with a server", first)];
    let shell = machine.shell()?;
    rows.push(Row::at_most("exec of the agent to its socket", exec_to_socket(shell)?, MOST_START_SECONDS, "s"));
    rows.extend(sizes(shell)?);
    let mut made = 0;
    for (workloads, most_mb, most_mb_a_day) in WORKLOADS {
        for number in made + 1..workloads {
            lab.create_entry(&format!("/figures-{number}"), FIRST_USER + number);
        }
        made = workloads - 1;
        // At once an agent writes WRITE_BURST times, then one time in WRITE_INTERVAL. One that was started anew has all of them before it.
        machine.shell()?.run("systemctl restart ironroot-agent")?;
        expect_identity(machine.shell()?, if made == 0 { WORKLOAD } else { FIRST_USER + made })?;
        let write = one_write(lab, &mut machine)?;
        rows.extend(write.rows(workloads, most_mb_a_day));
        let memory = memory(machine.shell()?)?;
        rows.push(Row::at_most(format!("memory of the agent (PSS), {workloads} identities"), memory, most_mb, "MB"));
    }
    Ok(rows.iter().map(|row| format!("\n  {row}")).collect())
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

/// Bytes in the image: the program, the library of the chip, all of the package's files, and their sum.
fn sizes(shell: &mut Shell) -> Outcome<Vec<Row>> {
    // The library may be in the program (scripts/tss2).
    let total = |files: &str| format!("stat -L -c %s {files} 2> /dev/null | awk '{{s += $1}} END {{print s + 0}}'");
    let (mut rows, mut sum) = (Vec::new(), 0);
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
        let bytes: u32 = shell.run(&total(&files))?.parse()?;
        sum += bytes;
        rows.push(Row::new(format!("bytes in the root: {what}"), bytes.to_string()));
    }
    rows.push(Row::at_most("the agent in the root, all of it", f64::from(sum) / 1e6, MOST_ROOT_MB, "MB"));
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

/// PSS, MB.
fn memory(shell: &mut Shell) -> Outcome<f64> {
    let kilobytes =
        shell.run("awk '/^Pss:/{print $2}' /proc/$(systemctl show -p MainPID --value ironroot-agent)/smaps_rollup")?;
    Ok(kilobytes.parse::<f64>()? / 1000.0)
}

/// What reaches the disk for one of the agent's own writes of its cache.
struct Write {
    requests: f64,
    bytes: f64,
    flushes: f64,
}

impl Write {
    /// Of one write, and of a day's at the most.
    fn rows(&self, workloads: u32, most_mb_a_day: f64) -> [Row; 3] {
        let one = format!("{:.0} bytes in {:.0} requests, {:.1} flushes", self.bytes, self.requests, self.flushes);
        let day = format!("flash in a day of {WRITES_A_DAY} writes, {workloads} workloads");
        let bytes = self.bytes * f64::from(WRITES_A_DAY) / 1e6;
        [
            Row::new(format!("flash: one write of the cache, {workloads} workloads"), one),
            Row::at_most(day.clone(), bytes, most_mb_a_day, "MB"),
            Row::at_most(day, self.flushes * f64::from(WRITES_A_DAY), MOST_FLUSHES_A_DAY, "flushes"),
        ]
    }
}

/// An entry comes, and what is held is sealed.
fn one_write(lab: &Lab, machine: &mut Machine) -> Outcome<Write> {
    let before = counters(machine.shell()?)?;
    let entry = lab.create_entry("/figures", FIRST_USER);
    expect_more_sealed(machine.shell()?, before.sealed)?;
    let after = counters(machine.shell()?)?;
    lab.server.cli(&["entry", "delete", "-entryID", &entry]);
    let each = |after: u64, before: u64, sealed: u64| (after - before) as f64 / sealed as f64;
    let sealed = after.sealed - before.sealed;
    Ok(Write {
        requests: each(after.requests, before.requests, sealed),
        bytes: each(after.sectors, before.sectors, sealed) * SECTOR_BYTES,
        flushes: each(after.flushes, before.flushes, sealed),
    })
}

/// Since the start: how often the agent has sealed, and what was written to the data partition.
struct Counters {
    sealed: u64,
    requests: u64,
    sectors: u64,
    /// Of the whole disk: the kernel counts no partition's. Nothing else of it is written to.
    flushes: u64,
}

/// Once everything is on the disk. Source of the fields: the kernel's Documentation/block/stat.rst.
fn counters(shell: &mut Shell) -> Outcome<Counters> {
    // A sync may be under way.
    shell.run("sleep 7; sync")?;
    let said = shell.run(&format!("{COUNT_SEALED}; cat /sys/class/block/vda4/stat /sys/class/block/vda/stat"))?;
    let mut lines = said.lines().map(numbers);
    let mut line = || lines.next().ok_or("no counters");
    let (sealed, partition, disk) = (line()?, line()?, line()?);
    let field = |of: &[u64], at: usize| of.get(at).copied().ok_or("a counter is missing");
    Ok(Counters {
        sealed: field(&sealed, 0)?,
        requests: field(&partition, 4)?,
        sectors: field(&partition, 6)?,
        flushes: field(&disk, 15)?,
    })
}

fn numbers(stat: &str) -> Vec<u64> {
    stat.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
