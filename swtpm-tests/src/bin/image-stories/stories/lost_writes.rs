//! A disk that loses, at a power cut, any of the writes that it was not asked to make lasting.
//!
//! One life is written down, write by write. What a cut at any moment of it may have left is then made of the log, many times, and
//! judged on this machine: the file system is brought in order as the image's initramfs does it, and the cache is the one that was
//! there or the one that was being written, whole. Some of these disks are booted, with the chip as it was.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::rc::Rc;

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_fuzz::Dice;
use ironroot_lab::machine::{Board, Machine, Partition, Power, WriteLog};

use crate::Outcome;
use crate::lab::{COUNT_SEALED, Lab, WORKLOAD, count_sealed, expect_log, expect_more_sealed, first_svid, journal};
use crate::stories::require;

/// Entries that come and go, so that the cache is written twice for each: together no more than `sealed_cache::WRITE_BURST`.
const ROUNDS: u32 = 2;
/// Cuts that are judged on this machine, for each time between two states of the cache.
const CUTS: u64 = 16;
/// Cuts that a machine is booted after.
const BOOTS: usize = 3;
/// Times between two states of the cache that a run must have brought.
const LEAST_WINDOWS: usize = 3;
/// Bytes that are looked at together when a disk is written with holes.
const PIECE_BYTES: usize = 4096;
/// What becomes a hole.
static HOLE: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// A moment at which nothing is being written.
#[derive(Clone)]
struct Mark {
    /// How many entries the log of writes has.
    writes: usize,
    /// How often the agent has sealed since its start.
    sealed: u64,
    /// Of the cache, in hexadecimal digits.
    sha256: String,
    /// With the chip as it is.
    board: Rc<Board>,
}

/// What there was before any of it, and how it went on.
struct Life {
    lies: Partition,
    before: Vec<u8>,
    log: WriteLog,
    windows: Vec<[Mark; 2]>,
}

/// What a number of cuts has come to.
#[derive(Default)]
struct Found {
    old: u64,
    new: u64,
}

pub fn tell(lab: &mut Lab) -> Outcome<String> {
    let life = live(lab)?;
    require(life.windows.len() >= LEAST_WINDOWS, "the agent did not write one state after the other")?;
    let seed = u64::from(std::process::id());
    let with_seed = |error| format!("seed {seed}: {error}");
    let mut dice = Dice::new(seed);
    let found = judge(&life, &mut dice).map_err(with_seed)?;
    lab.server.kill();
    let mut slowest = 0.0_f64;
    for _ in 0..BOOTS {
        let window = dice.below(life.windows.len() as u64);
        let seconds = boot(&life, &life.windows[usize::try_from(window)?], &mut dice, lab).map_err(with_seed)?;
        slowest = slowest.max(seconds);
    }
    let writes = life.windows.last().map_or(0, |window| window[1].writes);
    let flushes = life.log.flushes(0..writes);
    Ok(format!(
        "{} writes, {flushes} flushes; {} cuts: {} times the old cache, {} times the new one, each disk brought in order by e2fsck -p; \
         {BOOTS} more booted without a server, slowest identity {slowest:.1} s",
        writes - flushes,
        found.old + found.new,
        found.old,
        found.new
    ))
}

/// A start from the cache without a server; then a server, and entries that come and go.
fn live(lab: &mut Lab) -> Outcome<Life> {
    let board = lab.enrolled_board()?;
    let lies = board.partition("ironroot-data")?;
    let before = board.read(lies)?;
    let off = Mark { writes: 0, sealed: 0, sha256: cache_on(&before)?, board: Rc::new(board.copy()?) };
    lab.server.kill();
    let mut machine = board.power_on(&Power { log_writes: true, ..lab.power() })?;
    first_svid(&mut machine)?;
    let started = mark(&mut machine, &board)?;
    require(off.sha256 == started.sha256, "the cache was written without a server")?;
    lab.server.restart();
    // The first time in each run the cache is written twice: see sealed_cache::generations. What lies between is not judged.
    come_and_go(lab, &mut machine, 0, &mut |_| Ok(()))?;
    let mut marks = vec![mark(&mut machine, &board)?];
    for round in 1..=ROUNDS {
        come_and_go(lab, &mut machine, round, &mut |machine| {
            marks.push(mark(machine, &board)?);
            Ok(())
        })?;
    }
    machine.cut();
    let once = marks.windows(2).filter(|pair| pair[1].sealed == pair[0].sealed + 1);
    let windows = [[off, started]].into_iter().chain(once.map(|pair| [pair[0].clone(), pair[1].clone()]));
    Ok(Life { lies, before, log: board.write_log()?, windows: windows.collect() })
}

