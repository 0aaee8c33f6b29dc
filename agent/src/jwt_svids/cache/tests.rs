use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_api::pb::types::JwtKey;

use super::*;
use crate::server_answers::{EntryTerms, TrustBundle};
use crate::trusted_time::{Keeper, Lifetime, Reading, Span};

/// How long the tokens here live, seconds.
const LIFE: i64 = 300;

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

fn terms(id: &str, path: &str) -> Arc<EntryTerms> {
    Arc::new(EntryTerms::example(id, path))
}

fn wish(entry: &str, audience: &str) -> Wish {
    Wish { terms: terms(entry, "/w"), audiences: Audiences::try_new(vec![audience.to_owned()]).expect("legal") }
}

/// What the clocks show `seconds` after the start.
fn reading(seconds: i64) -> Reading {
    Reading { boot: 1000 + seconds, kernel: 1_800_000_000 + seconds }
}

fn keeper() -> Keeper {
    Keeper::new(0, reading(0))
}

fn at(seconds: i64) -> Moment {
    Moment::new(keeper(), reading(seconds))
}

fn lifetime() -> Lifetime {
    let issued = reading(0).kernel;
    keeper().count(issued, Span { not_before: issued, not_after: issued + LIFE }, reading(0))
}

fn token(text: &str) -> Arc<Token> {
    Arc::new(Token::unchecked(text, "k", lifetime()))
}

fn holding(wishes: &[Wish]) -> TokenCache {
    let mut cache = TokenCache::default();
    for wish in wishes {
        cache.put(wish.clone(), token("t"), &at(0));
    }
    cache
}

fn all(entries: &[Arc<EntryTerms>], keys: &[(&str, bool)]) -> Identities {
    let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("params");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let root = ca.self_signed(&key).expect("root");
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    let wire = |(id, tainted): &(&str, bool)| JwtKey {
        public_key: spki.clone().into(),
        key_id: (*id).to_owned(),
        tainted: *tainted,
        ..JwtKey::default()
    };
    let keys: Vec<_> = keys.iter().map(wire).collect();
    let bundle = TrustBundle::new(&td(), [(&root.der()[..], false)]).expect("bundle").with_jwt(&keys, 0);
    Identities::try_new(td(), Vec::new(), Arc::new(bundle)).expect("sound").with_unsigned(entries.to_vec())
}

#[test]
fn a_token_is_served_until_half_of_its_life_and_renewed_from_then_to_its_end() {
    let (wish, now) = (wish("e", "a"), Instant::now());
    let mut cache = holding(std::slice::from_ref(&wish));
    let mut due = |seconds| cache.find(&wish, &at(seconds), now).map(|found| found.is_due);
    assert_eq!([0, 149, 150, 299].map(&mut due), [Some(false), Some(false), Some(true), Some(true)]);
    assert_eq!([300, 10_000].map(&mut due), [None, None], "never one that has ended");
}

#[test]
fn a_renewal_that_failed_is_not_tried_again_at_once() {
    let (wish, now) = (wish("e", "a"), Instant::now());
    let mut cache = holding(std::slice::from_ref(&wish));
    cache.postpone(&wish, now + Duration::from_secs(5));
    let mut due = |after| cache.find(&wish, &at(200), now + Duration::from_secs(after)).map(|found| found.is_due);
    assert_eq!([4, 5].map(&mut due), [Some(false), Some(true)]);
}

#[test]
fn a_wrong_clock_of_the_device_takes_no_token_from_anybody() {
    let (wish, now) = (wish("e", "a"), Instant::now());
    let mut cache = holding(std::slice::from_ref(&wish));
    for jump in [-1_000_000_000, 300_000_000] {
        let set = Reading { kernel: reading(10).kernel + jump, ..reading(10) };
        assert!(cache.find(&wish, &Moment::new(keeper(), set), now).is_some(), "{jump}");
        let at_the_end = Reading { kernel: reading(LIFE).kernel + jump, ..reading(LIFE) };
        assert!(cache.find(&wish, &Moment::new(keeper(), at_the_end), now).is_none(), "{jump}");
    }
}

#[test]
fn audiences_are_a_set_and_entries_are_told_apart() {
    let now = Instant::now();
    let both = |list: &[&str]| Wish {
        audiences: Audiences::try_new(list.iter().map(|&a| a.to_owned()).collect()).expect("legal"),
        ..wish("e", "a")
    };
    let mut cache = holding(&[both(&["a", "b"])]);
    assert!(cache.find(&both(&["b", "a", "a"]), &at(0), now).is_some());
    assert!(cache.find(&both(&["a"]), &at(0), now).is_none());
    assert!(cache.find(&Wish { terms: terms("f", "/w"), ..both(&["a", "b"]) }, &at(0), now).is_none());
    let renamed = Wish { terms: terms("e", "/other"), ..both(&["a", "b"]) };
    assert!(cache.find(&renamed, &at(0), now).is_none(), "the entry is for another ID now");
}

#[test]
fn no_more_tokens_are_held_than_the_bounds_and_a_greedy_entry_pays_for_itself() {
    let (now, modest) = (Instant::now(), wish("modest", "a"));
    let mut cache = holding(std::slice::from_ref(&modest));
    for n in 0..2 * MAX_TOKENS {
        cache.put(wish("greedy", &format!("a{n}")), token("t"), &at(0));
    }
    assert_eq!(cache.count(), MAX_TOKENS);
    assert!(cache.find(&modest, &at(0), now).is_some());
    assert!(cache.find(&wish("greedy", "a0"), &at(0), now).is_none(), "used longest ago");
    assert!(cache.find(&wish("greedy", &format!("a{}", 2 * MAX_TOKENS - 1)), &at(0), now).is_some());
    let large = "t".repeat(MAX_CACHE_BYTES / 10);
    for n in 0..20 {
        cache.put(wish("large", &format!("b{n}")), token(&large), &at(0));
        assert!(cache.bytes <= MAX_CACHE_BYTES);
    }
    let held: usize = cache.tokens.iter().map(|((_, audiences), held)| bytes(audiences, &held.token)).sum();
    assert_eq!(cache.bytes, held);
}

#[test]
fn tokens_go_with_their_entry_and_with_their_key() {
    let (one, two) = (terms("one", "/w"), terms("two", "/w"));
    let held = || holding(&[wish("one", "a"), wish("one", "b"), wish("two", "a")]);
    let left = |all: &Identities| {
        let mut cache = held();
        let dropped = cache.keep_those_of(all);
        assert_eq!(dropped + cache.count(), 3);
        cache.count()
    };
    assert_eq!(left(&all(&[one.clone(), two.clone()], &[("k", false)])), 3);
    assert_eq!(left(&all(std::slice::from_ref(&two), &[("k", false)])), 1, "an entry went");
    assert_eq!(left(&all(&[terms("one", "/other"), two.clone()], &[("k", false)])), 1, "or is for another ID");
    assert_eq!(left(&all(&[one.clone(), two.clone()], &[("k", true)])), 0, "the key is tainted");
    assert_eq!(left(&all(&[one, two], &[("l", false)])), 0, "or gone");
    assert_eq!(left(&Identities::starting(td())), 0);
}
