//! Group commit, full disks and migrations: what needs to see the connection.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::mpsc;

use crate::facts::device::DeviceState;
use ironroot_api::TrustDomain;
use rusqlite::{Connection, StatementStatus};
use tempfile::TempDir;

use super::schema::Migration;
use super::{file, schema};
use crate::store::engine::Engine;
use crate::store::writer::Writer;
use crate::store::{Store, StoreError, Transaction};

struct Fixture {
    directory: TempDir,
    trust_domain: TrustDomain,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        Self { directory, trust_domain: TrustDomain::new("example.org").expect("legal") }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("datastore.sqlite3")
    }

    fn open_with(&self, migrations: &[Migration]) -> Result<file::Database, StoreError> {
        file::open_with(&self.path(), &self.trust_domain, migrations)
    }

    fn open(&self) -> file::Database {
        self.open_with(schema::MIGRATIONS).expect("opens")
    }

    fn sql<T: rusqlite::types::FromSql>(&self, query: &str) -> T {
        let connection = Connection::open(self.path()).expect("opens");
        connection.query_row(query, [], |row| row.get(0)).expect(query)
    }
}

fn add_token(connection: &Connection, token: &str) -> Result<(), StoreError> {
    connection.execute("INSERT INTO join_tokens (token, expires_at) VALUES (?1, 1)", [token])?;
    Ok(())
}

fn add_in(tx: &Transaction<'_>, token: &str) -> Result<(), StoreError> {
    match tx.add_join_token(token, 1)? {
        true => Ok(()),
        false => Err(StoreError::Corrupt(format!("{token} is there"))),
    }
}

#[test]
fn statements_are_parsed_once_as_many_as_there_are_and_whatever_is_bound() {
    let database = Fixture::new().open();
    let run = |number: i64| {
        let mut statement = database.connection.prepare_cached(&format!("SELECT {number} LIMIT ?1")).expect("SQL");
        statement.query_row([number + 1], |_| Ok(())).expect("a row");
        (statement.get_status(StatementStatus::Run), statement.get_status(StatementStatus::RePrepare))
    };
    let each = || (0..100).map(run).collect::<Vec<_>>();
    assert_eq!(each(), [(1, 0); 100]);
    assert_eq!(each(), [(2, 0); 100], "another is run than was parsed before");
}

/// One change, and what it holds while it is under way.
async fn run<G: Send + 'static, T: Send + 'static>(
    writer: &Writer,
    held: G,
    work: impl Fn(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    // Whatever runs more than once gives it up once.
    let held = std::sync::Mutex::new(Some(held));
    writer.queue(move |tx| Ok((held.lock().expect("no panic").take(), work(tx)?))).await.answer().await
}

/// Keeps the writer busy until dropped, so that what is sent meanwhile is committed together.
fn hold(writer: &Writer) -> mpsc::Sender<()> {
    let (release, wait) = mpsc::channel::<()>();
    let writer = writer.clone();
    tokio::spawn(async move {
        let _ = run(&writer, (), move |_| Ok::<_, StoreError>(wait.recv().is_ok())).await;
    });
    release
}

#[tokio::test]
async fn one_change_that_fails_takes_none_of_its_batch_with_it() {
    let fixture = Fixture::new();
    let writer = Writer::start(fixture.open()).expect("starts");
    let release = hold(&writer);
    let change = |name: &'static str, good: bool| {
        run(&writer, (), move |tx| {
            add_in(tx, name)?;
            if good { Ok(name) } else { Err(StoreError::Corrupt(name.into())) }
        })
    };
    let changes = [change("a", true), change("b", false), change("c", true), change("a", true), change("d", true)];
    let all = futures_util::future::join_all(changes);
    let (results, ()) = tokio::join!(all, async { drop(release) });
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, false, true]);
    assert!(matches!(&results[1], Err(StoreError::Corrupt(why)) if why == "b"));
    writer.close().await;
    let tokens: String = fixture.sql("SELECT group_concat(token ORDER BY token) FROM join_tokens");
    assert_eq!(tokens, "a,c,d");
}

