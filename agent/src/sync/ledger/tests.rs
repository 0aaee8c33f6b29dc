use ironroot_api::TrustDomain;
use ironroot_attest::SelectorSet;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use zeroize::Zeroizing;

use super::super::REFUSED_PAUSE;
use super::*;
use crate::agent_key::WorkloadKey;
use crate::server_answers::{CertificateTerms, EntryFields, restored_workload_svid};
use crate::trusted_time::{Keeper, Lifetime, Reading, Span};

fn terms(id: &str, path: &str, revision_number: i64) -> EntryTerms {
    EntryTerms {
        server: ServerNumber::FIRST,
        id: id.to_owned(),
        spiffe_id: SpiffeId::parse(&format!("spiffe://td{path}")).expect("legal"),
        selectors: std::iter::once("unix:uid:1".parse().expect("legal")).collect(),
        hint: String::new(),
        created_at: 1,
        revision_number,
        on_demand: false,
        federates_with: Some(Vec::new()),
        unique_tokens: Some(false),
        is_privileged: Some(false),
        certificate: None,
    }
}

fn svid(path: &str, not_before: i64, not_after: i64) -> WorkloadSvid {
    lasting(path, Lifetime::kept(Span { not_before, not_after }, Some(not_after)))
}

fn lasting(path: &str, lifetime: Lifetime) -> WorkloadSvid {
    WorkloadSvid::unchecked(SpiffeId::parse(&format!("spiffe://td{path}")).expect("legal"), lifetime)
}

/// The agent's own clock shows `own`, and so does the kernel's; it started at 0.
fn at(own: i64) -> Moment {
    let reading = |seconds| Reading { boot: seconds, kernel: seconds };
    Moment::new(Keeper::new(0, reading(0)), reading(own))
}

fn wanted(ledger: &Ledger, now: Instant) -> Vec<String> {
    ledger.wanted(now, Duration::ZERO, &at(0)).into_iter().map(|w| w.entry_id).collect()
}

#[test]
fn a_new_entry_is_wanted_at_once_and_a_removed_one_is_gone() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    assert_eq!(ledger.replace_entries(vec![terms("a", "/a", 0), terms("b", "/b", 0)], now), EntriesChange::Changed);
    assert_eq!(wanted(&ledger, now), ["a", "b"]);
    ledger.put_svid("a", svid("/a", -10, 10), now, &at(0), 0.5);
    assert_eq!(wanted(&ledger, now), ["b"]);
    assert_eq!(ledger.replace_entries(vec![terms("a", "/a", 0), terms("b", "/b", 0)], now), EntriesChange::None);
    assert_eq!(ledger.replace_entries(vec![terms("b", "/b", 0)], now), EntriesChange::Removed);
    assert_eq!(ledger.entries().count(), 1);
    ledger.put_svid("a", svid("/a", -10, 10), now, &at(0), 0.5);
    assert_eq!(ledger.entries().count(), 1, "an SVID for a removed entry is dropped");
}

#[test]
fn a_changed_entry_keeps_its_svid_until_the_next_comes_unless_the_id_changed() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.replace_entries(vec![terms("a", "/a", 0)], now);
    ledger.put_svid("a", svid("/a", 0, 3600), now, &at(0), 0.5);
    assert_eq!(ledger.replace_entries(vec![terms("a", "/a", 1)], now), EntriesChange::Changed);
    assert_eq!(wanted(&ledger, now), ["a"]);
    assert!(ledger.entries().all(|held| held.svid().is_some()));
    assert_eq!(ledger.replace_entries(vec![terms("a", "/other", 2)], now), EntriesChange::Removed);
    assert!(ledger.entries().all(|held| held.svid().is_none()));
    ledger.put_svid("a", svid("/a", 0, 3600), now, &at(0), 0.5);
    assert!(ledger.entries().all(|held| held.svid().is_none()), "the answer came too late");
}

#[test]
fn what_ends_first_is_asked_for_first() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let all = ["a", "b", "c"].map(|id| terms(id, &format!("/{id}"), 0));
    ledger.replace_entries(all.to_vec(), now);
    ledger.put_svid("a", svid("/a", 0, 3000), now, &at(0), 0.5);
    ledger.put_svid("b", svid("/b", 0, 2000), now, &at(0), 0.5);
    assert_eq!(wanted(&ledger, now + Duration::from_secs(1700)), ["c", "b", "a"]);
}

