//! Every write that a guest made to its disk, in order, and where it asked for what it wrote to be lasting: from that, what a power cut
//! may leave. Written by QEMU's `blklogwrites`.
//!
//! Source: Linux, Documentation/admin-guide/device-mapper/log-writes.rst; QEMU, block/blklogwrites.c.

use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use super::Partition;

/// The log's first eight bytes, little endian.
const MAGIC: u64 = 0x006a_7366_7773_6872;
/// Bytes of a sector of the log; the first one holds the count, each entry begins with one.
pub(super) const LOG_SECTOR_BYTES: usize = 512;
/// Flags of an entry.
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
/// Bytes that a drive writes whole or not at all.
const PIECE_BYTES: usize = 4096;

/// A disk's writes.
#[derive(Debug)]
pub struct WriteLog(Vec<Entry>);

#[derive(Debug)]
enum Entry {
    /// `bytes` at this byte of the disk.
    Write { start: u64, bytes: Vec<u8> },
    /// What was written before shall be lasting.
    Flush,
}

impl WriteLog {
    /// Reads the log of a machine that is off.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::parse(&fs::read(path)?)
    }

    fn parse(log: &[u8]) -> io::Result<Self> {
        let count = entries(log)?;
        let mut rest = log.get(LOG_SECTOR_BYTES..).unwrap_or_default();
        let mut all = Vec::new();
        for _ in 0..count {
            let (sector, sectors, flags) = (number(rest, 0)?, number(rest, 8)?, number(rest, 16)?);
            let held = if flags & DISCARD == 0 { usize::try_from(sectors).unwrap_or(usize::MAX) } else { 0 };
            let end = held.checked_mul(LOG_SECTOR_BYTES).and_then(|bytes| bytes.checked_add(LOG_SECTOR_BYTES));
            let entry = end.and_then(|end| rest.get(..end)).ok_or_else(cut_short)?;
            all.push(match flags & FLUSH {
                0 => {
                    Entry::Write { start: sector * LOG_SECTOR_BYTES as u64, bytes: entry[LOG_SECTOR_BYTES..].to_vec() }
                }
                _ => Entry::Flush,
            });
            rest = &rest[entry.len()..];
        }
        Ok(Self(all))
    }

    /// Puts on `partition`, which holds what it held before the log began, what a power cut after so many entries may leave:
    /// everything before the last flush, and of each later write the pieces that `lasts` says yes to.
    pub fn replay(&self, partition: &mut [u8], lies: Partition, until: usize, mut lasts: impl FnMut() -> bool) {
        let happened = &self.0[..until.min(self.0.len())];
        let lasting = happened.iter().rposition(|entry| matches!(entry, Entry::Flush)).unwrap_or(0);
        for (index, entry) in happened.iter().enumerate() {
            let Entry::Write { start, bytes } = entry else { continue };
            for (piece, at) in bytes.chunks(PIECE_BYTES).zip((*start..).step_by(PIECE_BYTES)) {
                if index < lasting || lasts() {
                    put(partition, lies, at, piece);
                }
            }
        }
    }

    /// How many of these entries are flushes.
    pub fn flushes(&self, among: Range<usize>) -> usize {
        self.0.iter().take(among.end).skip(among.start).filter(|entry| matches!(entry, Entry::Flush)).count()
    }
}

/// How many entries the log at `path` has by now; its machine may be running.
pub(super) fn length(path: &Path) -> io::Result<usize> {
    let mut first = [0; LOG_SECTOR_BYTES];
    fs::File::open(path)?.read_exact(&mut first)?;
    usize::try_from(entries(&first)?).map_err(io::Error::other)
}

fn entries(log: &[u8]) -> io::Result<u64> {
    let sized = log.get(24..28).map(|size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
    if number(log, 0)? != MAGIC || sized != Some(LOG_SECTOR_BYTES as u32) {
        return Err(io::Error::other("not a log of writes with sectors of 512 bytes"));
    }
    number(log, 16)
}

fn number(bytes: &[u8], at: usize) -> io::Result<u64> {
    let bytes = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).ok_or_else(cut_short)?;
    Ok(u64::from_le_bytes(bytes))
}

fn cut_short() -> io::Error {
    io::Error::other("the log of writes ends within an entry")
}

/// `piece` at byte `at` of the disk; what lies beside the partition is left out.
fn put(partition: &mut [u8], lies: Partition, at: u64, piece: &[u8]) {
    let offset = at.checked_sub(lies.start).and_then(|offset| usize::try_from(offset).ok());
    if let Some(place) = offset.and_then(|offset| partition.get_mut(offset..offset + piece.len())) {
        place.copy_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIES: Partition = Partition { start: 1024, length: 8192 };

    /// A log with these entries: first sector, sectors, flags, what each byte is.
    fn log(entries: &[(u64, u64, u64, u8)]) -> Vec<u8> {
        let mut log = vec![0; LOG_SECTOR_BYTES];
        log[..8].copy_from_slice(&MAGIC.to_le_bytes());
        log[16..24].copy_from_slice(&(entries.len() as u64).to_le_bytes());
        log[24..28].copy_from_slice(&512_u32.to_le_bytes());
        for (sector, sectors, flags, byte) in entries {
            let mut head = [sector, sectors, flags].map(|number| number.to_le_bytes()).concat();
            head.resize(LOG_SECTOR_BYTES, 0);
            log.extend(head);
            log.resize(log.len() + *sectors as usize * LOG_SECTOR_BYTES, *byte);
        }
        log
    }

    fn replayed(log: &WriteLog, until: usize, lasts: bool) -> (u8, u8, u8) {
        let mut partition = vec![0; LIES.length as usize];
        log.replay(&mut partition, LIES, until, || lasts);
        (partition[0], partition[4096], partition[8191])
    }

    #[test]
    fn what_was_flushed_lasts_and_what_came_later_may() {
        let entries = [(2, 1, 0, 1), (0, 0, FLUSH, 0), (2, 16, 0, 2), (0, 1, 0, 9), (17, 1, 0, 3)];
        let log = WriteLog::parse(&log(&entries)).expect("a log");
        assert_eq!(replayed(&log, 1, false), (0, 0, 0), "nothing was flushed yet");
        for until in 2..=5 {
            assert_eq!(replayed(&log, until, false), (1, 0, 0), "{until}");
        }
        assert_eq!(replayed(&log, 3, true), (2, 2, 2));
        assert_eq!(replayed(&log, 5, true), (2, 2, 3), "in their order, and nothing beside the partition");
        assert_eq!((log.flushes(0..5), log.flushes(2..5)), (1, 0));
        let mut half = vec![0; LIES.length as usize];
        let mut second = false;
        log.replay(&mut half, LIES, 3, || std::mem::replace(&mut second, true));
        assert_eq!((half[0], half[4096]), (1, 2), "a write may last in part");
    }

    #[test]
    fn a_log_that_is_none_or_ends_too_early_is_told() {
        assert!(WriteLog::parse(&[]).is_err());
        assert!(WriteLog::parse(&[0; 4096]).is_err());
        let whole = log(&[(2, 4, 0, 1)]);
        assert!(WriteLog::parse(&whole).is_ok());
        assert!(WriteLog::parse(&whole[..whole.len() - 1]).is_err());
    }
}
