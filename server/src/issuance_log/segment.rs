//! Files of the log: a first line that says what comes before, then a record a line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ironroot_shell::durable_file::sync_directory_of;
use ironroot_text::hex::{hex, parse_hex};
use serde::{Deserialize, Serialize};

use super::chain::{Head, Record};
use super::error::LogError;

/// The log's directory, in the server's own.
pub const DIRECTORY: &str = "issuance";
/// A segment that has so many bytes is followed by another.
pub const MAX_SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// Segments that are kept: 1 GiB, some 2.5 million records of 400 bytes, and 400,000 of the longest. When there are more, the oldest goes; the
/// chain goes on.
pub const MAX_SEGMENTS: usize = 128;
/// Longest line read, bytes: two fields of [`MAX_OBJECT_BYTES`](super::MAX_OBJECT_BYTES) and the object of a ban, each byte written as six at
/// most, as older servers wrote control characters, and numbers.
pub const MAX_LINE_BYTES: usize = 6 * (2 * super::MAX_OBJECT_BYTES + super::chain::MAX_BAN_BYTES) + 1024;
const MODE: u32 = 0o600;

/// The first line of a segment.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Before {
    epoch: u64,
    sequence: u64,
    hash: String,
}

/// The segments in `directory`, the oldest first.
pub(super) fn list(directory: &Path) -> Result<Vec<PathBuf>, LogError> {
    let failed = |error| LogError::Io { doing: "list", path: directory.to_owned(), error };
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".log"));
        if stem.is_some_and(|stem| stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit())) {
            segments.push(path);
        }
    }
    segments.sort();
    Ok(segments)
}

/// The segments in `directory` that were begun whole, the oldest first, and the newest if it was not: the machine lost its power, or the
/// disk was full, while its first line was written. It holds nothing.
pub(super) fn list_begun(directory: &Path) -> Result<(Vec<PathBuf>, Option<PathBuf>), LogError> {
    let mut segments = list(directory)?;
    let torn = match segments.last() {
        Some(newest) if !is_begun(newest)? => segments.pop(),
        _ => None,
    };
    Ok((segments, torn))
}

fn is_begun(path: &Path) -> Result<bool, LogError> {
    let failed = |error| LogError::Io { doing: "read", path: path.to_owned(), error };
    let (file, mut line) = (File::open(path).map_err(failed)?, Vec::new());
    let length = BufReader::new(file).take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line).map_err(failed)?;
    Ok(line.last() == Some(&b'\n') || length > MAX_LINE_BYTES)
}

/// Makes the log's directory if it is missing.
pub(super) fn make(directory: &Path) -> Result<(), LogError> {
    let made = fs::DirBuilder::new().mode(0o700).create(directory);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(LogError::Io { doing: "make", path: directory.to_owned(), error })
        }
        _ => Ok(()),
    }
}

/// Where the segment that follows `before` is.
pub(super) fn path(directory: &Path, before: &Head) -> PathBuf {
    directory.join(format!("{:020}.log", before.sequence + 1))
}

/// Begins the segment that follows `before`: the file, which is on the disk with its first line, and how long that is.
pub(super) fn begin(directory: &Path, before: &Head) -> io::Result<(File, u64)> {
    let path = path(directory, before);
    let Head { epoch, sequence, hash } = *before;
    let mut line = serde_json::to_vec(&Before { epoch, sequence, hash: hex(&hash) }).map_err(io::Error::other)?;
    line.push(b'\n');
    // One that is there holds no record that counts: it was begun, and the machine lost its power.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&path)?;
    io::Write::write_all(&mut file, &line)?;
    file.sync_all()?;
    sync_directory_of(&path)?;
    Ok((file, line.len() as u64))
}

/// Reads a segment to its end and gives each record to `take`. The head before it, that after it, and how many bytes of it are whole: a
/// last line without its end was being written when the machine stopped.
pub(super) fn read(path: &Path, mut take: impl FnMut(Record, Head)) -> Result<(Head, Head, u64), LogError> {
    let failed = |error| LogError::Io { doing: "read", path: path.to_owned(), error };
    let broken = |line, why| LogError::Broken { path: path.to_owned(), line, why };
    let mut from = BufReader::new(File::open(path).map_err(failed)?);
    let (mut line, mut whole, mut number) = (Vec::new(), 0, 0);
    let mut heads: Option<(Head, Head)> = None;
    loop {
        line.clear();
        let length = from.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line).map_err(failed)?;
        if line.last() != Some(&b'\n') {
            return match heads {
                _ if length > MAX_LINE_BYTES => Err(broken(number + 1, "a line is too long")),
                Some((before, after)) => Ok((before, after, whole)),
                None => Err(broken(1, "its first line is not whole")),
            };
        }
        number += 1;
        heads = Some(match heads {
            None => {
                let before = before(&line).ok_or_else(|| broken(number, "the first line does not parse"))?;
                (before, before)
            }
            Some((before, head)) => {
                let record: Record =
                    serde_json::from_slice(&line).map_err(|_| broken(number, "a record does not parse"))?;
                let head = head.follow(&record).map_err(|why| broken(number, why))?;
                take(record, head);
                (before, head)
            }
        });
        whole += length as u64;
    }
}

fn before(line: &[u8]) -> Option<Head> {
    let Before { epoch, sequence, hash } = serde_json::from_slice(line).ok()?;
    Some(Head { epoch, sequence, hash: parse_hex(&hash)? })
}
