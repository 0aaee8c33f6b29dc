//! Tokens of other issuers: each is used up once.

use super::Fixture;
use crate::store::{REMEMBERED_AFTER_END, Store, TokenUse};

const NOW: i64 = 1_800_000_000;

/// A token's hash; those of numbers below 16 begin with the same byte.
fn hash(number: u8) -> [u8; 32] {
    let mut hash = [number; 32];
    hash[0] = number / 16;
    hash
}

async fn take(store: &Store, number: u8, ends_at: i64, now_unix: i64) -> TokenUse {
    store.change(move |tx| tx.use_up_token(&hash(number), ends_at, now_unix, 3)).await.expect("store works")
}

//= EXC-06
#[tokio::test]
async fn a_token_is_used_up_once_at_whichever_server_until_nothing_was_issued_for_it_or_it_has_ended() {
    for fixture in Fixture::of_each_engine() {
        let store = &fixture.store;
        assert_eq!(take(store, 1, NOW + 10, NOW).await, TokenUse::First);
        assert_eq!(take(&fixture.another(), 1, NOW + 10, NOW).await, TokenUse::Again);
        assert_eq!(take(store, 1, NOW + 10, NOW + 9).await, TokenUse::Again);
        store.change(|tx| tx.give_back_token(&hash(1))).await.expect("store works");
        assert_eq!(take(store, 1, NOW + 10, NOW).await, TokenUse::First);
        assert_eq!(fixture.number("SELECT count(*) FROM used_tokens"), 1);
        let over = NOW + 10 + REMEMBERED_AFTER_END;
        assert_eq!(take(store, 2, over + 100, over).await, TokenUse::First);
        assert_eq!(fixture.number("SELECT count(*) FROM used_tokens"), 1, "what has ended is forgotten");
    }
}

//= EXC-06
#[tokio::test]
async fn a_server_whose_clock_is_ahead_has_nobody_take_a_token_again() {
    for fixture in Fixture::of_each_engine() {
        let (store, right) = (&fixture.store, fixture.another());
        assert_eq!(take(&right, 1, NOW + 10, NOW).await, TokenUse::First);
        let ahead = NOW + 9 + REMEMBERED_AFTER_END;
        assert_eq!(take(store, 2, ahead + 100, ahead).await, TokenUse::First);
        assert_eq!(take(&right, 1, NOW + 10, NOW + 1).await, TokenUse::Again);
    }
}

#[tokio::test]
async fn no_more_tokens_are_remembered_than_there_is_room_for_and_those_that_ended_make_some() {
    for fixture in Fixture::of_each_engine() {
        let store = &fixture.store;
        for number in 1..=3 {
            assert_eq!(take(store, number, NOW + 10 * i64::from(number), NOW).await, TokenUse::First);
        }
        assert_eq!(take(store, 4, NOW + 100, NOW + 9).await, TokenUse::NoRoom);
        assert_eq!(take(store, 2, NOW + 20, NOW + 9).await, TokenUse::Again, "also while there is none");
        assert_eq!(take(store, 16, NOW + 10, NOW + 9).await, TokenUse::First, "those of another byte have room");
        let over = NOW + 10 + REMEMBERED_AFTER_END;
        assert_eq!(take(store, 4, over + 100, over).await, TokenUse::First);
        assert_eq!(fixture.number("SELECT count(*) FROM used_tokens"), 3);
    }
}

//= EXC-06
#[tokio::test]
async fn of_a_hundred_who_show_one_token_at_once_exactly_one_wins() {
    for fixture in Fixture::of_each_engine() {
        let stores = [fixture.store.clone(), fixture.another()];
        let takes = (0..100).map(|number: usize| {
            let store = stores[number % 2].clone();
            tokio::spawn(async move { take(&store, 7, NOW + 10, NOW).await })
        });
        let taken = futures_util::future::join_all(takes.collect::<Vec<_>>()).await;
        let first = taken.into_iter().filter(|taken| matches!(taken, Ok(TokenUse::First))).count();
        assert_eq!(first, 1);
    }
}
