//! The store under power cuts, damage, and two servers on one file.

#[path = "support/grants.rs"]
mod grants;

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ironroot_api::TrustDomain;
use ironroot_server::registry::Registry;
use ironroot_server::store::{ShownToken, Store, StoreError};
use tempfile::TempDir;

fn td() -> TrustDomain {
    TrustDomain::new("example.org").expect("legal")
}

fn database() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("datastore.sqlite3");
    (directory, path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

async fn add_token(store: &Store, token: &str) {
    let registry = Registry::load(store.clone()).await.expect("loads");
    registry.create_join_token(&grants::administrator(), token, 100, None, 0).await.expect("adds");
}

/// A closed database that holds a few pages of tokens.
async fn filled(path: &Path) {
    let store = Store::open(path, &td()).expect("opens");
    let registry = Registry::load(store.clone()).await.expect("loads");
    let names: Vec<String> = (0..500).map(|n| format!("token-{n:04}-{}", "x".repeat(40))).collect();
    let by = grants::administrator();
    let all = names.iter().map(|name| registry.create_join_token(&by, name, 100, None, 0));
    futures_util::future::join_all(all).await.into_iter().for_each(|r| r.expect("adds"));
    store.put_ca_journal("", vec![7; 20_000]).await.expect("writes");
    store.close().await;
}

fn refusal(path: &Path) -> StoreError {
    Store::open(path, &td()).map(|_| ()).expect_err("refused")
}

#[tokio::test]
async fn an_expired_token_is_good_for_nothing_and_stays_until_it_is_pruned_with_its_alias() {
    let (_directory, path) = database();
    let store = Store::open(&path, &td()).expect("opens");
    add_token(&store, "old").await;
    for _ in 0..2 {
        assert_eq!(store.join_token("old", 100).await.expect("store works"), ShownToken::Expired);
        let spent = store.change(|tx| tx.spend_join_token("old", 100)).await.expect("store works");
        assert_eq!(spent, ShownToken::Expired);
    }
    let registry = Registry::load(store.clone()).await.expect("loads");
    assert_eq!(registry.prune_join_tokens(99).await.expect("store works"), 0);
    assert_eq!(registry.prune_join_tokens(100).await.expect("store works"), 1);
    assert_eq!(store.join_token("old", 99).await.expect("store works"), ShownToken::Unknown);
}

#[tokio::test]
async fn a_database_of_spire_is_called_that_and_left_as_it_is() {
    let (_directory, path) = database();
    let spire = rusqlite::Connection::open(&path).expect("opens");
    // As SPIRE's `sqlstore` makes it.
    let tables =
        "CREATE TABLE migrations (id integer primary key autoincrement, created_at datetime, updated_at datetime,
                      version integer, code_version varchar(255));
                  INSERT INTO migrations (version, code_version) VALUES (25, '1.16.0-dev');
                  CREATE TABLE bundles (id integer primary key autoincrement, trust_domain varchar(255), data blob);";
    spire.execute_batch(tables).expect("made");
    drop(spire);
    let before = std::fs::read(&path).expect("read");
    let refused = refusal(&path);
    assert!(matches!(refused, StoreError::Spire), "{refused}");
    assert!(refused.to_string().contains("this is a SPIRE database"), "{refused}");
    assert!(std::fs::read(&path).expect("read") == before, "not a byte was changed");
}

/// SPIRE's server keeps its file in WAL mode: while it runs, and after it was killed, every table may be in the log alone.
#[tokio::test]
async fn a_database_of_spire_is_known_by_its_log_too() {
    let (_directory, path) = database();
    let spire = rusqlite::Connection::open(&path).expect("opens");
    let tables = "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
                  CREATE TABLE migrations (id integer primary key, version integer, code_version varchar(255));";
    spire.execute_batch(tables).expect("made");
    assert!(std::fs::metadata(&path).expect("there").len() <= 4096, "the table is not in the file yet");
    for refused in [refusal(&path), Store::recognise(&path, &td()).expect_err("refused")] {
        assert!(matches!(refused, StoreError::Spire), "{refused}");
    }
    spire.execute("INSERT INTO migrations (version) VALUES (26)", []).expect("its server works on");
}

