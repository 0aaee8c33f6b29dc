//! The change log, and those who follow it.

use std::sync::{Arc, Mutex};

use super::{Fixture, administrator, device, entry, listen, told};
use crate::devices::DuplicateSerials;
use crate::facts::older_state::Evidence;
use crate::registry::Registry;
use crate::store::feed::PAGE;
use crate::store::sql::MAX_CHANGES;
use crate::store::{Changed, Facts, Follows, News, Store, StoreError};

async fn journal(store: &Store) {
    store.put_ca_journal("", b"journal".to_vec()).await.expect("writes");
}

#[tokio::test]
async fn each_transaction_logs_the_facts_that_it_changed_and_tells_them_before_its_caller_goes_on() {
    for fixture in Fixture::of_each_engine() {
        let heard = listen(&fixture.store).await;
        assert_eq!(told(&heard), [None], "everything at first");
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        registry.create_entry(&administrator(), &entry("e"), 1).await.answer().await.expect("creates");
        assert_eq!(told(&heard), [Some(vec![Changed::Entry("e".into())])]);
        registry.update_entry(&administrator(), &entry("e"), None).await.answer().await.expect("updates");
        assert_eq!(told(&heard), [Some(vec![Changed::Entry("e".into())])]);
        registry.delete_entry(&administrator(), "e").await.answer().await.expect("deletes");
        assert_eq!(told(&heard), [Some(vec![Changed::Entry("e".into())])]);
        let devices = vec![device(1), device(2)];
        registry
            .devices()
            .import(&administrator(), devices.clone(), DuplicateSerials::Refused, 1)
            .await
            .expect("imports");
        assert_eq!(told(&heard), [Some(vec![Changed::Device([1; 32]), Changed::Device([2; 32])])]);
        registry.devices().import(&administrator(), devices, DuplicateSerials::Refused, 1).await.expect("imports");
        assert_eq!(told(&heard), [], "what changes nothing is not logged");
        journal(&fixture.store).await;
        assert_eq!(told(&heard), [Some(vec![Changed::CaJournal])]);
        registry.create_join_token(&administrator(), "secret", 9, None, 1).await.expect("creates");
        fixture.store.change(|tx| tx.spend_join_token("secret", 1)).await.expect("spends");
        assert_eq!(told(&heard), [], "tokens are secrets that nothing mirrors");
    }
}

#[tokio::test]
async fn a_change_that_fails_leaves_nothing_in_the_log() {
    for fixture in Fixture::of_each_engine() {
        let before = fixture.number("SELECT max(revision) FROM changes");
        let failing = fixture.store.change(|tx| {
            tx.put_ca_journal("", b"x")?;
            Err::<(), _>(StoreError::Closed)
        });
        assert!(failing.await.is_err());
        assert_eq!(fixture.number("SELECT max(revision) FROM changes"), before);
        assert_eq!(fixture.number("SELECT revision FROM revision"), before);
    }
}

#[tokio::test]
async fn revisions_have_no_gaps_and_one_id_for_each_commit() {
    for fixture in Fixture::of_each_engine() {
        for _ in 0..5 {
            journal(&fixture.store).await;
        }
        assert_eq!(fixture.number("SELECT count(*) FROM changes"), 6);
        assert_eq!(fixture.number("SELECT max(revision) FROM changes"), 6);
        assert_eq!(fixture.number("SELECT count(DISTINCT id) FROM changes"), 6);
    }
}

#[tokio::test]
async fn what_another_handle_wrote_is_followed_at_the_next_commit_or_probe() {
    for fixture in Fixture::of_each_engine() {
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        let another = fixture.another();
        let theirs = Registry::load(another.clone()).await.expect("loads");
        theirs.create_entry(&administrator(), &entry("theirs"), 1).await.answer().await.expect("creates");
        assert!(fixture.is_told_by_others() || registry.entry("theirs").is_none(), "not yet");
        fixture.store.probe().await.expect("probes");
        assert!(registry.entry("theirs").is_some());
        theirs.delete_entry(&administrator(), "theirs").await.answer().await.expect("deletes");
        registry.create_entry(&administrator(), &entry("ours"), 1).await.answer().await.expect("creates");
        assert!(registry.entry("theirs").is_none(), "an own commit follows what came before it, too");
        another.probe().await.expect("probes");
        assert!(theirs.entry("ours").is_some());
    }
}

#[tokio::test]
async fn a_journal_that_any_server_writes_is_told() {
    for fixture in Fixture::of_each_engine() {
        let mut changes = fixture.store.bundle_changes().await.expect("follows");
        changes.mark_unchanged();
        journal(&fixture.store).await;
        assert!(changes.has_changed().expect("open"), "marked when its writer goes on");
        changes.mark_unchanged();
        let another = fixture.another();
        another.put_ca_journal("another", b"journal".to_vec()).await.expect("writes");
        Registry::load(another)
            .await
            .expect("loads")
            .create_entry(&administrator(), &entry("e"), 1)
            .await
            .answer()
            .await
            .expect("creates");
        assert!(fixture.is_told_by_others() || !changes.has_changed().expect("open"), "not followed yet");
        fixture.store.probe().await.expect("probes");
        assert!(changes.has_changed().expect("open"));
        changes.mark_unchanged();
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        registry.delete_entry(&administrator(), "e").await.answer().await.expect("deletes");
        assert!(!changes.has_changed().expect("open"), "an entry is no journal");
    }
}