/// An entry comes, and goes; `sealed` is called each time that the agent has written it down.
fn come_and_go(
    lab: &Lab,
    machine: &mut Machine,
    round: u32,
    sealed: &mut dyn FnMut(&mut Machine) -> Outcome<()>,
) -> Outcome<()> {
    let before = count_sealed(machine.shell()?)?;
    let entry = lab.create_entry("/lost", WORKLOAD + 200 + round);
    expect_more_sealed(machine.shell()?, before)?;
    sealed(machine)?;
    let before = count_sealed(machine.shell()?)?;
    lab.server.cli(&["entry", "delete", "-entryID", &entry]);
    expect_more_sealed(machine.shell()?, before)?;
    sealed(machine)
}

/// What is on the disk now, once the same has been there for two looks.
fn mark(machine: &mut Machine, board: &Board) -> Outcome<Mark> {
    let look = format!("sha256sum < /var/lib/ironroot-agent/identities.sealed; {COUNT_SEALED}; true");
    let first = machine.shell()?.run(&look)?;
    let writes = machine.writes()?;
    let board = Rc::new(board.copy()?);
    require(machine.shell()?.run(&look)? == first, "the cache is written without a reason")?;
    let mut words = first.split_whitespace().filter(|word| *word != "-");
    let (sha256, sealed) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().parse()?);
    Ok(Mark { writes, sealed, sha256, board })
}

impl Life {
    /// The data partition after a cut at some moment between these marks.
    fn cut(&self, [from, to]: &[Mark; 2], dice: &mut Dice) -> Outcome<Vec<u8>> {
        let writes = u64::try_from(to.writes.saturating_sub(from.writes))?.max(1);
        let until = from.writes + 1 + usize::try_from(dice.below(writes))?;
        let mut disk = self.before.clone();
        self.log.replay(&mut disk, self.lies, until, || dice.below(2) == 0);
        Ok(disk)
    }
}

fn judge(life: &Life, dice: &mut Dice) -> Outcome<Found> {
    let mut found = Found::default();
    for window in &life.windows {
        for _ in 0..CUTS {
            let cache = cache_on(&life.cut(window, dice)?)?;
            match window.iter().position(|mark| mark.sha256 == cache) {
                Some(0) => found.old += 1,
                Some(_) => found.new += 1,
                None => {
                    return Err("the cache is neither the one that was there nor the one that was being written".into());
                }
            }
        }
    }
    Ok(found)
}

/// SHA-256 of the cache on this file system, once it is in order as `scripts/device-image/init` brings it.
fn cache_on(disk: &[u8]) -> Outcome<String> {
    let folder = tempfile::tempdir()?;
    let (image, cache) = (folder.path().join("data.raw"), folder.path().join("cache"));
    let file = File::create(&image)?;
    file.set_len(disk.len() as u64)?;
    for (piece, at) in disk.chunks(PIECE_BYTES).zip((0..).step_by(PIECE_BYTES)) {
        if piece != &HOLE[..piece.len()] {
            file.write_all_at(piece, at)?;
        }
    }
    let repaired = Command::new("e2fsck").arg("-p").arg(&image).output()?;
    let said = String::from_utf8_lossy(&repaired.stdout).into_owned();
    require(
        repaired.status.code().is_some_and(|code| code < 4),
        &format!("e2fsck -p does not repair the disk: {said}"),
    )?;
    let dump = format!("dump /lib/ironroot-agent/{} {}", ironroot_agent::sealed_cache::FILE_NAME, cache.display());
    Command::new("debugfs").args(["-R", &dump]).arg(&image).output()?;
    let cache = fs::read(&cache).map_err(|error| format!("no cache on the disk: {error}"))?;
    Ok(digest(&SHA256, &cache).as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Seconds from the kernel's start to the identity, from the cache that a cut has left.
fn boot(life: &Life, window: &[Mark; 2], dice: &mut Dice, lab: &Lab) -> Outcome<f64> {
    let board = window[0].board.copy()?;
    board.write(life.lies, &life.cut(window, dice)?)?;
    let mut machine = board.power_on(&lab.power())?;
    let svid = first_svid(&mut machine)?;
    let shell = machine.shell()?;
    expect_log(shell, "identities restored from the sealed cache")?;
    require(!journal(shell).contains("is refused"), &format!("something is refused: {}", journal(shell)))?;
    Ok(svid.seconds)
}