#[test]
fn a_ten_second_svid_dated_back_by_ten_is_not_due_at_once() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.replace_entries(vec![terms("a", "/a", 0)], now);
    ledger.put_svid("a", svid("/a", -10, 10), now, &at(0), 0.5);
    assert!(wanted(&ledger, now + Duration::from_secs(4)).is_empty());
    assert_eq!(wanted(&ledger, now + Duration::from_secs(6)), ["a"]);
    assert_eq!(ledger.next_end_in(&at(0)), Some(10));
    assert_eq!(ledger.next_end_in(&at(10)), None);
}

#[test]
fn what_a_sleeping_device_missed_is_due_when_it_wakes() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.replace_entries(vec![terms("a", "/a", 0)], now);
    ledger.put_svid("a", svid("/a", 0, 3600), now, &at(0), 0.5);
    assert!(ledger.wanted(now, Duration::ZERO, &at(1900)).is_empty());
    assert_eq!(ledger.wanted(now, Duration::ZERO, &at(2160)).len(), 1, "the monotonic clock has not moved");
    ledger.postpone("a", Duration::from_secs(30), now, &at(2160));
    assert!(ledger.wanted(now, Duration::ZERO, &at(2161)).is_empty(), "a refusal is not asked again at once");
}

#[test]
fn how_long_until_something_is_overdue_is_known_to_the_second() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    assert_eq!(ledger.overdue_in(now, &at(0)), None);
    ledger.replace_entries(vec![terms("a", "/a", 0)], now);
    ledger.put_svid("a", svid("/a", 0, 3600), now, &at(0), 0.5);
    let later = now + REFUSED_PAUSE;
    for (own, seconds) in [(0, 2160), (2159, 1), (2160, 0), (3700, 0)] {
        assert_eq!(ledger.overdue_in(later, &at(own)), Some(Duration::from_secs(seconds)), "{own}");
        assert_eq!(ledger.wanted(later, Duration::ZERO, &at(own)).is_empty(), seconds > 0, "{own}");
    }
    // After a refusal only the last quarter of its life counts, and that was asked for just now.
    ledger.postpone("a", Duration::from_secs(3600), later, &at(2160));
    assert_eq!(ledger.overdue_in(later, &at(2160)), Some(Duration::from_secs(540)));
    assert_eq!(ledger.overdue_in(later, &at(2700)), Some(REFUSED_PAUSE));
    assert_eq!(ledger.overdue_in(later + REFUSED_PAUSE, &at(2700)), Some(Duration::ZERO));
}

#[test]
fn a_restored_svid_past_half_its_life_is_due_at_once() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let fresh = (terms("a", "/a", 0), Some(svid("/a", 0, 3600)));
    let old = (terms("b", "/b", 0), Some(svid("/b", -3000, 600)));
    ledger.restore(vec![fresh, old, (terms("c", "/c", 0), None)], now, &at(0), || 0.5);
    assert_eq!(wanted(&ledger, now + Duration::from_secs(1)), ["c", "b"]);
    assert_eq!(ledger.shortest_lifetime(), Some(Duration::from_secs(3600)));
}
#[test]
fn what_is_not_valid_now_as_far_as_is_known_is_asked_for_but_not_again_at_once() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.replace_entries(vec![terms("a", "/a", 0)], now);
    ledger.put_svid("a", svid("/a", 10_800, 14_400), now, &at(0), 0.5);
    assert!(ledger.wanted(now, Duration::ZERO, &at(0)).is_empty(), "asked for a moment ago");
    assert_eq!(wanted(&ledger, now + REFUSED_PAUSE), ["a"], "its server was three hours ahead");
    ledger.postpone("a", REFUSED_PAUSE, now + REFUSED_PAUSE, &at(30));
    assert!(ledger.wanted(now + REFUSED_PAUSE, Duration::ZERO, &at(30)).is_empty());
}