#[tokio::test]
async fn what_a_change_holds_is_dropped_after_its_commit_and_in_order() {
    /// Says when it is dropped, and whether its token is on disk by then.
    struct Held(i32, PathBuf, mpsc::Sender<(i32, bool)>);
    impl Drop for Held {
        fn drop(&mut self) {
            let other = Connection::open(&self.1).expect("opens");
            let count = "SELECT count(*) FROM join_tokens WHERE token = ?1";
            let durable = other.query_row(count, [self.0.to_string()], |row| row.get(0)).expect("reads");
            self.2.send((self.0, durable)).expect("test listens");
        }
    }
    let fixture = Fixture::new();
    let writer = Writer::start(fixture.open()).expect("starts");
    let release = hold(&writer);
    let (seen, order) = mpsc::channel();
    let changes =
        (0..50).map(|n| run(&writer, Held(n, fixture.path(), seen.clone()), move |tx| add_in(tx, &n.to_string())));
    let all = futures_util::future::join_all(changes);
    let (results, ()) = tokio::join!(all, async { drop(release) });
    assert!(results.iter().all(Result::is_ok));
    drop(seen);
    assert_eq!(order.iter().collect::<Vec<_>>(), (0..50).map(|n| (n, true)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_caller_that_goes_away_has_its_change_all_the_same() {
    let fixture = Fixture::new();
    let store = Store::open(&fixture.path(), &fixture.trust_domain).expect("opens");
    let mut given_up = Box::pin(store.put_ca_journal("", b"journal".to_vec()));
    // One poll queues the change.
    let _ = futures_util::poll!(&mut given_up);
    drop(given_up);
    assert_eq!(store.ca_journal("").await.expect("reads"), Some(b"journal".to_vec()));
}

#[tokio::test]
async fn a_full_disk_refuses_what_does_not_fit_and_goes_on() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let pages: i64 = database.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("pages");
    database.connection.pragma_update(None, "max_page_count", pages + 2).expect("limit");
    let writer = Writer::start(database).expect("starts");
    let big = |size: usize| run(&writer, (), move |tx| tx.put_ca_journal("", &vec![0; size]));
    let small = |name: &'static str| run(&writer, (), move |tx| add_in(tx, name));
    assert!(matches!(big(1 << 20).await, Err(StoreError::Full(_))));
    let release = hold(&writer);
    let together = async { tokio::join!(small("a"), big(1 << 20), small("b")) };
    let ((a, too_big, b), ()) = tokio::join!(together, async { drop(release) });
    assert!(matches!(too_big, Err(StoreError::Full(_))), "{too_big:?}");
    writer.close().await;
    // Whatever SQLite did with the transaction around the failure: what was promised is there, and nothing else.
    for (name, promised) in [("a", a.is_ok()), ("b", b.is_ok())] {
        let there: bool = fixture.sql(&format!("SELECT count(*) FROM join_tokens WHERE token = '{name}'"));
        assert_eq!(there, promised, "{name}");
    }
    assert!(b.is_ok(), "a change after the failed one has a transaction of its own");
}

#[tokio::test]
async fn trouble_is_told_while_changes_do_not_get_to_the_disk_and_no_longer() {
    let fixture = Fixture::new();
    let store = Store::open(&fixture.path(), &fixture.trust_domain).expect("opens");
    store.probe().await.expect("writes");
    assert!(store.trouble().is_none());
    let other = Connection::open(fixture.path()).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    assert!(matches!(store.probe().await, Err(StoreError::Locked)));
    assert!(matches!(store.trouble(), Some(StoreError::Locked)));
    other.execute_batch("ROLLBACK").expect("lets go");
    store.change(|tx| tx.spend_join_token("none", 1)).await.expect("nothing to do");
    assert!(store.trouble().is_some(), "a commit without changes does not touch the disk and proves nothing");
    store.probe().await.expect("writes");
    assert!(store.trouble().is_none());
    store.close().await;
    assert_eq!(fixture.sql::<i64>("SELECT count(*) FROM about"), 1, "a probe leaves no trace");
}

//= FLT-S4
#[tokio::test]
async fn a_full_disk_is_trouble_until_there_is_room() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let pages: i64 = fixture.sql("PRAGMA page_count");
    database.connection.pragma_update(None, "max_page_count", pages).expect("set");
    let writer = Writer::start(database).expect("starts");
    let fill = |tx: &Transaction<'_>| {
        for number in 0..10_000 {
            add_in(tx, &format!("{number:0>200}"))?;
        }
        Ok(())
    };
    assert!(matches!(run(&writer, (), fill).await, Err::<(), _>(StoreError::Full(_))));
    assert!(writer.trouble().is_some());
    run(&writer, (), |tx| add_in(tx, "small")).await.expect("fits");
    assert!(writer.trouble().is_none());
    writer.close().await;
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let fixture = Fixture::new();
    let store = Store::open(&fixture.path(), &fixture.trust_domain).expect("opens");
    store.close().await;
    assert!(matches!(store.ca_journal("").await, Err(StoreError::Closed)));
    assert!(Store::open(&fixture.path(), &fixture.trust_domain).is_ok(), "the lock is free again");
}

