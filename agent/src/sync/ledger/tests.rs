use super::*;
use crate::trusted_time::{Keeper, Lifetime, Reading, Span};
use zeroize::Zeroizing;

fn terms(id: &str, path: &str, revision_number: i64) -> EntryTerms {
    EntryTerms {
        id: id.to_owned(),
        spiffe_id: SpiffeId::parse(&format!("spiffe://td{path}")).expect("legal"),
        selectors: std::iter::once("unix:uid:1".parse().expect("legal")).collect(),
        hint: String::new(),
        created_at: 1,
        revision_number,
    }
}

fn svid(path: &str, not_before: i64, not_after: i64) -> WorkloadSvid {
    WorkloadSvid {
        spiffe_id: SpiffeId::parse(&format!("spiffe://td{path}")).expect("legal"),
        chain: Vec::new(),
        key: Zeroizing::new(vec![1]),
        lifetime: Lifetime::kept(Span { not_before, not_after }, Some(not_after)),
    }
}

/// The agent's own clock shows `own`, and so does the kernel's; it started at 0.
fn at(own: i64) -> Moment {
    let reading = |seconds| Reading { boot: seconds, kernel: seconds };
    Moment::new(Keeper::new(0, reading(0)), reading(own))
}

fn wanted(ledger: &Ledger, now: Instant) -> Vec<String> {
    ledger.wanted(now, &at(0)).into_iter().map(|w| w.entry_id).collect()
}

#[test]
fn a_new_entry_is_wanted_at_once_and_a_removed_one_is_gone() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    assert_eq!(ledger.replace_entries(vec![terms("a", "/a", 0), terms("b", "/b", 0)], now), EntriesChange::Changed);
    assert_eq!(wanted(&ledger, now), ["a", "b"]);
    ledger.put_svid("a", svid("/a", -10, 10), now, &at(0));
    assert_eq!(wanted(&ledger, now), ["b"]);
    assert_eq!(ledger.replace_entries(vec![terms("a", "/a", 0), terms("b", "/b", 0)], now), EntriesChange::None);
    assert_eq!(ledger.replace_entries(vec![terms("b", "/b", 0)], now), EntriesChange::Removed);
    assert_eq!(ledger.entries().count(), 1);
    ledger.put_svid("a", svid("/a", -10, 10), now, &at(0));
    assert_eq!(ledger.entries().count(), 1, "an SVID for a removed entry is dropped");
}

#[test]
fn a_changed_entry_keeps_its_svid_until_the_next_comes_unless_the_id_changed() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.replace_entries(vec![terms("a", "/a", 0)], now);
    ledger.put_svid("a", svid("/a", 0, 3600), now, &at(0));
    assert_eq!(ledger.replace_entries(vec![terms("a", "/a", 1)], now), EntriesChange::Changed);
    assert_eq!(wanted(&ledger, now), ["a"]);
    assert!(ledger.entries().all(|held| held.svid.is_some()));
    assert_eq!(ledger.replace_entries(vec![terms("a", "/other", 2)], now), EntriesChange::Removed);
    assert!(ledger.entries().all(|held| held.svid.is_none()));
    ledger.put_svid("a", svid("/a", 0, 3600), now, &at(0));
    assert!(ledger.entries().all(|held| held.svid.is_none()), "the answer came too late");
}

#[test]
fn what_ends_first_is_asked_for_first() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let all = ["a", "b", "c"].map(|id| terms(id, &format!("/{id}"), 0));
    ledger.replace_entries(all.to_vec(), now);
    ledger.put_svid("a", svid("/a", 0, 3000), now, &at(0));
    ledger.put_svid("b", svid("/b", 0, 2000), now, &at(0));
    assert_eq!(wanted(&ledger, now + Duration::from_secs(1700)), ["c", "b", "a"]);
}

