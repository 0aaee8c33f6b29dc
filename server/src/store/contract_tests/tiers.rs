//! Authorities of other tiers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ironroot_api::SpiffeId;
use ironroot_api::pb::types::Entry;

use super::{Fixture, administrator, entry, listen, told};
use crate::clock::{ClockSource, Reading, ServerClock};
use crate::facts::tier::{REPRIEVE, TierAuthority, TierCredential, TierOrigin};
use crate::registry::Registry;
use crate::store::{Changed, StoreError, Transaction};

fn below(path: &str) -> TierOrigin {
    TierOrigin::Below(SpiffeId::parse(&format!("spiffe://td{path}")).expect("legal").into())
}

fn jwt(origin: TierOrigin, key_id: &str, expires_at: i64) -> TierAuthority {
    let credential = TierCredential::JwtKey { key_id: key_id.to_owned(), spki: vec![1, 2, 3] };
    TierAuthority { origin, credential, expires_at, tainted: false }
}

fn x509(der: &[u8]) -> TierAuthority {
    let credential = TierCredential::Certificate(der.to_vec());
    TierAuthority { origin: TierOrigin::Above, credential, expires_at: 100, tainted: true }
}

#[tokio::test]
async fn what_other_tiers_have_is_read_back_as_it_was_told_by_each_of_them() {
    for fixture in Fixture::of_each_engine() {
        let heard = listen(&fixture.store).await;
        told(&heard);
        let appended = TierAuthority { origin: TierOrigin::Administrator, tainted: false, ..x509(b"two") };
        let all = [x509(b"one"), appended, jwt(TierOrigin::Above, "k", 9), jwt(below("/a"), "k", 5)];
        let put = all.clone();
        let change =
            move |tx: &crate::store::Transaction<'_>| put.iter().try_for_each(|one| tx.put_tier_authority(one));
        fixture.store.change::<_, StoreError>(change).await.expect("written");
        assert_eq!(told(&heard), [Some(vec![Changed::Tiers])], "however many");
        let read = fixture.store.tier_authorities().await.expect("read");
        assert!(
            read.authorities.len() == all.len() && all.iter().all(|one| read.authorities.contains(one)),
            "{read:?}"
        );
        assert_eq!(read.revision, 4);
        assert!(read.has_expired(5) && !read.has_expired(4));

        let again = TierAuthority { expires_at: 7, ..jwt(below("/a"), "k", 5) };
        let (replaced, gone) = (again.clone(), x509(b"one"));
        let change = move |tx: &crate::store::Transaction<'_>| {
            tx.put_tier_authority(&replaced)?;
            tx.remove_tier_authority(&gone)?;
            tx.remove_tier_authority(&gone)
        };
        fixture.store.change::<_, StoreError>(change).await.expect("written");
        let read = fixture.store.tier_authorities().await.expect("read");
        assert!(read.authorities.contains(&again) && !read.authorities.contains(&x509(b"one")), "{read:?}");
        assert_eq!((read.authorities.len(), read.revision), (3, 6));
        for (at, removed, revision) in [(6, 0, 6), (9, 2, 7)] {
            let removal = fixture.store.change(move |tx| tx.remove_tier_authorities_expired_at(at)).await;
            assert_eq!(removal.expect("written"), removed);
            assert_eq!(fixture.store.tier_authorities().await.expect("read").revision, revision);
        }
    }
}

#[tokio::test]
async fn a_key_from_below_is_shown_while_an_entry_of_its_publishers_id_gives_that_a_ca_and_ends_by_the_bound() {
    for fixture in Fixture::of_each_engine() {
        let (by, of_both) = (administrator(), below("/lower"));
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        let create = async |entry: &Entry| registry.create_entry(&by, entry, 1).await.answer().await.expect("created");
        let delete = async |id: &str| registry.delete_entry(&by, id).await.answer().await.expect("deleted");
        let shown = async || {
            let read = fixture.store.tier_authorities().await.expect("read");
            (read.authorities.iter().map(TierAuthority::is_shown).collect::<Vec<_>>(), read.revision)
        };
        let lower = Entry { downstream: true, ..entry("lower") };
        let twin = Entry { id: "twin".into(), parent_id: entry("other").spiffe_id, ..lower.clone() };
        create(&lower).await;
        create(&twin).await;
        let change = move |tx: &Transaction<'_>| tx.put_tier_authority(&jwt(of_both.clone(), "k", 1 << 40));
        fixture.store.change::<_, StoreError>(change).await.expect("written");
        assert_eq!(shown().await, (vec![true], 1));
        delete("lower").await;
        assert_eq!(shown().await, (vec![true], 1), "the other entry is there");
        let plain = Entry { downstream: false, ..twin.clone() };
        registry.update_entry(&by, &plain, None).await.answer().await.expect("updated");
        assert_eq!(shown().await, (vec![false], 2));
        create(&lower).await;
        assert_eq!(shown().await, (vec![true], 3), "it was published once");
        let read = fixture.store.tier_authorities().await.expect("read");
        assert!(read.outlast(99) && !read.outlast(1 << 40));
        let bounded = fixture.store.change(|tx| tx.bound_published_keys(99)).await;
        assert_eq!((bounded.expect("written"), shown().await.1), (1, 4));

        delete("lower").await;
        fixture.sql("UPDATE tier_authorities SET orphaned_at = 1");
        fixture.store.decide_by(ServerClock::start(ClockSource::of_this_machine(), None).into());
        let read = fixture.store.tier_authorities().await.expect("read");
        assert!(!read.has_expired(REPRIEVE.min(98)) && read.authorities[0].is_over(REPRIEVE + 1));
        create(&lower).await;
        assert_eq!(shown().await.0, Vec::<bool>::new(), "the next server of that ID has keys of its own");
    }
}

