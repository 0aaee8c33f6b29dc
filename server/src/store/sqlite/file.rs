//! The database file: founded whole, locked against a second server, checked before it is believed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ironroot_api::TrustDomain;
use ironroot_shell::durable_file::sync_directory_of;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::mpsc;
use tracing::{error, info};

use super::schema::Migration;
use super::{replace, rights, schema};
use crate::clock::Moment;
use crate::store::engine::{Engine, Next};
use crate::store::sql::Session;
use crate::store::{Facts, StoreError, Transaction};

/// How long a change waits for another program (a backup, a shell) to let go of the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The database holds join tokens: nobody but the server reads it.
pub(super) const MODE: u32 = 0o600;

/// Smallest page, and so smallest file, of SQLite, bytes. Source: sqlite.org/fileformat2.html §1.3.2.
const MIN_BYTES: u64 = 512;

/// Memory for pages of the file, KiB: what a batch of 500 entries changes. Memory has what is asked for, and the kernel the rest of the
/// file; SQLite itself would take 2 MB.
const PAGE_CACHE_KIB: i64 = 512;

/// Parsed statements that are kept, each some kilobytes: more than this room has. An attestation runs twenty in turn; a cache that holds
/// fewer than come round parses every one of them anew.
const PARSED_STATEMENTS: usize = 128;

/// How long another's lock is waited for, and how often it is tried.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// An open, checked database and the lock that makes it ours.
pub(in crate::store) struct Database {
    pub connection: Connection,
    trust_domain: TrustDomain,
    // Held for its lock, which ends with it.
    _lock: File,
}

impl Engine for Database {
    fn next<M>(&mut self, messages: &mut mpsc::Receiver<M>) -> Next<M> {
        messages.blocking_recv().map_or(Next::Nobody, Next::Message)
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.run("BEGIN IMMEDIATE")
    }

    /// Whoever reads outside of a transaction locks the file anew for each question.
    fn begin_reading(&mut self) -> Result<(), StoreError> {
        self.run("BEGIN")
    }

    /// Each is parsed once.
    fn run(&self, statement: &'static str) -> Result<(), StoreError> {
        self.connection.prepare_cached(statement)?.execute([])?;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.run("COMMIT")
    }

    fn is_unchecked(&self) -> bool {
        false
    }

    fn was_checked(&mut self) {}

    fn rollback(&self) {
        if !self.connection.is_autocommit()
            && let Err(why) = self.connection.execute_batch("ROLLBACK")
        {
            error!(error = &why as &dyn std::error::Error, "database refused a rollback");
        }
    }

    fn given_up(&self) -> Option<StoreError> {
        self.connection.is_autocommit().then_some(StoreError::RolledBack)
    }

    /// What made SQLite give up is there still.
    fn tries_again(&self) -> bool {
        false
    }

    fn rows_changed(&self) -> u64 {
        self.connection.total_changes()
    }

    fn facts(&self) -> Facts<'_> {
        Facts::new(self.session(), &self.trust_domain)
    }

    fn transaction(&self, moment: Moment) -> Transaction<'_> {
        Transaction::new(self.session(), &self.trust_domain, moment)
    }

    fn session(&self) -> Session<'_> {
        Session::Sqlite(&self.connection)
    }

    /// There are none: the file has one server.
    fn tell_others(&self) {}

    /// The file's lock says it already.
    fn claim(&mut self, _server: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// Writes the log back into the file and closes it.
    fn close(self) {
        if let Err((_, why)) = self.connection.close() {
            error!(error = &why as &dyn std::error::Error, "database did not close");
        }
    }
}

/// Opens the file at `path`, founding it if there is none.
pub(in crate::store) fn open(path: &Path, trust_domain: &TrustDomain) -> Result<Database, StoreError> {
    open_with(path, trust_domain, schema::MIGRATIONS)
}

pub(super) fn open_with(
    path: &Path,
    trust_domain: &TrustDomain,
    migrations: &[Migration],
) -> Result<Database, StoreError> {
    let lock = lock(path)?;
    if replace::is_cut_off(path) {
        return Err(StoreError::RestoreCutOff(path.to_owned()));
    }
    rights::keep_to_owner(path);
    if !exists(path)? {
        create(path, trust_domain, migrations)?;
    }
    leave_spires_alone(path)?;
    let connection = connect(path)?;
    check_length(path, &connection)?;
    check_integrity(&connection)?;
    schema::check_owner(&connection, trust_domain)?;
    back_up_before_migration(path, &connection, migrations)?;
    schema::migrate(&connection, migrations, trust_domain)?;
    Ok(Database { connection, trust_domain: trust_domain.clone(), _lock: lock })
}

/// One server per file. The lock is the kernel's: it ends with the process, however that ends. A process that is just ending,
/// or a child that has not become its own program yet, may still have it for a moment: that is waited for.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    if path.is_dir() {
        return Err(StoreError::open(path, std::io::Error::from(ErrorKind::IsADirectory)));
    }
    let lock_path = beside(path, ".lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(MODE).open(&lock_path);
    let file = file.map_err(|e| match path.parent() {
        Some(directory) if e.kind() == ErrorKind::NotFound => StoreError::NoDirectory(directory.to_owned()),
        _ => StoreError::open(&lock_path, e),
    })?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_RETRY),
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(path.to_owned())),
            Err(TryLockError::Error(e)) => return Err(StoreError::open(&lock_path, e)),
        }
    }
}