const NEXT: Migration = Migration::sql("ALTER TABLE about ADD COLUMN extra TEXT");

//= FLT-S22
#[test]
fn migrates_an_older_file_and_leaves_a_copy_of_it() {
    let fixture = Fixture::new();
    add_token(&fixture.open().connection, "kept").expect("adds");
    let newer = [schema::MIGRATIONS, &[NEXT]].concat();
    fixture.open_with(&newer).expect("migrates").close();
    assert_eq!(fixture.sql::<i64>("PRAGMA user_version"), newer.len() as i64);
    assert_eq!(fixture.sql::<String>("SELECT token FROM join_tokens"), "kept");
    let mut backup = fixture.path().into_os_string();
    backup.push(format!(".v{}", schema::MIGRATIONS.len()));
    let mode = std::fs::metadata(&backup).expect("the copy").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds join tokens, as the file does");
    let backup = Connection::open(backup).expect("the copy");
    let kept: String = backup.query_row("SELECT token FROM join_tokens", [], |row| row.get(0)).expect("reads");
    assert_eq!(kept, "kept");
}

#[test]
fn the_copy_of_a_file_whose_path_is_no_utf_8_is_beside_it() {
    let fixture = Fixture::new();
    let path = fixture.directory.path().join(OsStr::from_bytes(b"data\xffstore"));
    file::open(&path, &fixture.trust_domain).expect("founds").close();
    let newer = [schema::MIGRATIONS, &[NEXT]].concat();
    file::open_with(&path, &fixture.trust_domain, &newer).expect("migrates").close();
    let version = schema::MIGRATIONS.len();
    let mut backup = path.into_os_string();
    backup.push(format!(".v{version}"));
    assert!(std::fs::metadata(backup).expect("the copy").len() > 0);
}

/// A file as servers of schema 1 left it.
#[tokio::test]
async fn a_device_that_was_banned_before_bans_had_reasons_is_banned_still() {
    let fixture = Fixture::new();
    let first = fixture.open_with(&schema::MIGRATIONS[..1]).expect("is made");
    let add = "INSERT INTO devices (ek_sha256, serial, labels, state, manufacturer, created_at, last_attested_at)
               VALUES (zeroblob(32), 'SN-1', '{}', 'banned', 'IFX', 1, 2)";
    first.connection.execute(add, []).expect("adds");
    first.close();
    let store = Store::open(&fixture.path(), &fixture.trust_domain).expect("migrates");
    let devices = store.change(|tx| tx.devices()).await.expect("reads");
    let [device] = &devices[..] else { panic!("{devices:?}") };
    assert_eq!((device.record.state, &device.record.ban), (DeviceState::Banned, &None));
    store.close().await;
    assert!(fixture.path().with_extension("sqlite3.v1").exists(), "a copy of the old file");
}

/// Every table and index as SQLite keeps them.
fn tables(fixture: &Fixture) -> Vec<String> {
    let connection = Connection::open(fixture.path()).expect("opens");
    let all = "SELECT name || ': ' || coalesce(sql, '') FROM sqlite_master ORDER BY name";
    let mut statement = connection.prepare(all).expect("SQL");
    statement.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("read")
}

