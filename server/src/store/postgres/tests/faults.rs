//! A database that goes away, comes back, writes no more, or loses an answer.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ironroot_postgres_cluster::Cluster;

use super::*;
use crate::registry::Registry;
use crate::store::ShownToken;

/// Connections that are in vain before the database is back.
const LOOKS: usize = 200;

/// Waits until the store takes changes again.
pub(super) async fn recovered(store: &Store) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while let Err(why) = store.probe().await {
        assert!(tokio::time::Instant::now() < deadline, "{why}");
        tokio::task::yield_now().await;
    }
    assert!(store.trouble().is_none());
}

//= REG-11
#[tokio::test]
async fn while_the_database_is_gone_memory_answers_and_changes_are_refused_and_afterwards_all_is_as_before() {
    let mut cluster = Cluster::start();
    let database = cluster.create_database();
    let store = open(&cluster.connection_string(&database));
    let registry = Registry::load(store.clone()).await.expect("loads");
    add(&store, "a").await.expect("writes");
    cluster.stop();
    let refused = add(&store, "b").await.expect_err("gone");
    assert!(matches!(refused, StoreError::Unreachable(_)), "{refused}");
    assert!(matches!(store.trouble(), Some(StoreError::Unreachable(_))));
    assert!(registry.agent(&agent("a").spiffe_id).is_some(), "memory has what was there");
    cluster.restart();
    recovered(&store).await;
    add(&store, "c").await.expect("writes");
    assert_eq!(agents_of(&cluster, &database), "2");
}

#[tokio::test]
async fn a_frozen_server_is_given_up_at_a_deadline() {
    let cluster = Cluster::start();
    let database = cluster.create_database();
    let store = open(&cluster.connection_string(&database));
    add(&store, "a").await.expect("writes");
    cluster.freeze(true);
    let refused = add(&store, "b").await.expect_err("frozen");
    assert!(matches!(refused, StoreError::Unreachable(_)), "{refused}");
    cluster.freeze(false);
    recovered(&store).await;
    add(&store, "c").await.expect("writes");
    assert_eq!(agents_of(&cluster, &database), "2", "what was refused was not done");
}

#[tokio::test]
async fn a_connection_that_was_ended_between_two_changes_is_not_noticed() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let store = open(&cluster.connection_string(&database));
    add(&store, "a").await.expect("writes");
    end_connections(cluster, &database);
    add(&store, "b").await.expect("writes");
}

pub(super) fn end_connections(cluster: &Cluster, database: &str) {
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    cluster.sql(database, end);
}

#[tokio::test]
async fn a_change_whose_commit_was_ended_is_done_once() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let store = open(&cluster.connection_string(&database));
    // Numbers of a sequence are not given back by a transaction that ends badly.
    let trap = "CREATE SEQUENCE ended; GRANT ALL ON ended TO PUBLIC;
        CREATE FUNCTION ends_once() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF nextval('ended') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER ends AFTER INSERT ON agents DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION ends_once()";
    cluster.sql(&database, trap);
    add(&store, "a").await.expect("done at the second try");
    assert_eq!(cluster.sql(&database, "SELECT last_value FROM ended"), "2", "it was ended once");
    assert_eq!(agents_of(cluster, &database), "1");
    assert_eq!(cluster.sql(&database, "SELECT count(*) FROM changes WHERE kind = 'agent'"), "1");
}

/// What goes wrong between a store and the database's socket.
#[derive(Clone, Default)]
pub(super) struct Between {
    /// The answers to the next commit are lost.
    pub loses: Arc<AtomicBool>,
    /// No commit gets through; whoever comes after one that did not is turned away once.
    pub swallows: Arc<AtomicBool>,
    pub swallowed: Arc<AtomicUsize>,
    /// The connection ends with the first question behind the next commit, and nobody is let through from then on.
    pub cuts_behind: Arc<AtomicBool>,
    /// Nobody is let through.
    pub away: Arc<AtomicBool>,
    pub turned_away: Arc<AtomicUsize>,
}

