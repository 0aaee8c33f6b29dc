//! A copy of SQLite's files that is ours alone, and gone when it is dropped.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use super::MAX_DATABASE_BYTES;
use super::error::SpireStoreError;

/// What SQLite keeps beside the file: its log, and, of older journal modes, what it would roll back.
const BESIDE: [&str; 2] = ["-wal", "-journal"];
/// Begins every file of SQLite. Source: sqlite.org/fileformat2.html §1.3.1.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Where in `-shm` every connection to a database with a log holds a lock. Source: SQLite src/os_unix.c, WAL_DMS: UNIX_SHM_BASE + 8.
const OPEN_LOCK: nix::libc::off_t = 128;
/// How often a file is copied that was written to meanwhile.
const TRIES: usize = 3;

/// The copy, in a directory of its own.
pub(super) struct PrivateCopy {
    directory: PathBuf,
}

impl PrivateCopy {
    /// Copies the database at `path`, and what SQLite keeps beside it, as they are at one moment.
    pub(super) fn of(path: &Path) -> Result<Self, SpireStoreError> {
        let directory = std::env::temp_dir().join(format!("ironroot-import-{}", Uuid::new_v4()));
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(|error| io_error("make a directory for a copy of", error))?;
        let copy = Self { directory };
        for _ in 0..TRIES {
            let before = state(path);
            copy.take(path)?;
            if state(path) == before {
                return Ok(copy);
            }
        }
        Err(SpireStoreError::Changing)
    }

    fn take(&self, path: &Path) -> Result<(), SpireStoreError> {
        let mut file = open_regular(path)?;
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic).map_err(|_| SpireStoreError::NotSqlite)?;
        if magic != *MAGIC {
            return Err(SpireStoreError::NotSqlite);
        }
        file.rewind().map_err(|error| io_error("read", error))?;
        write(file, &self.file())?;
        for suffix in BESIDE {
            let (from, to) = (beside(path, suffix), beside(&self.file(), suffix));
            match from.exists() {
                true => write(open_regular(&from)?, &to)?,
                // Of an earlier try.
                false => drop(fs::remove_file(&to)),
            }
        }
        Ok(())
    }

    /// Opens it. What was in the log is in the file then; no statement changes anything more.
    pub(super) fn open(&self) -> Result<Connection, SpireStoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.file(), flags)?;
        // What a hostile file could make the engine do: it is data.
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "mmap_size", 0)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    /// The copy's length, bytes.
    pub(super) fn bytes(&self) -> Result<u64, SpireStoreError> {
        fs::metadata(self.file()).map(|facts| facts.len()).map_err(|error| io_error("read the copy of", error))
    }

    fn file(&self) -> PathBuf {
        self.directory.join("datastore.sqlite3")
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        // What stays is in a directory that nobody else may enter.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Whether a process has the database open: each that does holds a lock, for as long as it runs.
pub(super) fn is_in_use(path: &Path) -> Result<bool, SpireStoreError> {
    let Ok(shm) = File::open(beside(path, "-shm")) else { return Ok(false) };
    let mut asked = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as _,
        l_whence: nix::libc::SEEK_SET as _,
        l_start: OPEN_LOCK,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(&shm, FcntlArg::F_GETLK(&mut asked)).map_err(|error| io_error("ask who uses", error.into()))?;
    Ok(i32::from(asked.l_type) != nix::libc::F_UNLCK)
}

/// Lengths and times of the files.
fn state(path: &Path) -> Vec<Option<(u64, i64, i64)>> {
    let of = |path: &Path| fs::metadata(path).ok().map(|facts| (facts.len(), facts.mtime(), facts.mtime_nsec()));
    std::iter::once(of(path)).chain(BESIDE.iter().map(|suffix| of(&beside(path, suffix)))).collect()
}

/// Opening a pipe must not wait for its writer.
fn open_regular(path: &Path) -> Result<File, SpireStoreError> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = file.map_err(|error| io_error("open", error))?;
    let facts = file.metadata().map_err(|error| io_error("open", error))?;
    match (facts.is_file(), facts.len()) {
        (false, _) => Err(SpireStoreError::NotRegular),
        (true, bytes) if bytes > MAX_DATABASE_BYTES => Err(SpireStoreError::TooLarge(bytes)),
        (true, _) => Ok(file),
    }
}

fn write(from: File, to: &Path) -> Result<(), SpireStoreError> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(to);
    let copied = opened.and_then(|mut to| io::copy(&mut from.take(MAX_DATABASE_BYTES + 1), &mut to));
    match copied.map_err(|error| io_error("copy", error))? {
        bytes if bytes > MAX_DATABASE_BYTES => Err(SpireStoreError::TooLarge(bytes)),
        _ => Ok(()),
    }
}

fn io_error(what: &'static str, error: io::Error) -> SpireStoreError {
    SpireStoreError::Io { what, error }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