/// Whether there is a database. What is left of one, a file too short for one or a log without its file, is no fresh
/// start; SQLite would take it for one.
pub(super) fn exists(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() < MIN_BYTES => Err(StoreError::Corrupt(format!("it has only {} bytes", meta.len()))),
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound && beside(path, "-wal").exists() => {
            Err(StoreError::Corrupt("the file is missing, its write-ahead log is there".into()))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::open(path, e)),
    }
}

/// Makes the new file under another name first, so that a crash leaves either no database or a whole one.
fn create(path: &Path, trust_domain: &TrustDomain, migrations: &[Migration]) -> Result<(), StoreError> {
    let draft = beside(path, ".new");
    for leftover in ["", "-wal", "-shm", "-journal"] {
        remove_if_there(&beside(&draft, leftover))?;
    }
    create_empty(&draft)?;
    let connection = connect(&draft)?;
    schema::migrate(&connection, migrations, trust_domain)?;
    connection.close().map_err(|(_, e)| StoreError::from(e))?;
    publish(&draft, path).map_err(|e| StoreError::open(path, e))?;
    info!(path = %path.display(), trust_domain = %trust_domain, "database created");
    Ok(())
}

fn publish(draft: &Path, path: &Path) -> std::io::Result<()> {
    File::open(draft)?.sync_all()?;
    fs::rename(draft, path)?;
    sync_directory_of(path)
}

/// Why a start would refuse what is at `path`, as far as a look at it tells.
pub(in crate::store) fn would_open(path: &Path, trust_domain: &TrustDomain) -> Result<(), StoreError> {
    if path.is_dir() {
        return Err(StoreError::open(path, std::io::Error::from(ErrorKind::IsADirectory)));
    }
    match replace::is_cut_off(path) {
        true => Err(StoreError::RestoreCutOff(path.to_owned())),
        false => recognise(path, trust_domain),
    }
}

/// Whose file is at `path`, as far as reading a few pages can tell; nothing is written to it, and a server may be running on it.
/// No file is no mistake: one will be made.
pub(super) fn recognise(path: &Path, trust_domain: &TrustDomain) -> Result<(), StoreError> {
    if !exists(path)? {
        return Ok(());
    }
    let connection = look_into(path)?;
    if schema::is_spires(&connection)? {
        return Err(StoreError::Spire);
    }
    schema::check_known(&connection, schema::MIGRATIONS)?;
    schema::check_owner(&connection, trust_domain)
}

/// A database of SPIRE's is refused before anything is written to it: opening it as ours would change its journal mode. What
/// cannot be read so is judged later.
fn leave_spires_alone(path: &Path) -> Result<(), StoreError> {
    let spires = look_into(path).and_then(|connection| schema::is_spires(&connection));
    if matches!(spires, Ok(true)) { Err(StoreError::Spire) } else { Ok(()) }
}

/// The database, for reading only. Of a server that runs or was killed, all of it may be in the log still; without a log nothing
/// beside the file is made or locked.
pub(super) fn look_into(path: &Path) -> Result<Connection, StoreError> {
    let escaped = path.as_os_str().as_encoded_bytes().iter().map(|byte| match byte {
        b'?' | b'#' | b'%' | 0x80.. => format!("%{byte:02x}"),
        byte => char::from(*byte).to_string(),
    });
    let immutable = u8::from(!beside(path, "-wal").exists());
    let uri = format!("file:{}?immutable={immutable}", escaped.collect::<String>());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags).map_err(|e| StoreError::open(path, e))
}

pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| StoreError::open(path, e))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(PARSED_STATEMENTS);
    // Without it a statement whose LIMIT is a parameter is parsed anew each time that is bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    if connection.is_readonly("main")? {
        return Err(StoreError::ReadOnly);
    }
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Kibibytes have a sign there, pages none.
    connection.pragma_update(None, "cache_size", -PAGE_CACHE_KIB)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// SQLite takes what is missing of the last page for zeros. Looked at once the log is in the file; if another program
/// reads just then and holds that up, the next start looks.
fn check_length(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let held_up: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, u32>(0));
    let expected = u64::from(pragma("page_count")?) * u64::from(pragma("page_size")?);
    let found = fs::metadata(path).map_err(|e| StoreError::open(path, e))?.len();
    if held_up || found >= expected {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!("it has {found} bytes, {expected} are expected")))
}

/// Reads every page: a truncated or flipped file is refused here, by name of what is wrong.
pub(super) fn check_integrity(connection: &Connection) -> Result<(), StoreError> {
    //= FLT-S6 server faults: "it is refused at the start"
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Corrupt(verdict)) }
}

/// A copy of the old file, so that the older server can be put back.
fn back_up_before_migration(path: &Path, connection: &Connection, migrations: &[Migration]) -> Result<(), StoreError> {
    let version = schema::version(connection)?;
    if version == 0 || version >= migrations.len() as i64 {
        return Ok(());
    }
    let backup = beside(path, &format!(".v{version}"));
    remove_if_there(&backup)?;
    // SQLite would make the file with the umask's rights; it takes an empty one that is there.
    create_empty(&backup)?;
    // A path is bytes, and need not be UTF-8.
    connection.execute("VACUUM INTO CAST(?1 AS TEXT)", [backup.as_os_str().as_bytes()])?;
    info!(path = %backup.display(), version, "database backed up before its migration");
    Ok(())
}

/// A new file that nobody but the server reads.
pub(super) fn create_empty(path: &Path) -> Result<(), StoreError> {
    let created = OpenOptions::new().create_new(true).write(true).mode(MODE).open(path);
    created.map(drop).map_err(|e| StoreError::open(path, e))
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(StoreError::open(path, e)),
        _ => Ok(()),
    }
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