#[test]
fn what_our_clock_disputes_does_not_replace_what_lasts() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let reading = Reading { boot: 100, kernel: 1_000_000 };
    let mut keeper = Keeper::new(0, reading);
    let mut receive = |issued: i64| {
        let span = Span { not_before: issued, not_after: issued + 3600 };
        let lifetime = keeper.receive(issued, span, reading);
        (lifetime, Moment::new(keeper, reading))
    };
    let (good, moment) = receive(1_000_000);
    ledger.replace_entries(vec![terms("a", "/a", 0)], now);
    assert!(ledger.put_svid("a", lasting("/a", good), now, &moment, 0.5));
    let (ahead, moment) = receive(1_010_800);
    assert!(!ledger.put_svid("a", lasting("/a", ahead), now, &moment, 0.5));
    assert!(ledger.entries().all(|held| held.svid().expect("held").lifetime().span().not_before == 1_000_000));
    ledger.replace_entries(vec![terms("a", "/other", 1)], now);
    assert!(ledger.put_svid("a", lasting("/other", ahead), now, &moment, 0.5));
}

#[test]
fn other_selectors_take_an_identity_from_somebody() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.replace_entries(vec![terms("a", "/a", 0)], now);
    let others = std::iter::once("unix:uid:2".parse().expect("legal")).collect();
    let changed = EntryTerms { selectors: others, ..terms("a", "/a", 1) };
    assert_eq!(ledger.replace_entries(vec![changed, terms("b", "/b", 0)], now), EntriesChange::Removed);
}

fn on_demand(id: &str) -> EntryTerms {
    EntryTerms { on_demand: true, ..terms(id, "/a", 0) }
}

#[test]
fn an_svid_made_on_demand_is_wanted_when_it_is_asked_for_and_then_like_any_other() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.replace_entries(vec![on_demand("a"), on_demand("b")], now);
    assert!(wanted(&ledger, now + Duration::from_secs(3600)).is_empty() && ledger.next_due().is_none());
    assert_eq!(ledger.unsigned().count(), 2);
    ledger.ask(&["a".to_owned(), "gone".to_owned()], now);
    assert_eq!(wanted(&ledger, now), ["a"]);
    ledger.put_svid("a", svid("/a", 0, 3600), now, &at(0), 0.5);
    assert!(wanted(&ledger, now).is_empty());
    assert_eq!(wanted(&ledger, now + Duration::from_secs(2000)), ["a"], "renewed though nobody asks again");
    ledger.replace_entries(vec![EntryTerms { revision_number: 1, ..on_demand("a") }, on_demand("b")], now);
    assert_eq!(wanted(&ledger, now), ["a"], "a change is taken in for who has one");
    assert_eq!(ledger.unsigned().count(), 1);
}

#[test]
fn who_asks_for_what_the_server_refuses_makes_nobody_ask_it_again_at_once() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.replace_entries(vec![on_demand("a")], now);
    ledger.ask(&["a".to_owned()], now);
    ledger.postpone("a", REFUSED_PAUSE, now, &at(0));
    ledger.ask(&["a".to_owned()], now);
    assert!(wanted(&ledger, now).is_empty());
    assert_eq!(ledger.unsigned().count(), 1, "it goes on being asked for");
    assert_eq!(wanted(&ledger, now + REFUSED_PAUSE), ["a"]);
}

#[test]
fn what_was_made_on_demand_in_an_earlier_run_is_kept_up() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.restore(vec![(on_demand("a"), Some(svid("/a", -3000, 600))), (on_demand("b"), None)], now, &at(0), || 0.5);
    assert_eq!(wanted(&ledger, now + Duration::from_secs(1)), ["a"]);
}

#[test]
fn what_is_due_before_the_next_poll_is_signed_with_the_rest_but_nothing_refused_is() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let all = ["a", "b", "c"].map(|id| terms(id, &format!("/{id}"), 0));
    ledger.replace_entries(all.to_vec(), now);
    for (id, seconds) in [("a", 100), ("b", 110), ("c", 400)] {
        ledger.put_svid(id, svid(&format!("/{id}"), 0, seconds), now, &at(0), 0.5);
    }
    ledger.postpone("c", Duration::from_secs(52), now, &at(0));
    let next = Duration::from_secs(12);
    let at_50 = |next| ledger.wanted(now + Duration::from_secs(50), next, &at(0)).len();
    assert!(at_50(Duration::ZERO) <= 2);
    assert_eq!(at_50(next), 2, "one batch instead of three turns");
    assert!(ledger.wanted(now + Duration::from_secs(20), next, &at(0)).is_empty());
}