/// Carries everything else.
fn losing_answers(place: &Path, port: u16, between: &Between) -> String {
    let directory = tempfile::tempdir().expect("temporary directory").keep();
    let socket = format!(".s.PGSQL.{port}");
    let (listener, server) = (UnixListener::bind(directory.join(&socket)).expect("listens"), place.join(socket));
    let between = between.clone();
    std::thread::spawn(move || {
        let mut turned = 0;
        for client in listener.incoming().map_while(Result::ok) {
            let is_next =
                between.swallows.load(Ordering::Relaxed) && between.swallowed.load(Ordering::Relaxed) > turned;
            turned += usize::from(is_next);
            if is_next || between.away.load(Ordering::Relaxed) {
                between.turned_away.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let (server, between) = (UnixStream::connect(&server).expect("connects"), between.clone());
            std::thread::spawn(move || carry(client, server, &between));
        }
    });
    directory.display().to_string()
}

fn carry(client: UnixStream, server: UnixStream, between: &Between) {
    let (mut answers, mut back) = (server.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
    std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
    let (mut from, mut to, mut piece, mut committed) = (client, server, [0; 16 * 1024], false);
    while let Ok(length @ 1..) = from.read(&mut piece) {
        let sent = &piece[..length];
        let commits = sent.windows(6).any(|word| word == b"COMMIT");
        if commits && between.loses.swap(false, Ordering::Relaxed) {
            from.shutdown(std::net::Shutdown::Both).expect("cut");
        }
        if committed || commits && between.swallows.load(Ordering::Relaxed) {
            between.away.store(committed, Ordering::Relaxed);
            between.swallowed.fetch_add(usize::from(!committed), Ordering::Relaxed);
            from.shutdown(std::net::Shutdown::Both).expect("cut");
            break;
        }
        committed = commits && between.cuts_behind.swap(false, Ordering::Relaxed);
        if to.write_all(sent).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// A store with a good token, and what goes wrong between it and the database.
pub(super) async fn store_behind(cluster: &Cluster, database: &str) -> (Store, Between) {
    let between = Between::default();
    let place = cluster.roots().parent().expect("a directory").to_owned();
    let behind = losing_answers(&place, cluster.port(), &between);
    let store = open(&cluster.connection_string(database).replace(&place.display().to_string(), &behind));
    store.change(|tx| tx.add_join_token("once", 100)).await.expect("added");
    (store, between)
}

pub(super) async fn spend(store: Store) -> Result<ShownToken, StoreError> {
    let spent = store.change(|tx| {
        let shown = tx.spend_join_token("once", 1)?;
        tx.put_agent(&agent("a"))?;
        Ok::<_, StoreError>(shown)
    });
    spent.await
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_and_not_done_again() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let (store, between) = store_behind(cluster, &database).await;
    between.loses.store(true, Ordering::Relaxed);
    assert_eq!(spend(store.clone()).await.expect("found"), ShownToken::Good, "as it was when it was committed");
    assert!(!between.loses.load(Ordering::Relaxed), "the answer was lost");
    assert_eq!(agents_of(cluster, &database), "1");
    assert_eq!(cluster.sql(&database, "SELECT count(*) FROM changes WHERE kind = 'agent'"), "1");
    // What leaves no row in the log is not found again, and said to be unknown.
    between.loses.store(true, Ordering::Relaxed);
    let unknown = store.change(|tx| tx.add_join_token("another", 100)).await.expect_err("who knows");
    assert!(matches!(unknown, StoreError::OutcomeUnknown(_)), "{unknown}");
}

//= FLT-S27
#[tokio::test]
async fn a_commit_is_looked_for_until_a_failover_is_over_and_meanwhile_others_are_refused_at_once() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let (store, between) = store_behind(cluster, &database).await;
    between.away.store(true, Ordering::Relaxed);
    between.loses.store(true, Ordering::Relaxed);
    let spent = tokio::spawn(spend(store.clone()));
    while between.loses.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    let refused = add(&store, "b").await.expect_err("away");
    assert!(matches!(refused, StoreError::Unreachable(_)), "{refused}");
    while between.turned_away.load(Ordering::Relaxed) < LOOKS {
        assert!(store.probe().await.is_err() && !spent.is_finished(), "nobody knows yet");
    }
    between.away.store(false, Ordering::Relaxed);
    assert_eq!(spent.await.expect("no panic").expect("found"), ShownToken::Good);
    assert_eq!(agents_of(cluster, &database), "1");
    recovered(&store).await;
}

//= FLT-S28
#[tokio::test]
async fn nothing_is_written_into_the_history_of_a_standby_that_lagged() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let store = open(&cluster.connection_string(&database));
    store.change(|tx| tx.add_join_token("once", 100)).await.expect("added");
    let _followed = store.bundle_changes().await.expect("follows");
    assert_eq!(spend(store.clone()).await.expect("spent"), ShownToken::Good);
    // The last commit is lost with the server that had it.
    let lost = "DELETE FROM agents; INSERT INTO join_tokens (token, expires_at) VALUES ('once', 100);
                DELETE FROM changes WHERE revision > 1; UPDATE revision SET revision = 1;
                SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    cluster.sql(&database, lost);
    let refused = spend(store.clone()).await.expect_err("it would be spent twice");
    assert!(matches!(refused, StoreError::OtherHistory { followed: 2, found: 1 }), "{refused}");
    assert_eq!(agents_of(cluster, &database), "0");
    assert!(matches!(store.trouble(), Some(StoreError::OtherHistory { .. })));
}

//= FLT-S4
#[tokio::test]
async fn a_database_that_takes_no_writes_or_is_full_says_so_and_goes_on_afterwards() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let store = open(&cluster.connection_string(&database));
    let mode = |on: &str| format!("ALTER DATABASE {database} SET default_transaction_read_only = {on}");
    cluster.sql(&database, &mode("on"));
    end_connections(cluster, &database);
    assert!(matches!(add(&store, "a").await, Err(StoreError::ReadOnly)));
    assert!(matches!(store.probe().await, Err(StoreError::ReadOnly)));
    cluster.sql("postgres", &mode("off"));
    recovered(&store).await;
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER is_full BEFORE INSERT ON agents FOR EACH ROW EXECUTE FUNCTION full_disk()";
    cluster.sql(&database, full);
    assert!(matches!(add(&store, "a").await, Err(StoreError::Full(_))));
    cluster.sql(&database, "DROP TRIGGER is_full ON agents");
    add(&store, "a").await.expect("there is room");
}

#[tokio::test]
async fn another_programs_lock_is_waited_for_and_not_for_ever() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let store = open(&cluster.connection_string(&database));
    let holder = open(&cluster.connection_string(&database));
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let (begun, holds) = tokio::sync::oneshot::channel();
    let begun = std::sync::Mutex::new(Some(begun));
    let held = tokio::spawn(async move {
        let hold = move |_: &crate::store::Transaction<'_>| {
            if let Some(begun) = begun.lock().expect("no panic").take() {
                let _ = begun.send(());
            }
            let _ = wait.recv();
            Ok::<_, StoreError>(())
        };
        holder.change(hold).await
    });
    holds.await.expect("holds");
    assert!(matches!(add(&store, "a").await, Err(StoreError::Locked)));
    drop(release);
    held.await.expect("no panic").expect("ends well");
    add(&store, "a").await.expect("free");
}

