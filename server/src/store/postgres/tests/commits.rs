//! What becomes of commits around which the connection breaks: which are done, which are tried again, and into what.

use std::sync::atomic::Ordering;
use std::sync::mpsc;

use super::faults::{end_connections, recovered, spend, store_behind};
use super::*;
use crate::store::{ShownToken, Transaction};

//= FLT-S27
#[tokio::test]
async fn a_commit_that_is_done_is_not_said_not_to_be_if_the_connection_breaks_behind_it() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let (store, between) = store_behind(cluster, &database).await;
    let _followed = store.bundle_changes().await.expect("follows");
    between.cuts_behind.store(true, Ordering::Relaxed);
    let spent = tokio::spawn(spend(store.clone()));
    while between.turned_away.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let refused = add(&store, "b").await.expect_err("away");
    assert!(matches!(refused, StoreError::Unreachable(_)), "{refused}");
    assert!(!spent.is_finished(), "it is not in force yet");
    between.away.store(false, Ordering::Relaxed);
    assert_eq!(spent.await.expect("no panic").expect("done"), ShownToken::Good);
    recovered(&store).await;
    assert_eq!(agents_of(cluster, &database), "1", "what was refused was not done");
}

//= FLT-S27
#[tokio::test]
async fn a_commit_that_is_done_and_cannot_be_followed_is_said_to_be_unknown() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let (store, between) = store_behind(cluster, &database).await;
    between.cuts_behind.store(true, Ordering::Relaxed);
    let spent = tokio::spawn(spend(store.clone()));
    while between.turned_away.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    store.close().await;
    let unknown = spent.await.expect("no panic").expect_err("not in force");
    assert!(matches!(unknown, StoreError::OutcomeUnknown(_)), "{unknown}");
    assert_eq!(agents_of(cluster, &database), "1");
}

//= FLT-S28
#[tokio::test]
async fn a_history_that_could_not_be_compared_once_is_compared_before_anything_is_written() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let store = open(&cluster.connection_string(&database));
    let _followed = store.bundle_changes().await.expect("follows");
    add(&store, "lost").await.expect("written");
    // The last commit is lost, and for a moment the log cannot be read.
    let lost = "DELETE FROM agents; DELETE FROM changes WHERE revision > 1; UPDATE revision SET revision = 1;
                ALTER TABLE changes RENAME TO hidden";
    cluster.sql(&database, lost);
    end_connections(cluster, &database);
    let refused = add(&store, "a").await.expect_err("not compared");
    assert!(matches!(refused, StoreError::Sql(_)), "{refused}");
    cluster.sql(&database, "ALTER TABLE hidden RENAME TO changes");
    let refused = add(&store, "a").await.expect_err("another history");
    assert!(matches!(refused, StoreError::OtherHistory { followed: 2, found: 1 }), "{refused}");
    assert_eq!(agents_of(cluster, &database), "0");
}

/// Queues what `changes` adds as one batch.
async fn at_once(store: &Store, changes: [&'static str; 2]) -> Vec<Result<(), StoreError>> {
    let ((release, wait), (begins, begun)) = (mpsc::channel::<()>(), tokio::sync::watch::channel(false));
    let wait = std::sync::Mutex::new(wait);
    let hold = move |_: &Transaction<'_>| {
        begins.send_replace(true);
        let _ = wait.lock().expect("no panic").recv();
        Ok::<_, StoreError>(((), ()))
    };
    let held = store.queue(hold).await;
    begun.clone().wait_for(|begun| *begun).await.expect("begins");
    let mut queued = Vec::new();
    for name in changes {
        queued.push(store.queue(move |tx| Ok::<_, StoreError>(((), tx.put_agent(&agent(name)).map(drop)?))).await);
    }
    drop(release);
    held.answer().await.expect("held");
    let mut answers = Vec::new();
    for queued in queued {
        answers.push(queued.answer().await);
    }
    answers
}

#[tokio::test]
async fn a_change_is_tried_as_often_whatever_became_of_the_one_before_it() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let store = open(&cluster.connection_string(&database));
    // Numbers of a sequence are not given back by a transaction that ends badly.
    let trap = "CREATE SEQUENCE ended; GRANT ALL ON ended TO PUBLIC;
        CREATE FUNCTION ends() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.spiffe_id LIKE '%never' THEN PERFORM pg_terminate_backend(pg_backend_pid());
        ELSIF nextval('ended') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END $$;
        CREATE TRIGGER ends BEFORE INSERT ON agents FOR EACH ROW EXECUTE FUNCTION ends()";
    cluster.sql(&database, trap);
    let answers = at_once(&store, ["never", "late"]).await;
    assert!(matches!(&answers[..], [Err(StoreError::Unreachable(_)), Ok(())]), "{answers:?}");
    assert_eq!(agents_of(cluster, &database), "1");
}

#[tokio::test]
async fn a_commit_that_never_gets_through_is_not_tried_for_ever() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let (store, between) = store_behind(cluster, &database).await;
    between.swallows.store(true, Ordering::Relaxed);
    let spending = tokio::spawn(spend(store.clone()));
    while !spending.is_finished() {
        assert!(between.swallowed.load(Ordering::Relaxed) <= 3, "it is tried again and again");
        tokio::task::yield_now().await;
    }
    let refused = spending.await.expect("no panic").expect_err("not done");
    assert!(matches!(refused, StoreError::Unreachable(_)), "{refused}");
    assert_eq!(agents_of(cluster, &database), "0");
}
