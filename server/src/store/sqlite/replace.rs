//! Another database, and files that belong to it, in the place of what is there: all of it, or nothing.
//!
//! ```text
//!  lock ─► new files, whole and on the disk, beside their places ─► mark ─► old files aside, new ones into place ─► no mark
//! ```
//! While the mark is there no server starts: whoever was cut off between two files does it once more.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ironroot_shell::durable_file::sync_directory_of;

use super::file::{self, beside, remove_if_there};
use crate::store::StoreError;

/// Beside the database while it is being replaced.
const MARK: &str = ".restoring";
/// What is appended to the name of what was there before.
const ASIDE: &str = ".replaced";
/// What was replaced before that is kept, too, with a number behind; whoever has restored so often looks through them first.
const MAX_KEPT: usize = 9;

/// A file that belongs to the database.
#[derive(Clone, Debug)]
pub struct Belonging {
    /// Its place.
    pub place: PathBuf,
    /// What comes there, on the file system of that place; none: what is there stays.
    pub new: Option<PathBuf>,
}

/// The place of a database on which no server is running, and none can start.
#[derive(Debug)]
pub struct StoppedStore {
    path: PathBuf,
    _lock: File,
}

impl StoppedStore {
    /// Takes the lock; an error while a server has it. If a replacement was cut off between the database and its log (`-wal`), the one
    /// follows the other: what is read of them is what was committed last.
    pub(in crate::store) fn lock(path: &Path) -> Result<Self, StoreError> {
        let stopped = Self { path: path.to_owned(), _lock: file::lock(path)? };
        if stopped.is_cut_off() {
            stopped.set_database_aside()?;
        }
        Ok(stopped)
    }

    /// Where the database that was last used is: in its place, or aside if a replacement was cut off.
    pub fn last_used(&self) -> PathBuf {
        match self.is_cut_off() && beside(&self.path, ASIDE).exists() {
            true => beside(&self.path, ASIDE),
            false => self.path.clone(),
        }
    }

    /// The file to make the new database in.
    pub fn draft(&self) -> PathBuf {
        beside(&self.path, ".restored")
    }

    /// Where the database that was there is afterwards.
    pub fn aside(&self) -> PathBuf {
        beside(&self.path, ASIDE)
    }

    /// Whether there is a file at `place` that belongs to the database [that was last used](Self::last_used): one that a replacement has put
    /// there before it was cut off does not.
    pub fn has(&self, place: &Path) -> bool {
        let is_it = |named: &[u8]| named == place.as_os_str().as_encoded_bytes();
        let was_there = || fs::read(beside(&self.path, MARK)).unwrap_or_default().split(|byte| *byte == 0).any(is_it);
        place.exists() && (!self.is_cut_off() || (was_there() && !beside(place, ASIDE).exists()))
    }

    /// Puts `draft` in the database's place, and each of `others` in its own. All of them are on the disk already, each on the file system
    /// of its place. What was there is kept aside.
    pub fn replace(self, draft: &Path, others: &[Belonging]) -> Result<(), StoreError> {
        let failed = |e| StoreError::open(&self.path, e);
        let mark = beside(&self.path, MARK);
        if !self.is_cut_off() {
            let places = others.iter().map(|other| beside(&other.place, ASIDE));
            let before: Vec<_> = [self.aside(), beside(&self.aside(), "-wal")].into_iter().chain(places).collect();
            self.keep(&before).map_err(failed)?;
            write_mark(&mark, others).map_err(failed)?;
        }
        self.set_database_aside()?;
        remove_if_there(&beside(&self.path, "-shm"))?;
        for (place, new) in others.iter().filter_map(|other| Some((&other.place, other.new.as_ref()?))) {
            set_aside(place, &beside(place, ASIDE))
                .and_then(|()| put(new, place))
                .map_err(|e| StoreError::open(place, e))?;
        }
        put(draft, &self.path).map_err(failed)?;
        fs::remove_file(&mark).and_then(|()| sync_directory_of(&mark)).map_err(failed)
    }

    /// Gives what was set aside before names of its own: it may be the newest database there is, and the backup the wrong one.
    fn keep(&self, before: &[PathBuf]) -> io::Result<()> {
        let numbered = |path: &Path, number: usize| match path == beside(&self.aside(), "-wal") {
            // Where SQLite looks for it.
            true => beside(&beside(&self.aside(), &format!(".{number}")), "-wal"),
            false => beside(path, &format!(".{number}")),
        };
        let there: Vec<&PathBuf> = before.iter().filter(|path| path.exists()).collect();
        if there.is_empty() {
            return Ok(());
        }
        let is_free = |number: &usize| !before.iter().any(|path| numbered(path, *number).exists());
        let number = (1..=MAX_KEPT).find(is_free).ok_or_else(|| {
            let aside = self.aside();
            io::Error::other(format!(
                "{MAX_KEPT} databases that were replaced before are kept as {}.1 and so on: remove those that nobody needs",
                aside.display()
            ))
        })?;
        there.into_iter().try_for_each(|path| {
            fs::rename(path, numbered(path, number))?;
            sync_directory_of(path)
        })
    }

    /// The database with its log, on the disk before anything comes into their places.
    fn set_database_aside(&self) -> Result<(), StoreError> {
        let moved = ["", "-wal"]
            .into_iter()
            .try_for_each(|suffix| set_aside(&beside(&self.path, suffix), &beside(&self.aside(), suffix)));
        moved.and_then(|()| sync_directory_of(&self.path)).map_err(|e| StoreError::open(&self.path, e))
    }

    fn is_cut_off(&self) -> bool {
        is_cut_off(&self.path)
    }
}

/// Whether a replacement of the database at `path` was begun and not ended.
pub(super) fn is_cut_off(path: &Path) -> bool {
    beside(path, MARK).exists()
}

/// It names those of the files that are there, each ended by a zero byte: whoever does it once more knows them from those that came.
fn write_mark(mark: &Path, others: &[Belonging]) -> io::Result<()> {
    let there = others.iter().map(|other| &other.place).filter(|place| place.exists());
    let names: Vec<u8> = there.flat_map(|place| [place.as_os_str().as_encoded_bytes(), b"\0"].concat()).collect();
    let draft = beside(mark, ".draft");
    let mut file = File::create(&draft)?;
    file.write_all(&names)?;
    file.sync_all()?;
    put(&draft, mark)
}

/// Moves what is there; one that was set aside before a cut is kept, since what is there now is new.
fn set_aside(path: &Path, aside: &Path) -> io::Result<()> {
    match path.exists() && !aside.exists() {
        true => fs::rename(path, aside),
        false => Ok(()),
    }
}

fn put(new: &Path, place: &Path) -> io::Result<()> {
    fs::rename(new, place)?;
    sync_directory_of(place)
}