/// Waits for the server to have read its settings again.
fn set(cluster: &Cluster, setting: &str, value: &str) {
    cluster.sql("postgres", &format!("ALTER SYSTEM SET {setting} = '{value}'"));
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    let is_so = || cluster.sql("postgres", &format!("SHOW {setting}")) == value;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "{setting} does not change");
    }
}

//= FLT-S4 FLT-S27
#[tokio::test]
async fn a_commit_that_hangs_at_a_slow_disk_or_standby_is_given_up_waited_for_and_found() {
    let cluster = Cluster::start();
    let database = cluster.create_database();
    let (store, _between) = store_behind(&cluster, &database).await;
    set(&cluster, "synchronous_standby_names", "nobody");
    let spent = tokio::spawn(spend(store.clone()));
    let hanging = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    while cluster.sql("postgres", hanging) != "1" {
        tokio::task::yield_now().await;
    }
    let refused = store.probe().await.expect_err("the commit before it hangs");
    assert!(matches!(refused, StoreError::Locked | StoreError::Unreachable(_)), "{refused}");
    assert!(!spent.is_finished(), "nobody knows yet");
    set(&cluster, "synchronous_standby_names", "");
    assert_eq!(spent.await.expect("no panic").expect("found"), ShownToken::Good);
    assert_eq!(agents_of(&cluster, &database), "1");
    recovered(&store).await;
}

//= FLT-S4
#[tokio::test]
async fn a_database_without_a_connection_to_spare_is_away_until_there_is_one() {
    let cluster = Cluster::start();
    let database = cluster.create_database();
    let store = open(&cluster.connection_string(&database));
    cluster.sql("postgres", "ALTER ROLE ironroot CONNECTION LIMIT 0");
    end_connections(&cluster, &database);
    let refused = add(&store, "a").await.expect_err("no connection");
    assert!(ironroot_shell::describe(&refused).contains("too many connections"), "{refused}");
    cluster.sql("postgres", "ALTER ROLE ironroot CONNECTION LIMIT -1");
    recovered(&store).await;
    add(&store, "a").await.expect("writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_ended_to_break_a_deadlock_is_done_again() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let store = open(&cluster.connection_string(&database));
    // Another program locks in the other order: a table, then what all writing begins with, once our change waits for the table.
    let other_order = "LOCK TABLE agents IN ACCESS EXCLUSIVE MODE;
        DO $$ BEGIN WHILE NOT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'agents'::regclass)
        LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;
        SELECT revision FROM revision FOR UPDATE";
    let of = database.clone();
    let other = std::thread::spawn(move || cluster.sql(&of, other_order));
    let locked = "SELECT count(*) FROM pg_locks WHERE granted AND relation = 'agents'::regclass AND mode = 'AccessExclusiveLock'";
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while cluster.sql(&database, locked) != "1" {
        assert!(std::time::Instant::now() < deadline, "the other program does not come");
    }
    add(&store, "a").await.expect("done, at the second try");
    assert_eq!(agents_of(cluster, &database), "1");
    let _ = other.join();
    let broken = "SELECT pg_stat_get_db_deadlocks(oid) > 0 FROM pg_database WHERE datname = current_database()";
    while cluster.sql(&database, broken) != "t" {
        assert!(std::time::Instant::now() < deadline, "there was a deadlock");
    }
}