#[tokio::test]
async fn what_is_tainted_is_what_is_there_and_what_has_gone_does_not_come_back() {
    for fixture in Fixture::of_each_engine() {
        let (stays, goes) = (jwt(below("/a"), "k", 5), jwt(below("/b"), "k", 5));
        let (put, gone) = (stays.clone(), goes.clone());
        let change = move |tx: &Transaction<'_>| {
            tx.put_tier_authority(&put)?;
            tx.put_tier_authority(&gone)?;
            tx.remove_tier_authority(&gone)
        };
        fixture.store.change::<_, StoreError>(change).await.expect("written");
        // As somebody read it before the one went, and before the other was published again, for longer.
        let longer = TierAuthority { expires_at: 9, ..stays.clone() };
        let (republished, tainted) = (longer.clone(), stays);
        let change = move |tx: &Transaction<'_>| {
            tx.put_tier_authority(&republished)?;
            Ok::<_, StoreError>((tx.taint_tier_authority(&tainted)?, tx.taint_tier_authority(&goes)?))
        };
        assert_eq!(fixture.store.change(change).await.expect("written"), (true, false));
        let read = fixture.store.tier_authorities().await.expect("read");
        assert_eq!((read.authorities, read.revision), (vec![TierAuthority { tainted: true, ..longer }], 5));
    }
}

/// What counts seconds, and a wall clock beside it that can be set.
fn clock(wall: &Arc<AtomicI64>) -> Arc<ServerClock> {
    let wall = wall.clone();
    let read = move || Reading { wall_unix: wall.load(Ordering::Relaxed), boot_seconds: 100 };
    Arc::new(ServerClock::start(ClockSource::new("boot", read), None))
}

#[tokio::test]
async fn no_key_from_below_is_forgotten_by_a_clock_that_may_destroy_nothing() {
    for fixture in Fixture::of_each_engine() {
        let (by, wall) = (administrator(), Arc::new(AtomicI64::new(1000)));
        fixture.store.decide_by(clock(&wall));
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        let lower = Entry { downstream: true, ..entry("lower") };
        let create = async || registry.create_entry(&by, &lower, 1).await.answer().await.expect("created");
        let delete = async || registry.delete_entry(&by, "lower").await.answer().await.expect("deleted");
        let key = async || fixture.store.tier_authorities().await.expect("read").authorities.pop();
        create().await;
        let change = |tx: &Transaction<'_>| tx.put_tier_authority(&jwt(below("/lower"), "k", 1 << 40));
        fixture.store.change::<_, StoreError>(change).await.expect("written");
        delete().await;
        let orphaned_at = key().await.and_then(|key| Some(key.publisher()?.orphaned_at));
        assert_eq!(orphaned_at, Some(1000), "by the server's clock");
        // It jumps: nobody knows whether the reprieve is over.
        wall.store(1000 + 10 * REPRIEVE, Ordering::Relaxed);
        create().await;
        assert_eq!(key().await.map(|key| key.is_shown()), Some(false), "neither forgotten nor shown");
        wall.store(1000, Ordering::Relaxed);
        delete().await;
        create().await;
        assert_eq!(key().await.map(|key| key.is_shown()), Some(true), "back with the clock");
    }
}

#[tokio::test]
async fn a_damaged_row_is_told_by_its_name() {
    for fixture in Fixture::of_each_engine() {
        for (kind, origin) in [("rune", ""), ("jwt", "web")] {
            let credential = fixture.bytes("00");
            let values = format!("'{kind}', 'n', '{origin}', {credential}, 1, FALSE");
            fixture.sql(&format!(
                "INSERT INTO tier_authorities (kind, name, origin, credential, expires_at, tainted) VALUES ({values})"
            ));
            let read = fixture.store.tier_authorities().await;
            assert!(matches!(&read, Err(StoreError::Corrupt(why)) if why.contains("authority n")), "{read:?}");
            fixture.sql("DELETE FROM tier_authorities");
        }
    }
}