//= FLT-S22
#[test]
fn a_file_of_every_version_before_becomes_todays_and_the_copy_beside_it_is_the_way_back() {
    let fresh = Fixture::new();
    fresh.open().close();
    for version in 1..schema::MIGRATIONS.len() {
        let (fixture, older) = (Fixture::new(), &schema::MIGRATIONS[..version]);
        let before = fixture.open_with(older).expect("is made");
        add_token(&before.connection, "kept").expect("adds");
        before.close();
        fixture.open().close();
        assert_eq!(tables(&fixture), tables(&fresh), "from version {version}");
        assert_eq!(fixture.sql::<String>("SELECT token FROM join_tokens"), "kept", "from version {version}");
        let refused = fixture.open_with(older).map(drop).expect_err("a server of before refuses it");
        let (found, known) = (format!("schema version {}", schema::MIGRATIONS.len()), format!("up to {version};"));
        let told = refused.to_string();
        assert!(told.contains(&found) && told.contains(&known) && told.contains("put the copy"), "{told}");
        let copy = fixture.path().with_extension(format!("sqlite3.v{version}"));
        std::fs::rename(copy, fixture.path()).expect("the copy takes its place");
        let back = fixture.open_with(older).expect("the server of before goes on with it");
        let kept: String =
            back.connection.query_row("SELECT token FROM join_tokens", [], |row| row.get(0)).expect("reads");
        assert_eq!(kept, "kept", "back to version {version}");
        back.close();
    }
}

//= FLT-S22
#[test]
fn a_migration_that_fails_leaves_the_file_as_it_was() {
    let fixture = Fixture::new();
    fixture.open().close();
    let broken = [schema::MIGRATIONS, &[NEXT, Migration::sql("CREATE TABLE about (x)")]].concat();
    assert!(matches!(fixture.open_with(&broken), Err(StoreError::Sql(_))));
    assert_eq!(fixture.sql::<i64>("PRAGMA user_version"), schema::MIGRATIONS.len() as i64);
    fixture.open().close();
}

//= FLT-S22
#[test]
fn refuses_a_file_that_a_newer_server_wrote() {
    let fixture = Fixture::new();
    let newer = [schema::MIGRATIONS, &[NEXT]].concat();
    fixture.open_with(&newer).expect("is made").close();
    let known = schema::MIGRATIONS.len() as i64;
    let refused = fixture.open_with(schema::MIGRATIONS).map(drop).expect_err("refused");
    assert!(matches!(refused, StoreError::NewerSchema { found, known: k, .. } if found == known + 1 && k == known));
    assert!(refused.to_string().contains("a name that ends with .v"), "{refused}");
}

#[test]
fn every_commit_waits_for_the_disk() {
    let connection = Fixture::new().open().connection;
    let pragma = |name: &str| -> i64 { connection.query_row(&format!("PRAGMA {name}"), [], |r| r.get(0)).expect(name) };
    assert_eq!((pragma("synchronous"), pragma("foreign_keys")), (2, 1));
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("mode");
    assert_eq!(mode, "wal");
}

//= FLT-S4
#[test]
fn sqlites_codes_become_what_an_operator_can_act_on() {
    use rusqlite::ffi;
    let error = |code| StoreError::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
    assert!(matches!(error(ffi::SQLITE_FULL), StoreError::Full(_)));
    assert!(matches!(error(ffi::SQLITE_READONLY), StoreError::ReadOnly));
    assert!(matches!(error(ffi::SQLITE_BUSY), StoreError::Locked));
    assert!(matches!(error(ffi::SQLITE_CORRUPT), StoreError::Corrupt(_)));
    assert!(matches!(error(ffi::SQLITE_NOTADB), StoreError::Corrupt(_)));
    assert!(matches!(error(ffi::SQLITE_IOERR), StoreError::Sql(_)));
}

#[test]
fn a_file_that_others_may_read_is_its_owners_alone_once_it_was_opened() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let mode = || std::fs::metadata(fixture.path()).expect("there").permissions().mode() & 0o777;
    std::fs::set_permissions(fixture.path(), std::fs::Permissions::from_mode(0o664)).expect("set");
    assert_eq!(super::open_to_others(&fixture.path()), [fixture.path()]);
    drop(fixture.open());
    assert_eq!((mode(), super::open_to_others(&fixture.path()).len()), (0o600, 0));
}

#[test]
fn a_directory_is_no_database_and_gets_no_lock_beside_it() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path()).expect("made");
    let refused = fixture.open_with(schema::MIGRATIONS).map(drop).expect_err("a directory");
    assert!(matches!(refused, StoreError::Open { .. }), "{refused}");
    assert!(!file::beside(&fixture.path(), ".lock").exists());
}