/// An authority, and an SVID of `path` that it signed.
fn authority_and_svid(path: &str) -> (Vec<u8>, WorkloadSvid) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let [root_key, key] = [(); 2].map(|()| KeyPair::generate().expect("a key"));
    let authority = root.self_signed(&root_key).expect("signs").der().to_vec();
    let id = format!("spiffe://td{path}");
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::URI(id.as_str().try_into().expect("ASCII"))];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).expect("signs");
    let key = WorkloadKey::new(Zeroizing::new(key.serialize_der()));
    let id = SpiffeId::parse(&id).expect("legal");
    (authority, restored_workload_svid([&leaf.der()[..]], &id, key, None).expect("a pair"))
}

#[test]
fn what_an_authority_signed_that_is_no_longer_trusted_is_due_at_once_and_nothing_else_is() {
    let (mut ledger, now, moment) = (Ledger::default(), Instant::now(), at(1_800_000_000));
    ledger.replace_entries(vec![terms("a", "/a", 0), terms("b", "/b", 0), on_demand("c")], now);
    let (trusted, of_trusted) = authority_and_svid("/a");
    let (_, of_tainted) = authority_and_svid("/b");
    ledger.put_svid("a", of_trusted, now, &moment, 0.5);
    ledger.put_svid("b", of_tainted, now, &moment, 0.5);
    let due = |ledger: &Ledger| ledger.wanted(now, Duration::ZERO, &moment);
    assert!(due(&ledger).is_empty());
    let trust_domain = TrustDomain::new("td").expect("legal");
    let anchors = TrustAnchors::new(trust_domain, &[trusted.into()]).expect("an authority");
    assert_eq!(ledger.mark_untrusted(&anchors, now, &moment), 1);
    let ids: Vec<_> = due(&ledger).into_iter().map(|wanted| wanted.entry_id).collect();
    assert_eq!(ids, ["b"]);
}

