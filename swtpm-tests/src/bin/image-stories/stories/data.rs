//! What happens to the data partition.

use ironroot_lab::machine::{Machine, Power};

use crate::Outcome;
use crate::lab::{
    Lab, WORKLOAD, count_sealed, expect_identity, expect_log, expect_more_sealed, expect_sealed, fetch, first_svid,
    journal,
};
use crate::stories::require;

pub fn full(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    let mut machine = board.power_on(&lab.power())?;
    first_svid(&mut machine)?;
    machine.shell()?.try_run("dd if=/dev/zero of=/var/fill bs=1M; dd if=/dev/zero of=/var/fill2 bs=512; sync")?;
    let later = WORKLOAD + 3;
    let entry = lab.create_entry("/later", later);
    let told = serves_though_full(&mut machine, later)?;
    machine.cut();
    // After a start that finds no room either; and then there is some.
    let mut machine = board.power_on(&lab.power())?;
    serves_though_full(&mut machine, later)?;
    let shell = machine.shell()?;
    shell.run("rm /var/fill /var/fill2")?;
    expect_log(shell, "identities sealed")?;
    machine.cut();
    lab.server.kill();
    let mut machine = board.power_on(&lab.power())?;
    expect_identity(machine.shell()?, later)?;
    lab.settle();
    lab.server.cli(&["entry", "delete", "-entryID", &entry]);
    Ok(format!("served on, also after a reboot; sealed once there was room, and then served offline; the log: {told}"))
}

/// What came while the disk was full is served, and not kept: the log's line.
fn serves_though_full(machine: &mut Machine, uid: u32) -> Outcome<String> {
    first_svid(machine)?;
    let shell = machine.shell()?;
    expect_identity(shell, uid)?;
    expect_log(shell, "identities are not kept")
}

pub fn read_only(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    lab.server.kill();
    let mut machine = board.power_on(&Power { read_only_disk: true, ..lab.power() })?;
    let svid = first_svid(&mut machine)?;
    let said = machine.shell()?.run("dmesg | grep ironroot-init: | tail -n 1")?;
    require(said.contains("read-only"), &format!("nobody says so: {said}"))?;
    Ok(format!("without a server, {:.1} s; the boot says: {}", svid.seconds, words(&said)))
}

pub fn corrupt(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    board.tamper(board.partition("ironroot-data")?, 512)?;
    let mut machine = board.power_on(&lab.power())?;
    let svid = first_svid(&mut machine)?;
    let shell = machine.shell()?;
    let said = shell.run("dmesg | grep ironroot-init:")?;
    require(said.contains("mkfs.ext4"), &format!("nobody says what to do: {said}"))?;
    // What the boot told: and then all is as before.
    let told = said.lines().find_map(|line| line.split_once("then: ")).map(|(_, command)| command.to_owned());
    shell.run(&format!("umount -l /var; yes | {}", told.ok_or("no command told")?))?;
    machine.cut();
    let mut machine = board.power_on(&lab.power())?;
    first_svid(&mut machine)?;
    expect_log(machine.shell()?, "identities sealed")?;
    machine.cut();
    lab.server.kill();
    let mut machine = board.power_on(&lab.power())?;
    first_svid(&mut machine)?;
    Ok(format!(
        "identities from the server ({:.1} s), offline again after the command that the boot told",
        svid.seconds
    ))
}

pub fn foreign(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    let mut machine = board.power_on(&lab.power())?;
    first_svid(&mut machine)?;
    let shell = machine.shell()?;
    shell.run("systemctl stop ironroot-agent; f=/var/lib/ironroot-agent/identities.sealed; truncate -s 100 $f; sync; ls -l $f")?;
    machine.cut();
    let mut machine = board.power_on(&lab.power())?;
    let shell = machine.shell()?;
    let line = expect_log(shell, "the sealed cache is refused")?;
    expect_identity(shell, WORKLOAD)?;
    let lines = journal(shell).matches("is refused").count();
    require(lines == 1, &format!("told {lines} times"))?;
    require(fetch(shell, WORKLOAD)?.is_ok(), "nothing served")?;
    Ok(words(&line))
}

pub fn set_back(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    let old = board.copy()?;
    let mut machine = board.power_on(&lab.power())?;
    first_svid(&mut machine)?;
    let shell = machine.shell()?;
    let entry = lab.create_entry("/later", WORKLOAD + 4);
    expect_identity(shell, WORKLOAD + 4)?;
    expect_sealed(shell)?;
    // What is taken away raises the chip's counter.
    let before = count_sealed(shell)?;
    lab.server.cli(&["entry", "delete", "-entryID", &entry]);
    expect_more_sealed(shell, before)?;
    machine.cut();
    board.take_disk_of(&old)?;
    lab.server.kill();
    let mut machine = board.power_on(&lab.power())?;
    let line = expect_log(machine.shell()?, "the sealed cache is refused")?;
    require(line.contains("an older file was put back"), &format!("refused for another reason: {line}"))?;
    require(fetch(machine.shell()?, WORKLOAD)?.is_err(), "an old disk gave an identity")?;
    lab.server.restart();
    first_svid(&mut machine)?;
    Ok(words(&line))
}

/// A kernel line without its time, an agent's line without its first words.
fn words(line: &str) -> String {
    line.split_once("ironroot-init: ").map_or(line, |(_, words)| words).to_owned()
}
