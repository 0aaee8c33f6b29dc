//! What the agent's own CA has signed and the server does not know yet: a line for each SVID, on the disk before it is handed out.
//!
//! JWT-SVIDs of one entry and audience become one line when there is no more room (`shares.rs`).
//!
//! A last line without its end was being written when the power went: that SVID was never handed out, and the line goes.

mod shares;

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ironroot_shell::durable_file::sync_directory_of;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::warn;

use crate::durable_file;
use shares::{Shares, merged};

pub use shares::MAX_TOKEN_BYTES_NOTED;

/// Largest journal, bytes: some 5,000 SVIDs of usual names. When it is full nothing more is signed until the server has taken a report.
pub const MAX_JOURNAL_BYTES: usize = 1024 * 1024;
/// SVIDs in one report.
pub const MAX_REPORTED: usize = 100;
/// Lines of one report, bytes; on the wire they are shorter, and a server takes 256 KiB. One line is always less.
pub const MAX_REPORTED_BYTES: usize = 192 * 1024;
/// The file, in the directory of the agent's own CA, and what of it a server would not take.
const FILE_NAME: &str = "issued.json";
const SET_ASIDE: &str = "issued.unreported.json";
/// What could not be read of it, for people.
const DAMAGED: &str = "issued.damaged.json";

/// Why something could not be noted, or a report not be forgotten.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum JournalError {
    /// It is full.
    #[error("the journal {path} is full ({MAX_JOURNAL_BYTES} bytes): the server must take a report first")]
    Full { path: PathBuf },
    /// The entry has had its share of it.
    #[error(
        "the JWT-SVIDs of this entry have had their share of the journal {path} ({MAX_TOKEN_BYTES_NOTED} bytes for all entries, of which one \
         has half of what others leave): the server must take a report first"
    )]
    Share { path: PathBuf },
    /// The disk does not take it.
    #[error("cannot write {path}")]
    Disk {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

/// One SVID: what is needed to find it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// The server's ID of the entry that it was signed for.
    pub entry_id: String,
    /// The ID in it.
    pub spiffe_id: String,
    /// Its serial number in decimal; of a JWT-SVID the ID of the key that has signed it.
    pub serial: String,
    /// When it was signed, UNIX seconds.
    pub issued_at: i64,
    /// Its notAfter, UNIX seconds.
    pub expires_at: i64,
    /// Of a JWT-SVID, or of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<IssuedJwt>,
}

/// What a JWT-SVID has besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedJwt {
    /// For whom: the beginning of the list.
    pub audience: String,
    /// How many there are that differ in their times alone.
    pub count: u32,
}

/// The file, and what is in it, the oldest first.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    held: VecDeque<Issued>,
    bytes: usize,
    shares: Shares,
    /// How many are held, for those who must not wait for the disk.
    count: Arc<AtomicUsize>,
}

impl Journal {
    /// Reads what is there. What cannot be read is logged and set aside: it never keeps the agent from starting.
    pub fn open(directory: &Path) -> Self {
        let (path, held, shares, count) =
            (directory.join(FILE_NAME), VecDeque::new(), Shares::default(), Arc::default());
        let mut journal = Self { path, held, bytes: 0, shares, count };
        match durable_file::read(&journal.path, MAX_JOURNAL_BYTES) {
            Ok(text) => journal.take_up(&text.unwrap_or_default()),
            Err(error) => {
                let aside = std::fs::rename(&journal.path, journal.path.with_file_name(DAMAGED)).is_ok();
                warn!(path = %journal.path.display(), %error, aside, "the journal of what this agent has signed cannot be read; aside: it is in {DAMAGED} now");
            }
        }
        journal
    }

    fn take_up(&mut self, text: &[u8]) {
        let (held, damaged) = parse(text);
        self.held = held;
        self.shares = Shares::of(&self.held);
        self.tell_count();
        if damaged > 0 {
            let aside = durable_file::replace(&self.path.with_file_name(DAMAGED), text).is_ok();
            warn!(path = %self.path.display(), damaged, aside, "lines of the journal of what this agent has signed are damaged and left out; aside: all of it is in {DAMAGED}");
        }
        let lines = lines_of(&self.held);
        self.bytes = lines.len();
        if lines != text {
            // The next line must not be written behind half of another.
            if let Err(error) = self.write_anew() {
                warn!(path = %self.path.display(), %error, "the journal of what this agent has signed cannot be mended");
            }
        }
    }

    /// How many notes there are, now and later. The journal itself is locked for as long as a disk takes.
    pub fn count(&self) -> Arc<AtomicUsize> {
        self.count.clone()
    }

    fn tell_count(&self) {
        self.count.store(self.held.len(), Ordering::Relaxed);
    }