#[test]
fn what_nobody_believes_any_more_is_held_no_longer_and_asked_for_at_once() {
    let (mut ledger, now, moment) = (Ledger::default(), Instant::now(), at(1_800_000_000));
    ledger.replace_entries(vec![terms("a", "/a", 0), terms("b", "/b", 0)], now);
    let (believed, of_believed) = authority_and_svid("/a");
    let (_, of_revoked) = authority_and_svid("/b");
    ledger.put_svid("a", of_believed, now, &moment, 0.5);
    ledger.put_svid("b", of_revoked, now, &moment, 0.5);
    let trust_domain = TrustDomain::new("td").expect("legal");
    let anchors = TrustAnchors::new(trust_domain, &[believed.into()]).expect("an authority");
    assert_eq!(ledger.withdraw_unbelieved(&anchors, now, &moment), 1);
    assert_eq!(ledger.identities().map(|identity| identity.entry_id()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(wanted(&ledger, now), ["b"]);
    assert_eq!(ledger.withdraw_unbelieved(&anchors, now, &moment), 0);
}

#[test]
fn what_comes_from_a_tainted_authority_all_the_same_is_asked_for_again_after_a_pause() {
    let (mut ledger, now, moment) = (Ledger::default(), Instant::now(), at(1_800_000_000));
    ledger.replace_entries(vec![terms("a", "/a", 0), terms("b", "/b", 0)], now);
    let (sound, of_sound) = authority_and_svid("/a");
    let (_, of_tainted) = authority_and_svid("/b");
    ledger.put_svid("a", of_sound, now, &moment, 0.5);
    ledger.put_svid("b", of_tainted, now, &moment, 0.5);
    let trust_domain = TrustDomain::new("td").expect("legal");
    let anchors = TrustAnchors::new(trust_domain, &[sound.into()]).expect("an authority");
    let pause = Duration::from_secs(30);
    for id in ["a", "b", "gone"] {
        ledger.replace_if_untrusted(id, &anchors, pause, now, &moment);
    }
    assert!(wanted(&ledger, now).is_empty(), "a server that goes on so is not asked without a pause");
    let later = ledger.wanted(now + pause, Duration::ZERO, &moment);
    assert_eq!(later.iter().map(|wanted| wanted.entry_id.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn what_was_forgotten_is_neither_held_nor_due() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    assert!(ledger.is_empty());
    ledger.replace_entries(vec![terms("a", "/a", 0), terms("b", "/b", 0)], now);
    ledger.put_svid("a", svid("/a", 0, 3600), now, &at(0), 0.5);
    let count = |ledger: &Ledger| (ledger.is_empty(), ledger.identities().count(), ledger.next_due());
    assert_eq!(count(&ledger), (false, 1, Some(now)), "the second has no SVID yet");
    ledger.clear();
    assert_eq!(count(&ledger), (true, 0, None));
}

#[test]
fn an_entry_of_which_more_is_known_keeps_its_svid_and_is_not_signed_again() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let of_an_older_version = EntryTerms { is_privileged: None, ..terms("a", "/a", 3) };
    ledger.restore(vec![(of_an_older_version.clone(), Some(svid("/a", 0, 3600)))], now, &at(0), || 0.5);
    assert!(!of_an_older_version.is_same_version(3, 1, EntryFields::Served), "so it is asked for");
    assert_eq!(ledger.replace_entries(vec![terms("a", "/a", 3)], now), EntriesChange::Changed);
    assert!(wanted(&ledger, now).is_empty());
    let held = ledger.entries().next().expect("held");
    assert_eq!((held.terms(), held.svid().is_some()), (&terms("a", "/a", 3), true));
    assert!(held.terms().is_same_version(3, 1, EntryFields::Served));
    let mut other = Ledger::default();
    other.restore(vec![(of_an_older_version, Some(svid("/a", 0, 3600)))], now, &at(0), || 0.5);
    other.replace_entries(vec![terms("a", "/a", 4)], now);
    assert_eq!(wanted(&other, now), ["a"], "a change is a change all the same");
}

#[test]
fn an_agents_own_ca_signs_for_what_is_missing_or_in_its_last_third_and_for_no_privileged_entry() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let signable = |id: &str| EntryTerms { certificate: Some(CertificateTerms::default()), ..terms(id, "/a", 0) };
    let held = |id: &str, left| {
        (signable(id), Some(lasting("/a", Lifetime::kept(Span { not_before: 0, not_after: 3600 }, Some(left)))))
    };
    let privileged = EntryTerms { is_privileged: Some(true), ..signable("privileged") };
    let unknown = EntryTerms { is_privileged: None, ..signable("perhaps-privileged") };
    let waits = EntryTerms { on_demand: true, ..signable("nobody-asks") };
    let rest =
        [signable("missing"), privileged, unknown, waits, terms("not-signable", "/a", 0)].map(|terms| (terms, None));
    let short = Lifetime::kept(Span { not_before: 0, not_after: 60 }, Some(45));
    let short = (signable("short"), Some(lasting("/a", short)));
    let entries =
        [held("long", 1300), held("last-third", 1100), held("ended", 0), short].into_iter().chain(rest).collect();
    ledger.restore(entries, now, &at(0), || 0.5);
    let ids = |ledger: &Ledger| -> Vec<String> {
        ledger.to_mint(now, &at(0)).into_iter().map(|held| held.terms().id.clone()).collect()
    };
    assert_eq!(ids(&ledger), ["missing", "ended", "short", "last-third"], "those that end first in front");
    ledger.ask(&["nobody-asks".to_owned()], now);
    assert!(ids(&ledger).contains(&"nobody-asks".to_owned()));
}

#[test]
fn an_entry_whose_key_is_in_hardware_is_never_signed_for_a_key_of_the_agents_nor_keeps_one() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let selectors =
        ["unix:uid:1", "ironroot:hardware_key"].map(|text| text.parse().expect("legal")).into_iter().collect();
    let asking = |id: &str, revision| EntryTerms {
        selectors: SelectorSet::clone(&selectors),
        certificate: Some(CertificateTerms::default()),
        ..terms(id, "/a", revision)
    };
    ledger.restore(
        vec![(asking("kept", 0), Some(svid("/a", 0, 3600))), (terms("a", "/a", 0), Some(svid("/a", 0, 3600)))],
        now,
        &at(0),
        || 0.5,
    );
    ledger.replace_entries(vec![asking("kept", 0), asking("a", 1), asking("new", 0)], now);
    ledger.ask(&["kept".to_owned(), "a".to_owned(), "new".to_owned()], now);
    ledger.put_svid("new", svid("/a", 0, 3600), now, &at(0), 0.5);
    assert!(wanted(&ledger, now).is_empty() && ledger.to_mint(now, &at(0)).is_empty());
    assert_eq!((ledger.identities().count(), ledger.unsigned().count(), ledger.next_due()), (0, 3, None));
    ledger.replace_entries(vec![terms("a", "/a", 2)], now);
    assert_eq!(wanted(&ledger, now), ["a"], "an entry that asks for it no more");
}