#[tokio::test]
async fn whose_a_database_is_can_be_told_while_its_server_runs() {
    let (directory, path) = database();
    Store::recognise(&path, &td()).expect("none is no mistake");
    let running = Store::open(&path, &td()).expect("opens");
    add_token(&running, "token").await;
    Store::recognise(&path, &td()).expect("ours");
    let other = Store::recognise(&path, &TrustDomain::new("other.org").expect("legal"));
    assert!(matches!(other, Err(StoreError::OtherTrustDomain { .. })), "{other:?}");
    running.close().await;
    Store::recognise(&path, &td()).expect("ours");
    let text = directory.path().join("text");
    std::fs::write(&text, "no database ".repeat(100)).expect("written");
    let refused = Store::recognise(&text, &td());
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
}

#[tokio::test]
async fn a_second_server_on_the_same_file_is_told_so() {
    let (_directory, path) = database();
    let first = Store::open(&path, &td()).expect("opens");
    assert!(matches!(refusal(&path), StoreError::InUse(p) if p == path));
    first.put_ca_journal("", vec![1]).await.expect("the first goes on");
    first.close().await;
    assert!(Store::open(&path, &td()).is_ok());
}

//= FLT-S19
#[tokio::test]
async fn refuses_a_database_of_another_trust_domain() {
    let (_directory, path) = database();
    filled(&path).await;
    let other = TrustDomain::new("other.org").expect("legal");
    let refused = Store::open(&path, &other).map(|_| ()).expect_err("refused");
    assert!(matches!(refused, StoreError::OtherTrustDomain { found, .. } if found == "example.org"));
}

//= FLT-S6
#[tokio::test]
async fn a_truncated_database_is_refused_at_every_length() {
    let (_directory, path) = database();
    filled(&path).await;
    let whole = std::fs::read(&path).expect("reads");
    for length in [0, 1, 50, 100, 512, 4095, 4096, 8192, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).expect("writes");
        let opened = Store::open(&path, &td()).map(drop);
        assert!(matches!(opened, Err(StoreError::Corrupt(_))), "{length} of {} bytes: {opened:?}", whole.len());
        assert_eq!(std::fs::read(&path).expect("reads").len(), length, "the evidence is left as it was");
    }
    std::fs::write(&path, &whole).expect("writes");
    let store = Store::open(&path, &td()).expect("the whole file is good");
    assert_eq!(store.ca_journal("").await.expect("reads"), Some(vec![7; 20_000]));
}

//= FLT-S6
#[tokio::test]
async fn a_database_with_a_page_of_zeros_is_refused() {
    let (_directory, path) = database();
    filled(&path).await;
    let whole = std::fs::read(&path).expect("reads");
    let store = rusqlite::Connection::open(&path).expect("opens");
    let root = |table: &str| -> i64 {
        store.query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [table], |r| r.get(0)).expect(table)
    };
    let pages: Vec<i64> = ["about", "entries", "agents", "join_tokens", "devices", "ca_journals"].map(root).into();
    drop(store);
    for page in pages {
        let mut damaged = whole.clone();
        let start = (page as usize - 1) * 4096;
        damaged[start..start + 4096].fill(0);
        std::fs::write(&path, &damaged).expect("writes");
        assert!(matches!(refusal(&path), StoreError::Corrupt(_)), "page {page}");
    }
}

//= FLT-S6
#[tokio::test]
async fn what_is_left_of_a_database_is_not_a_fresh_start() {
    let (_directory, path) = database();
    filled(&path).await;
    std::fs::remove_file(&path).expect("removes");
    std::fs::write(beside(&path, "-wal"), b"log").expect("writes");
    assert!(matches!(refusal(&path), StoreError::Corrupt(_)));
    std::fs::remove_file(beside(&path, "-wal")).expect("removes");
    std::fs::write(
        &path,
        "not a database, but as long as one's header would be: 100 bytes and then some more of it".repeat(50),
    )
    .expect("writes");
    assert!(matches!(refusal(&path), StoreError::Corrupt(_)));
    std::fs::remove_file(&path).expect("removes");
    rusqlite::Connection::open(&path).expect("opens").execute_batch("CREATE TABLE x (y)").expect("another's file");
    assert!(matches!(refusal(&path), StoreError::Corrupt(_)));
}