    /// Notes all of `issued`, or none of it; on the disk when this returns.
    pub fn append(&mut self, issued: Vec<Issued>) -> Result<(), JournalError> {
        let lines = lines_of(&issued);
        if self.bytes + lines.len() > MAX_JOURNAL_BYTES {
            return Err(JournalError::Full { path: self.path.clone() });
        }
        if let Err(error) = self.append_lines(&lines) {
            // Half a line may be there: the file becomes what is in memory, now or before the next is written.
            let mended = self.write_anew();
            return Err(JournalError::Disk { path: self.path.clone(), error: mended.err().unwrap_or(error) });
        }
        self.bytes += lines.len();
        issued.iter().for_each(|one| self.shares.add(one));
        self.held.extend(issued);
        self.tell_count();
        Ok(())
    }

    /// The same for one JWT-SVID, if its entry's share has room for it; notes of JWT-SVIDs that are alike are put together first.
    pub fn append_token(&mut self, issued: Issued) -> Result<(), JournalError> {
        let bytes = lines_of([&issued]).len();
        if !self.shares.has_room(&issued.entry_id, bytes) {
            self.merge();
        }
        if !self.shares.has_room(&issued.entry_id, bytes) {
            return Err(JournalError::Share { path: self.path.clone() });
        }
        self.append(vec![issued])
    }

    /// Puts notes together. If the disk does not take it, the next that is noted writes all of it.
    fn merge(&mut self) {
        let held: VecDeque<Issued> = merged(self.held.iter().cloned()).into();
        if held.len() == self.held.len() {
            return;
        }
        self.held = held;
        self.tell_count();
        (self.bytes, self.shares) = (lines_of(&self.held).len(), Shares::of(&self.held));
        if let Err(error) = self.write_anew() {
            warn!(path = %self.path.display(), %error, "the journal of what this agent has signed is longer than need be");
        }
    }

    fn append_lines(&self, lines: &[u8]) -> io::Result<()> {
        let length = std::fs::symlink_metadata(&self.path).map_or(0, |metadata| metadata.len());
        if length != self.bytes as u64 {
            // What an earlier failure or somebody else has left is not continued.
            self.write_anew()?;
        }
        let is_new = self.held.is_empty();
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(lines)?;
        file.sync_all()?;
        if is_new { sync_directory_of(&self.path) } else { Ok(()) }
    }

    /// The oldest: at most `count`, of at most so many `bytes` as lines, and one at least if there is one.
    pub fn first(&self, count: usize, bytes: usize) -> Vec<Issued> {
        let mut sum = 0;
        let fits = |(place, issued): &(usize, &Issued)| {
            sum += lines_of([*issued]).len();
            *place == 0 || sum <= bytes
        };
        let first = self.held.iter().take(count).enumerate().take_while(fits);
        first.map(|(_, issued)| issued.clone()).collect()
    }

    /// Forgets these, which the server knows. A note to which more was put meanwhile stays.
    pub fn forget(&mut self, known: &[Issued]) -> Result<(), JournalError> {
        for one in known {
            if let Some(place) = self.held.iter().position(|held| held == one) {
                self.held.remove(place);
            }
        }
        self.tell_count();
        (self.bytes, self.shares) = (lines_of(&self.held).len(), Shares::of(&self.held));
        self.write_anew().map_err(|error| JournalError::Disk { path: self.path.clone(), error })
    }

    /// Empties it into another file, which is returned; what was set aside before goes.
    pub fn set_aside(&mut self) -> Result<PathBuf, JournalError> {
        let aside = self.path.with_file_name(SET_ASIDE);
        let failed = |path: &Path, error| JournalError::Disk { path: path.to_owned(), error };
        durable_file::replace(&aside, &lines_of(&self.held)).map_err(|error| failed(&aside, error))?;
        self.forget(&Vec::from(self.held.clone()))?;
        Ok(aside)
    }

    fn write_anew(&self) -> io::Result<()> {
        match self.held.is_empty() {
            true => durable_file::remove(&self.path),
            false => durable_file::replace(&self.path, &lines_of(&self.held)),
        }
    }
}

/// The whole lines of a file, and how many of them are no SVIDs.
fn parse(text: &[u8]) -> (VecDeque<Issued>, usize) {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let (mut held, mut damaged) = (VecDeque::new(), 0);
    for line in lines {
        match serde_json::from_slice(line) {
            Ok(issued) => held.push_back(issued),
            Err(_) => damaged += 1,
        }
    }
    (held, damaged)
}

/// One line for each.
fn lines_of<'a>(issued: impl IntoIterator<Item = &'a Issued>) -> Vec<u8> {
    let mut lines = Vec::new();
    for one in issued {
        serde_json::to_writer(&mut lines, one).expect("texts and numbers are JSON, and a vector grows");
        lines.push(b'\n');
    }
    lines
}

#[cfg(test)]
impl Journal {
    /// As it is told.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Nothing is told, and nothing held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.held.is_empty()
    }
}

#[cfg(test)]
mod tests;
