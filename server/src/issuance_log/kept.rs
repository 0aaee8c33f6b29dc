//! What operators did, from segments that go: how many SVIDs and tokens are issued is for agents and workloads to say, and those push out
//! segments, but not this.
//!
//! No part of the chain: nothing proves these records once their segment is gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ironroot_shell::durable_file::sync_directory_of;
use tracing::warn;

use super::chain::{Record, push_line};
use super::error::LogError;
use super::segment::{self, MAX_SEGMENT_BYTES};

/// Files that are kept, each some [`MAX_SEGMENT_BYTES`] long: 128 MiB, some 300,000 records. When there are more, the oldest goes.
pub const MAX_KEPT_FILES: usize = 16;
/// What their names begin with; the sequence number of the first record follows.
const PREFIX: &str = "kept-";
const MODE: u32 = 0o600;
/// What agents, servers below and workloads have done by themselves, as often as they like.
const NOT_KEPT: [&str; 11] = [
    "AttestAgent",
    "RenewAgent",
    "BatchNewX509SVID",
    "NewJWTSVID",
    "BatchNewWITSVID",
    "NewDownstreamX509CA",
    "PublishJWTAuthority",
    "PublishWITAuthority",
    "ReportIssued",
    "ExchangeToken",
    "LeftOut",
];

/// Removes the oldest segments but for the newest `most`; what operators did by them is kept.
pub(super) fn drop_old(directory: &Path, most: usize) -> io::Result<()> {
    let segments = segment::list(directory).unwrap_or_default();
    for old in &segments[..segments.len().saturating_sub(most)] {
        keep(directory, old)?;
        fs::remove_file(old)?;
    }
    Ok(())
}

/// Whether it is of those that are kept: what operators did, and what the server says of itself.
pub(super) fn is_kept(record: &Record) -> bool {
    is_kept_method(&record.body.method)
}

/// The same, by what was done.
pub(super) fn is_kept_method(method: &str) -> bool {
    !NOT_KEPT.contains(&method)
}

/// Hands each kept record to `take`, the oldest first. Some may be in the chain still.
pub fn read_kept(directory: &Path, mut take: impl FnMut(&Record)) -> Result<(), LogError> {
    for path in list(directory).map_err(|error| LogError::Io { doing: "list", path: directory.to_owned(), error })? {
        read(&path, |record| take(&record)).map_err(|error| LogError::Io { doing: "read", path, error })?;
    }
    Ok(())
}

fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(".log")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// How many bytes of it are whole records: the machine may have lost its power while the last was written.
fn read(path: &Path, mut take: impl FnMut(Record)) -> io::Result<u64> {
    let (mut from, mut line, mut whole) = (BufReader::new(File::open(path)?), Vec::new(), 0);
    while from.read_until(b'\n', &mut line)? > 0 {
        match serde_json::from_slice(&line) {
            Ok(record) if line.ends_with(b"\n") => take(record),
            _ => break,
        }
        whole += line.len() as u64;
        line.clear();
    }
    Ok(whole)
}

/// On the disk on return. What is kept already, since the machine stopped before the segment was removed, is not kept twice.
fn keep(directory: &Path, segment: &Path) -> io::Result<()> {
    let files = list(directory)?;
    let (mut last, mut whole) = (0, 0);
    if let Some(newest) = files.last() {
        whole = read(newest, |record| last = record.body.sequence)?;
    }
    let (mut lines, mut first) = (Vec::new(), 0);
    let read = segment::read(segment, |record, _| {
        if record.body.sequence > last && is_kept(&record) {
            first = if lines.is_empty() { record.body.sequence } else { first };
            push_line(&mut lines, &record);
        }
    });
    if let Err(why) = read {
        warn!(error = %why, "the oldest segment of the issuance log cannot be read whole, and goes");
    }
    if lines.is_empty() {
        return Ok(());
    }
    let begun = files.last().filter(|_| whole < MAX_SEGMENT_BYTES);
    let path = begun.cloned().unwrap_or_else(|| directory.join(format!("{PREFIX}{first:020}.log")));
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(&path)?;
    file.set_len(if begun.is_some() { whole } else { 0 })?;
    io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
    file.write_all(&lines)?;
    file.sync_all()?;
    sync_directory_of(&path)?;
    let files = list(directory)?;
    files[..files.len().saturating_sub(MAX_KEPT_FILES)].iter().try_for_each(fs::remove_file)
}