#[tokio::test]
async fn the_log_is_bounded_and_a_follower_that_missed_what_was_pruned_reads_everything() {
    for fixture in Fixture::of_each_engine() {
        let heard = listen(&fixture.store).await;
        told(&heard);
        let another = fixture.another();
        let many = MAX_CHANGES + 5;
        let note_many = another.change(move |tx| (0..many).try_for_each(|_| tx.put_ca_journal("", b"x")));
        note_many.await.expect("writes");
        assert_eq!(fixture.number("SELECT count(*) FROM changes"), MAX_CHANGES);
        assert_eq!(fixture.number("SELECT max(revision) FROM changes"), many + 1);
        fixture.store.probe().await.expect("probes");
        assert_eq!(told(&heard), [None]);
        journal(&fixture.store).await;
        assert_eq!(told(&heard), [Some(vec![Changed::CaJournal])], "and goes on from there");
    }
}

#[tokio::test]
async fn a_long_log_is_taken_in_page_by_page_and_each_fact_once() {
    for fixture in Fixture::of_each_engine() {
        let heard = listen(&fixture.store).await;
        told(&heard);
        let another = fixture.another();
        let many = PAGE as i64 * 2 + 1;
        another.change(move |tx| (0..many).try_for_each(|_| tx.put_ca_journal("", b"x"))).await.expect("writes");
        fixture.store.probe().await.expect("probes");
        assert_eq!(told(&heard), vec![Some(vec![Changed::CaJournal]); 3]);
        fixture.store.probe().await.expect("probes");
        assert_eq!(told(&heard), []);
    }
}

/// What is done to a log so that its last commit is lost: the same number, another change; and the number is gone.
fn losses(fixture: &Fixture) -> [String; 2] {
    let (id, key) = (fixture.bytes(&"7f".repeat(16)), fixture.bytes(""));
    [
        format!(
            "DELETE FROM entries; UPDATE changes SET id = {id}, kind = 'ca', key = {key}
             WHERE revision = (SELECT max(revision) FROM changes)"
        ),
        "DELETE FROM entries; DELETE FROM changes WHERE revision > 1; UPDATE revision SET revision = 1".to_owned(),
    ]
}

//= FLT-S28
#[tokio::test]
async fn a_database_that_lost_what_was_followed_is_neither_followed_nor_changed_and_whoever_waits_for_that_is_told() {
    for which in 0..2 {
        for fixture in Fixture::of_each_engine() {
            let registry = Registry::load(fixture.store.clone()).await.expect("loads");
            registry.create_entry(&administrator(), &entry("lost"), 1).await.answer().await.expect("creates");
            let heard = listen(&fixture.store).await;
            told(&heard);
            fixture.sql(&losses(&fixture)[which]);
            let refused = fixture.store.probe().await.expect_err("another history");
            assert!(matches!(refused, StoreError::OtherHistory { followed: 2, .. }), "{refused}");
            assert_eq!(told(&heard), [], "nothing of it is taken in");
            assert!(registry.entry("lost").is_some(), "memory is as it was");
            let refused = fixture.store.put_ca_journal("", b"journal".to_vec()).await;
            assert!(matches!(refused, Err(StoreError::OtherHistory { .. })), "{refused:?}");
            assert_eq!(fixture.number("SELECT count(*) FROM ca_journals"), 0);
            let Evidence::Followed { followed, revision } = fixture.store.went_back().await else { panic!("another") };
            assert_eq!((followed, revision), (2, [2, 1][which]));
        }
    }
}

#[tokio::test]
async fn a_follower_that_fails_is_trouble_and_is_told_the_same_again() {
    for fixture in Fixture::of_each_engine() {
        let works = Arc::new(Mutex::new(true));
        let (heard, switch) = (Arc::new(Mutex::new(0)), works.clone());
        let count = heard.clone();
        let follower = move |_: &Facts<'_>, _: &News| {
            *count.lock().expect("no panic") += 1;
            if *switch.lock().expect("no panic") { Ok(Follows::On) } else { Err(StoreError::Locked) }
        };
        fixture.store.follow(follower).await.expect("follows");
        let sound = listen(&fixture.store).await;
        told(&sound);
        *works.lock().expect("no panic") = false;
        let refused = fixture.store.put_ca_journal("", b"journal".to_vec()).await;
        let Err(StoreError::OutcomeUnknown(why)) = refused else { panic!("{refused:?}") };
        assert_eq!(why.to_string(), StoreError::Locked.to_string(), "it is done, and not known to be in force");
        assert!(fixture.store.trouble().is_some());
        assert_eq!(told(&sound), [Some(vec![Changed::CaJournal])], "the others go on");
        *works.lock().expect("no panic") = true;
        fixture.store.probe().await.expect("probes");
        let times = *heard.lock().expect("no panic");
        assert!(times == 3 || times > 3 && fixture.is_told_by_others(), "at first, in vain, and again: {times}");
        assert!(fixture.store.trouble().is_none());
    }
}

#[tokio::test]
async fn a_follower_whose_memory_is_gone_is_let_go() {
    for fixture in Fixture::of_each_engine() {
        let kept = Arc::new(());
        let guest = Arc::downgrade(&kept);
        let follower = {
            let held = kept.clone();
            move |_: &Facts<'_>, news: &News| {
                let _ = &held;
                Ok(if matches!(news, News::Everything) { Follows::On } else { Follows::Ended })
            }
        };
        fixture.store.follow(follower).await.expect("follows");
        drop(kept);
        journal(&fixture.store).await;
        assert!(guest.upgrade().is_none(), "it was dropped with what it held");
    }
}

#[test]
fn a_log_without_its_newest_row_is_no_log() {
    for fixture in Fixture::of_each_engine() {
        fixture.sql("DELETE FROM changes");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let refused = runtime.block_on(fixture.store.follow(|_, _| Ok(Follows::On)));
        assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    }
}
