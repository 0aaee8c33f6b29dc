//! The file that is written to, and the ones before it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ironroot_shell::clock::wall_unix;
use tracing::info;

use super::recent::Recent;
use super::{Event, Queued, body, now};
use crate::issuance_log::chain::{Head, push_line};
use crate::issuance_log::error::LogError;
use crate::issuance_log::kept;
use crate::issuance_log::segment::{self, MAX_SEGMENT_BYTES, MAX_SEGMENTS};

/// See the module.
pub(super) struct Segments {
    directory: PathBuf,
    path: PathBuf,
    pub file: File,
    bytes: u64,
    /// How many of them are on the disk.
    synced: u64,
    /// Of the newest record, and of the newest on the disk: an epoch that has begun since is in none of them, and a segment says what comes
    /// before it.
    epochs: (u64, u64),
    /// Whether a part of what could not be written is behind them, and could not be taken back.
    pub is_torn: bool,
}

impl Segments {
    /// Goes on in the newest segment of `directory`, as far as it is whole, or begins the first.
    pub fn open(directory: &Path) -> Result<(Self, Recent), LogError> {
        let failed = |error| LogError::Io { doing: "write", path: directory.to_owned(), error };
        let (mut segments, torn) = segment::list_begun(directory)?;
        if let Some(torn) = torn {
            fs::remove_file(&torn).map_err(failed)?;
        }
        let Some(path) = segments.pop() else {
            let head = Head::of_nothing(now());
            let begun = Self::begin(directory, &head).map_err(failed)?;
            info!(directory = %directory.display(), "issuance log begun");
            return Ok((begun, Recent::behind(head)));
        };
        let mut recent = Recent::behind(Head::of_nothing(0));
        let (_, head, whole) = segment::read(&path, |_, head| recent.push(head))?;
        recent.head = head;
        let mut file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
        file.set_len(whole).and_then(|()| io::Seek::seek(&mut file, io::SeekFrom::End(0))).map_err(failed)?;
        // The process before may have ended without.
        file.sync_all().map_err(failed)?;
        let (directory, epochs) = (directory.to_owned(), (head.epoch, head.epoch));
        Ok((Self { directory, path, file, bytes: whole, synced: whole, epochs, is_torn: false }, recent))
    }

    /// Begins the segment that follows `head`, which is on the disk.
    fn begin(directory: &Path, head: &Head) -> io::Result<Self> {
        let (file, bytes) = segment::begin(directory, head)?;
        let (directory, path) = (directory.to_owned(), segment::path(directory, head));
        Ok(Self { directory, path, file, bytes, synced: bytes, epochs: (head.epoch, head.epoch), is_torn: false })
    }

    /// Begins the epoch of `head`, which is not on the disk yet, with a record of its own; the head with that, which is.
    pub fn begin_epoch(&mut self, head: &Head) -> io::Result<Head> {
        let (method, by) = ("BeginEpoch".to_owned(), "this server".to_owned());
        let object = "heads of the epochs before count no more".to_owned();
        let event = Queued { event: Event { method, object, by }, at: wall_unix(), revision: None };
        let ((record, next), mut line) = (head.with(body(&event, head)), Vec::new());
        push_line(&mut line, &record);
        self.write(&line, next.epoch)?;
        self.sync()?;
        Ok(next)
    }

    /// Whether the next record begins another.
    pub fn is_full(&self) -> bool {
        self.bytes >= MAX_SEGMENT_BYTES
    }

    /// Writes the lines whole, or takes back what was written of them; where that fails too, the segment is torn. `epoch`: theirs.
    pub fn write(&mut self, lines: &[u8], epoch: u64) -> io::Result<()> {
        let written = self.file.write_all(lines);
        match written {
            Ok(()) => (self.bytes, self.epochs.0) = (self.bytes + lines.len() as u64, epoch),
            Err(_) => {
                let taken_back = self.file.set_len(self.bytes);
                let taken_back = taken_back.and_then(|()| io::Seek::seek(&mut self.file, io::SeekFrom::End(0)));
                self.is_torn = taken_back.is_err();
            }
        }
        written
    }

    /// What is written is on the disk on return.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        (self.synced, self.epochs.1) = (self.bytes, self.epochs.0);
        Ok(())
    }

    /// Writes `lines` again, which follow `head` and of which nobody knows whether they are on the disk: the kernel tells once that it could
    /// not write a page, takes it for written then, and the next sync succeeds. What is known to be there stays, the rest goes into a
    /// segment of its own.
    pub fn write_again(&mut self, head: &Head, lines: &[u8]) -> io::Result<()> {
        let before = OpenOptions::new().write(true).open(&self.path)?;
        before.set_len(self.synced)?;
        before.sync_all()?;
        *self = Self::begin(&self.directory, &Head { epoch: self.epochs.1, ..*head })?;
        self.write(lines, head.epoch)?;
        self.sync()
    }

    /// Goes on in another segment after `head`, which is on the disk.
    pub fn turn(&mut self, head: &Head) -> io::Result<()> {
        *self = Self::begin(&self.directory, &Head { epoch: self.epochs.1, ..*head })?;
        kept::drop_old(&self.directory, MAX_SEGMENTS)
    }
}