#[tokio::test]
async fn a_start_that_was_cut_off_while_founding_starts_again() {
    let (_directory, path) = database();
    std::fs::write(beside(&path, ".new"), b"half a database").expect("writes");
    std::fs::write(beside(&path, ".new-wal"), b"half a log").expect("writes");
    let store = Store::open(&path, &td()).expect("is made");
    assert_eq!(store.ca_journal("").await.expect("reads"), None);
}

#[tokio::test]
async fn only_the_server_can_read_the_file() {
    let (_directory, path) = database();
    let store = Store::open(&path, &td()).expect("opens");
    store.put_ca_journal("", vec![1]).await.expect("writes");
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let mode = std::fs::metadata(beside(&path, suffix)).expect(suffix).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{suffix}");
    }
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named() {
    let (directory, _) = database();
    let path = directory.path().join("missing/datastore.sqlite3");
    let refused = refusal(&path);
    assert!(
        matches!(&refused, StoreError::NoDirectory(named) if *named == directory.path().join("missing")),
        "{refused}"
    );
}

const CHILD_DATABASE: &str = "IRONROOT_TEST_CHILD_DATABASE";

/// Not a test of its own: the process that the test below kills.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD_DATABASE) else { return };
    let store = Store::open(Path::new(&path), &td()).expect("opens");
    let last = store.ca_journal("").await.expect("reads");
    let mut number = last.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().expect("8 bytes")));
    loop {
        number += 1;
        store.put_ca_journal("", number.to_be_bytes().to_vec()).await.expect("writes");
        println!("promised {number}");
        std::io::stdout().flush().expect("parent listens");
    }
}

//= FLT-S2
#[tokio::test]
async fn what_was_promised_survives_kill_9() {
    let (_directory, path) = database();
    let mut promised = 0;
    for round in 0..15 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD_DATABASE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // The first round is killed while or before it makes the file, later ones after ever more promises.
        let mut wanted = round * 3;
        while wanted > 0 {
            let line = lines.next().expect("child goes on").expect("text");
            if let Some(number) = line.split_once("promised ").map(|(_, number)| number) {
                promised = number.parse().expect("number");
                wanted -= 1;
            }
        }
        child.kill().expect("kills");
        child.wait().expect("reaps");
        // What it promised between our last read and its death counts too.
        for line in lines.map_while(Result::ok) {
            let whole = line.split_once("promised ").and_then(|(_, number)| number.parse().ok());
            promised = whole.unwrap_or(promised).max(promised);
        }
        let store = Store::open(&path, &td()).expect("opens after the kill");
        let found = store.ca_journal("").await.expect("reads");
        let found = found.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().expect("8 bytes")));
        assert!(found == promised || found == promised + 1, "promised {promised}, found {found}");
        promised = found;
        store.close().await;
    }
}

#[tokio::test]
async fn a_log_cut_short_loses_no_more_than_its_tail() {
    let (_directory, path) = database();
    let store = Store::open(&path, &td()).expect("opens");
    for number in 0..20u8 {
        store.put_ca_journal("", vec![number]).await.expect("writes");
    }
    // The file as a power cut would leave it: a copy taken while the server runs, its log torn in the last frame.
    let copy = path.with_file_name("copy.sqlite3");
    std::fs::copy(&path, &copy).expect("copies");
    std::fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).expect("copies");
    let mut log = std::fs::OpenOptions::new().read(true).write(true).open(beside(&copy, "-wal")).expect("opens");
    let mut last = [0];
    log.seek(SeekFrom::End(-1)).and_then(|_| log.read_exact(&mut last)).expect("reads");
    log.seek(SeekFrom::End(-1)).and_then(|_| log.write_all(&[!last[0]])).expect("writes");
    drop(log);
    let store = Store::open(&copy, &td()).expect("opens");
    assert_eq!(store.ca_journal("").await.expect("reads"), Some(vec![18]));
}
