//! How many records were left out, noted where a full disk takes it: a file of one length, written over in place.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// In the log's directory.
const FILE_NAME: &str = "left-out";
const MODE: u32 = 0o600;
/// Digits of the largest count, and the end of the line.
const BYTES: usize = 21;

/// The note.
pub(super) struct LeftOut {
    file: File,
    noted: u64,
}

impl LeftOut {
    /// What an earlier process has noted, or none; the file is made while there is room for it.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE_NAME);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?;
        let mut text = [0; BYTES];
        let length = file.read_at(&mut text, 0)?;
        let noted = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim_end().parse().ok());
        let mut note = Self { file, noted: noted.unwrap_or(0) };
        if length < BYTES {
            note.write(note.noted)?;
        }
        Ok(note)
    }

    /// The count that was noted last.
    pub(super) fn noted(&self) -> u64 {
        self.noted
    }

    /// Notes a count; on the disk on return.
    pub(super) fn note(&mut self, count: u64) -> io::Result<()> {
        if count == self.noted { Ok(()) } else { self.write(count) }
    }

    fn write(&mut self, count: u64) -> io::Result<()> {
        self.file.write_all_at(format!("{count:020}\n").as_bytes(), 0)?;
        self.file.sync_data()?;
        self.noted = count;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_back_and_what_is_none_counts_as_none() {
        let directory = tempfile::tempdir().expect("directory");
        assert_eq!(LeftOut::open(directory.path()).expect("made").noted(), 0);
        for count in [7, u64::MAX, 0, 12] {
            LeftOut::open(directory.path()).expect("there").note(count).expect("noted");
            assert_eq!(LeftOut::open(directory.path()).expect("there").noted(), count);
        }
        for other in [&b""[..], b"12", b"garbage that is longer than a count", &[0xff; 40]] {
            std::fs::write(directory.path().join(FILE_NAME), other).expect("written");
            assert_eq!(LeftOut::open(directory.path()).expect("there").noted(), u64::from(other == b"12") * 12);
        }
    }
}