#[test]
fn a_ten_second_svid_dated_back_by_ten_is_not_due_at_once() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.replace_entries(vec![terms("a", "/a", 0)], now);
    ledger.put_svid("a", svid("/a", -10, 10), now, &at(0));
    assert!(wanted(&ledger, now + Duration::from_secs(4)).is_empty());
    assert_eq!(wanted(&ledger, now + Duration::from_secs(6)), ["a"]);
    assert_eq!(ledger.next_end_in(&at(0)), Some(10));
    assert_eq!(ledger.next_end_in(&at(10)), None);
}

#[test]
fn what_a_sleeping_device_missed_is_due_when_it_wakes() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.replace_entries(vec![terms("a", "/a", 0)], now);
    ledger.put_svid("a", svid("/a", 0, 3600), now, &at(0));
    assert!(ledger.wanted(now, &at(1900)).is_empty());
    assert_eq!(ledger.wanted(now, &at(2160)).len(), 1, "the monotonic clock has not moved");
    ledger.postpone("a", Duration::from_secs(30), now, &at(2160));
    assert!(ledger.wanted(now, &at(2161)).is_empty(), "a refusal is not asked again at once");
}

#[test]
fn a_restored_svid_past_half_its_life_is_due_at_once() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let fresh = (terms("a", "/a", 0), Some(svid("/a", 0, 3600)));
    let old = (terms("b", "/b", 0), Some(svid("/b", -3000, 600)));
    ledger.restore(vec![fresh, old, (terms("c", "/c", 0), None)], now, &at(0));
    assert_eq!(wanted(&ledger, now + Duration::from_secs(1)), ["c", "b"]);
    assert_eq!(ledger.shortest_lifetime(), Some(Duration::from_secs(3600)));
}
#[test]
fn what_is_not_valid_now_as_far_as_is_known_is_asked_for_but_not_again_at_once() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.replace_entries(vec![terms("a", "/a", 0)], now);
    ledger.put_svid("a", svid("/a", 10_800, 14_400), now, &at(0));
    assert!(ledger.wanted(now, &at(0)).is_empty(), "asked for a moment ago");
    assert_eq!(wanted(&ledger, now + REFUSED_PAUSE), ["a"], "its server was three hours ahead");
    ledger.postpone("a", REFUSED_PAUSE, now + REFUSED_PAUSE, &at(30));
    assert!(ledger.wanted(now + REFUSED_PAUSE, &at(30)).is_empty());
}

#[test]
fn what_our_clock_disputes_does_not_replace_what_lasts() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let reading = Reading { boot: 100, kernel: 1_000_000 };
    let mut keeper = Keeper::new(0, reading);
    let mut receive = |issued: i64| {
        let span = Span { not_before: issued, not_after: issued + 3600 };
        let lifetime = keeper.receive(issued, span, reading);
        (WorkloadSvid { lifetime, ..svid("/a", 0, 0) }, Moment::new(keeper, reading))
    };
    let (good, moment) = receive(1_000_000);
    ledger.replace_entries(vec![terms("a", "/a", 0)], now);
    assert!(ledger.put_svid("a", good, now, &moment));
    let (ahead, moment) = receive(1_010_800);
    assert!(!ledger.put_svid("a", ahead.clone(), now, &moment));
    assert!(ledger.entries().all(|held| held.svid.as_ref().expect("held").lifetime.span().not_before == 1_000_000));
    ledger.replace_entries(vec![terms("a", "/other", 1)], now);
    assert!(ledger.put_svid("a", WorkloadSvid { spiffe_id: terms("a", "/other", 1).spiffe_id, ..ahead }, now, &moment));
}

#[test]
fn other_selectors_take_an_identity_from_somebody() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.replace_entries(vec![terms("a", "/a", 0)], now);
    let others = std::iter::once("unix:uid:2".parse().expect("legal")).collect();
    let changed = EntryTerms { selectors: others, ..terms("a", "/a", 1) };
    assert_eq!(ledger.replace_entries(vec![changed, terms("b", "/b", 0)], now), EntriesChange::Removed);
}
