//! Several servers on one database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::{Follows, News, ShownToken};

/// Tokens that are redeemed while connections are ended.
const TOKENS: usize = 300;
const SERVERS: usize = 3;

/// But the one that asks.
const END_ALL_SESSIONS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()";

#[tokio::test]
async fn a_name_is_one_servers_at_a_time() {
    let cluster = Cluster::shared();
    let text = cluster.connection_string(&cluster.create_database());
    let (one, two) = (open(&text), open(&text));
    one.claim("north").await.expect("free");
    two.claim("south").await.expect("free");
    let refused = two.claim("north").await.expect_err("taken");
    assert!(matches!(&refused, StoreError::SameName(name) if name == "north"), "{refused}");
    one.close().await;
    two.claim("north").await.expect("free again");
}

#[tokio::test]
async fn a_claimed_name_is_still_ours_on_the_next_connection() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let text = cluster.connection_string(&database);
    let (one, two) = (open(&text), open(&text));
    one.claim("north").await.expect("free");
    cluster.sql(&database, END_ALL_SESSIONS);
    one.probe().await.expect("connected again");
    assert!(matches!(two.claim("north").await, Err(StoreError::SameName(_))));
}

#[tokio::test]
async fn a_server_whose_session_has_not_ended_takes_itself_for_nobody_else() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let store = open(&cluster.connection_string(&database));
    store.claim("north").await.expect("free");
    // Longer than an answer is waited for, and than the session of before is.
    let slow = "CREATE SEQUENCE slow; GRANT ALL ON slow TO PUBLIC;
        CREATE FUNCTION slow_once() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF nextval('slow') = 1 THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE INSERT ON agents FOR EACH ROW EXECUTE FUNCTION slow_once()";
    cluster.sql(&database, slow);
    add(&store, "a").await.expect("done at the second try");
    assert_eq!(agents_of(cluster, &database), "1");
}

#[tokio::test]
async fn a_server_whose_database_takes_no_writes_any_more_says_that_and_not_that_another_has_its_name() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let store = open(&cluster.connection_string(&database));
    store.claim("north").await.expect("free");
    let mode = |on: &str| format!("ALTER DATABASE {database} SET default_transaction_read_only = {on}");
    cluster.sql(&database, &mode("on"));
    cluster.sql(&database, END_ALL_SESSIONS);
    for _ in 0..3 {
        let refused = add(&store, "a").await.expect_err("read-only");
        assert!(matches!(refused, StoreError::ReadOnly), "{refused}");
    }
    cluster.sql("postgres", &mode("off"));
    add(&store, "a").await.expect("writes again");
}

/// Redeems a token as an attestation does: the token and the agent's row in one commit. None: it was not told what became of it.
async fn redeem(store: &Store, token: String) -> Option<ShownToken> {
    let redeemed = store.change(move |tx| {
        let shown = tx.spend_join_token(&token, 1)?;
        if shown == ShownToken::Good {
            tx.put_agent(&agent(&token))?;
        }
        Ok::<_, StoreError>(shown)
    });
    match redeemed.await {
        Ok(shown) => Some(shown),
        Err(StoreError::Unreachable(_) | StoreError::OutcomeUnknown(_) | StoreError::Locked) => None,
        Err(other) => panic!("{other}"),
    }
}

//= FLT-S3 REG-16
#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_spent_twice_while_connections_end_at_any_moment() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let text = cluster.connection_string(&database);
    let stores: Vec<_> = (0..SERVERS).map(|_| open(&text)).collect();
    let fill = |tx: &crate::store::Transaction<'_>| {
        (0..TOKENS).try_for_each(|number| tx.add_join_token(&format!("t{number}"), 100).map(drop))
    };
    stores[0].change(fill).await.expect("filled");
    let over = Arc::new(AtomicBool::new(false));
    let (until, of) = (over.clone(), database.clone());
    let killer = tokio::task::spawn_blocking(move || {
        let mut ended = 0;
        let one = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) AS one";
        let revision = || cluster.sql(&of, "SELECT revision FROM revision").parse::<i64>().expect("a number");
        while !until.load(Ordering::Relaxed) {
            let before = revision();
            ended += cluster.sql(&of, one).parse::<usize>().expect("a number");
            // They come on between.
            while !until.load(Ordering::Relaxed) && revision() < before + 3 {}
        }
        ended
    });
    let mut shown = Vec::new();
    for some in (0..TOKENS).collect::<Vec<_>>().chunks(10) {
        let redemptions = some.iter().flat_map(|number| stores.iter().map(move |store| (store, format!("t{number}"))));
        let redemptions = redemptions.map(|(store, token)| async move { (token.clone(), redeem(store, token).await) });
        shown.extend(futures_util::future::join_all(redemptions).await);
    }
    over.store(true, Ordering::Relaxed);
    assert!(killer.await.expect("no panic") > SERVERS, "connections were ended");
    let mut winners = BTreeMap::<_, usize>::new();
    let mut unknown = BTreeMap::<_, usize>::new();
    for (token, shown) in shown {
        *winners.entry(token.clone()).or_default() += usize::from(shown == Some(ShownToken::Good));
        *unknown.entry(token).or_default() += usize::from(shown.is_none());
    }
    for (token, winners) in &winners {
        let id = agent(token).spiffe_id;
        let spent = stores[0].change(move |tx| tx.agent(&id)).await.expect("reads").is_some();
        assert!(*winners == usize::from(spent) || spent && *winners == 0 && unknown[token] > 0, "{token}: {winners}");
    }
    let known = winners.values().filter(|winners| **winners == 1).count();
    assert!(known > TOKENS / 2, "{known} had a winner who knows it");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_follower_hears_of_each_change_of_every_server_once() {
    let cluster = Cluster::shared();
    let text = cluster.connection_string(&cluster.create_database());
    let stores: Vec<_> = (0..SERVERS).map(|_| open(&text)).collect();
    let heard: Vec<_> = (0..SERVERS).map(|_| Arc::new(std::sync::Mutex::new(Vec::new()))).collect();
    for (store, heard) in stores.iter().zip(heard.clone()) {
        let follower = move |_: &crate::store::Facts<'_>, news: &News| {
            if let News::Changes(changes) = news {
                heard.lock().expect("no panic").extend(changes.clone());
            }
            Ok(Follows::On)
        };
        store.follow(follower).await.expect("follows");
    }
    let writes =
        (0..100_usize).flat_map(|number| stores.iter().enumerate().map(move |(at, store)| (store.clone(), at, number)));
    let writes = writes.map(|(store, at, number)| async move {
        store.change(move |tx| tx.put_agent(&agent(&format!("s{at}-{number}"))).map(drop)).await
    });
    for written in futures_util::future::join_all(writes).await {
        written.expect("written");
    }
    for (store, heard) in stores.iter().zip(heard) {
        store.probe().await.expect("follows");
        let mut heard: Vec<_> = heard.lock().expect("no panic").iter().map(|changed| format!("{changed:?}")).collect();
        assert_eq!(heard.len(), 300);
        heard.sort();
        heard.dedup();
        assert_eq!(heard.len(), 300, "each once");
    }
}

#[tokio::test]
async fn what_one_server_writes_is_told_to_the_others_without_a_commit_of_theirs() {
    let cluster = Cluster::shared();
    let text = cluster.connection_string(&cluster.create_database());
    let (one, two) = (open(&text), open(&text));
    let mut changes = two.bundle_changes().await.expect("follows");
    changes.mark_unchanged();
    one.put_ca_journal("north", b"journal".to_vec()).await.expect("writes");
    tokio::time::timeout(std::time::Duration::from_secs(30), changes.changed()).await.expect("in time").expect("told");
}
