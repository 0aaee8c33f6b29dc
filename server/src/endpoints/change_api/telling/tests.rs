use std::collections::{BTreeMap, BTreeSet};

use ironroot_api::TrustDomain;
use ironroot_api::view::ViewName;
use ironroot_fuzz::proptest::prelude::*;

use super::*;
use crate::facts::mask::agent_entry_mask;

fn bundle(sequence_number: u64) -> Arc<TrustBundle> {
    Arc::new(TrustBundle {
        trust_domain: TrustDomain::new("td").expect("legal"),
        authorities: vec![vec![7; 100]],
        tainted_authorities: BTreeSet::new(),
        jwt_authorities: Vec::new(),
        wit_authorities: Vec::new(),
        sequence_number,
        refresh_hint_seconds: 0,
    })
}

fn look(view: &AuthorizedView, bundle: &Arc<TrustBundle>) -> Look {
    Look { view: view.clone(), bundle: bundle.clone(), foreign: false, suspected: false }
}

/// Of an agent that holds `view` and `bundle`.
fn telling(view: &[u8], bundle: &[u8]) -> Telling {
    let (view, bundle) = (Bytes::copy_from_slice(view), Bytes::copy_from_slice(bundle));
    let asked = WatchChangesRequest { output_mask: Some(agent_entry_mask()), view, bundle };
    Telling::asked_by(asked).expect("legal")
}

fn nothing_kept(_: &[u8]) -> Option<AuthorizedView> {
    None
}

fn delta(telling: &mut Telling, told: Option<&Look>, now: &Look) -> Option<Delta> {
    telling.of(told, now, nothing_kept, false).map(|told| told.expect("a delta"))
}

/// IDs of entries that are new or others, and of those that are gone.
fn said(delta: &Delta) -> (Vec<&str>, Vec<&str>) {
    (delta.entries.iter().map(|entry| entry.id.as_str()).collect(), delta.removed.iter().map(String::as_str).collect())
}

#[test]
fn an_agent_that_names_no_fields_hears_that_something_has_changed_and_never_what() {
    let mut words = Telling::asked_by(WatchChangesRequest::default()).expect("legal");
    let (before, now) =
        (look(&AuthorizedView::example(&["a"]), &bundle(1)), look(&AuthorizedView::default(), &bundle(1)));
    assert_eq!(words.of(None, &before, nothing_kept, false), Some(None));
    assert_eq!(words.of(Some(&before), &now, nothing_kept, false), Some(None));
    assert_eq!(words.of(Some(&before), &before, nothing_kept, true), None, "nor a heartbeat, for which it would sync");
}

#[test]
fn fields_without_the_state_of_an_entry_are_refused() {
    for mask in [
        EntryMask { revision_number: false, ..agent_entry_mask() },
        EntryMask { created_at: false, ..agent_entry_mask() },
    ] {
        let asked = WatchChangesRequest { output_mask: Some(mask), ..WatchChangesRequest::default() };
        assert_eq!(Telling::asked_by(asked).expect_err("refused").code(), tonic::Code::InvalidArgument);
    }
}

#[test]
fn an_agent_goes_on_from_what_it_holds_now_or_was_told_last_and_otherwise_asks_for_everything() {
    let (before, of) = (AuthorizedView::example(&["a", "b"]), bundle(1));
    let now = look(&before.without("b").with("c", 1), &of);
    let name = BundleName::of(&bundle_api::to_pb(&of));
    let mut current = telling(now.view.name().as_bytes(), name.as_bytes());
    let first = delta(&mut current, None, &now).expect("the first");
    assert_eq!((first.number, first.full_sync, said(&first)), (1, false, (vec![], vec![])));
    assert!(first.bundle.is_none() && first.federated, "of foreign bundles nobody knows");
    let mut earlier = telling(before.name().as_bytes(), b"another");
    let kept = |name: &[u8]| (name == before.name().as_bytes()).then(|| before.clone());
    let resumed = earlier.of(None, &now, kept, false).flatten().expect("a delta");
    assert_eq!((resumed.full_sync, said(&resumed)), (false, (vec!["c"], vec!["b"])));
    assert_eq!(resumed.bundle, Some(bundle_api::to_pb(&of)));
    for unknown in [&b""[..], b"unknown", ViewName::of([]).as_bytes()] {
        let first = delta(&mut telling(unknown, name.as_bytes()), None, &now).expect("the first");
        assert!(first.full_sync && first.bundle.is_none() && said(&first) == (vec![], vec![]), "{first:?}");
        assert_eq!(&first.view[..], now.view.name().as_bytes());
    }
}

#[test]
fn entries_are_told_with_the_fields_that_were_named() {
    let (before, of) = (look(&AuthorizedView::default(), &bundle(1)), bundle(1));
    let mut telling = telling(b"", b"");
    let told = delta(&mut telling, Some(&before), &look(&AuthorizedView::example(&["a"]), &of)).expect("changed");
    assert_eq!((told.entries[0].x509_svid_ttl, told.entries[0].created_at), (0, 1));
    assert!(told.entries[0].parent_id.is_none() && told.entries[0].spiffe_id.is_some());
}

#[test]
fn a_bundle_is_told_once_it_is_another_and_foreign_ones_are_mentioned() {
    let (view, first, second) = (AuthorizedView::example(&["a"]), bundle(1), bundle(2));
    let mut telling = telling(b"", b"");
    assert_eq!(delta(&mut telling, Some(&look(&view, &first)), &look(&view, &first)), None);
    let told = delta(&mut telling, Some(&look(&view, &first)), &look(&view, &second)).expect("another");
    assert_eq!((told.bundle.map(|bundle| bundle.sequence_number), told.federated), (Some(2), false));
    let foreign = Look { foreign: true, ..look(&view, &second) };
    let told = delta(&mut telling, Some(&look(&view, &second)), &foreign).expect("to be told");
    assert!(told.federated && told.bundle.is_none() && !told.full_sync);
}

#[test]
fn a_heartbeat_says_that_nothing_has_changed_and_where_the_agent_is() {
    let now = look(&AuthorizedView::example(&["a"]), &bundle(1));
    let mut telling = telling(b"", b"");
    for number in 1..3 {
        let beat = telling.of(Some(&now), &now, nothing_kept, true).flatten().expect("a heartbeat");
        let view = Bytes::copy_from_slice(now.view.name().as_bytes());
        assert_eq!(beat, Delta { number, view, ..Delta::default() });
    }
}

#[test]
fn a_new_head_goes_along_with_what_has_changed_and_with_no_heartbeat() {
    let (before, of) = (look(&AuthorizedView::default(), &bundle(1)), bundle(1));
    let now = look(&AuthorizedView::example(&["a"]), &of);
    let head = |sequence| ShownHead::example((1, sequence), sequence.to_string().into_bytes());
    let mut telling = telling(b"", b"");
    telling.goes_on_from(KnownHead::At((1, 5)));
    let mut shown = |told: Option<&Look>, now: &Look, newest: u64| {
        let mut delta = telling.of(told, now, nothing_kept, true).flatten().expect("a delta");
        telling.show_head(&mut delta, Some(&head(newest)));
        (delta.full_sync, delta.issuance_head)
    };
    assert_eq!(shown(None, &before, 6), (true, Bytes::new()), "it is shown with the sync");
    assert_eq!(shown(Some(&now), &now, 6), (false, Bytes::new()), "a heartbeat");
    assert_eq!(shown(Some(&before), &now, 5), (false, Bytes::new()), "it was shown when the stream began");
    assert_eq!(shown(Some(&before), &now, 6), (false, Bytes::from_static(b"6")));
    assert_eq!(shown(Some(&now), &before, 6), (false, Bytes::new()), "once");
    let foreign = Look { foreign: true, ..look(&now.view, &of) };
    assert_eq!(shown(Some(&now), &foreign, 7), (false, Bytes::from_static(b"7")));
}

#[test]
fn the_copy_of_a_chip_is_made_to_ask() {
    let now = look(&AuthorizedView::example(&["a"]), &bundle(1));
    let suspected = Look { suspected: true, ..look(&now.view, &now.bundle) };
    let mut telling = telling(now.view.name().as_bytes(), b"");
    assert!(delta(&mut telling, Some(&now), &suspected).expect("told").full_sync);
    assert_eq!(delta(&mut telling, Some(&suspected), &suspected), None);
    let mut late = self::telling(now.view.name().as_bytes(), b"");
    assert!(delta(&mut late, None, &suspected).expect("told").full_sync);
}

#[test]
fn what_is_more_than_a_message_holds_is_to_be_asked_for() {
    let (none, of) = (look(&AuthorizedView::default(), &bundle(1)), bundle(1));
    let ids: Vec<String> = (0..=MAX_DELTA_ENTRIES).map(|number| number.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let view = |count: usize| look(&AuthorizedView::example(&ids[..count]), &of);
    let mut telling = telling(b"", b"");
    let (fits, more) = (view(MAX_DELTA_ENTRIES), view(MAX_DELTA_ENTRIES + 1));
    assert_eq!(delta(&mut telling, Some(&none), &fits).expect("told").entries.len(), MAX_DELTA_ENTRIES);
    for (before, now) in [(&none, &more), (&more, &none)] {
        let told = delta(&mut telling, Some(before), now).expect("told");
        assert!(told.full_sync && said(&told) == (vec![], vec![]));
    }
    let large = TrustBundle { authorities: vec![vec![7; MAX_DELTA_BYTES]], ..TrustBundle::clone(&bundle(2)) };
    let told = delta(&mut telling, Some(&none), &look(&none.view, &Arc::new(large))).expect("told");
    assert!(told.full_sync && told.bundle.is_none());
}

proptest! {
    #![proptest_config(ironroot_fuzz::cases(200))]
    /// Whatever happens between looks, and whichever of them are told: who applies the deltas holds what the registry says.
    #[test]
    fn deltas_that_are_applied_are_the_whole_view(
        steps in prop::collection::vec((0..12u8, 0..6i64, prop::bool::weighted(0.6)), 1..120),
        starts in prop::collection::vec(0..12u8, 0..12),
    ) {
        let of = bundle(1);
        let mut view = starts.iter().fold(AuthorizedView::default(), |view, id| view.with(&id.to_string(), 1));
        let mut held: BTreeMap<String, i64> = view.iter().map(|entry| (entry.id().to_owned(), 1)).collect();
        let mut telling = telling(view.name().as_bytes(), b"");
        let mut told = look(&view, &of);
        let mut number = 0;
        for (id, created_at, is_told) in steps {
            let id = id.to_string();
            view = if created_at == 0 { view.without(&id) } else { view.with(&id, created_at) };
            if !is_told {
                continue;
            }
            let now = look(&view, &of);
            if let Some(delta) = delta(&mut telling, Some(&told), &now) {
                number += 1;
                prop_assert_eq!(delta.number, number);
                held.retain(|id, _| !delta.removed.contains(id));
                held.extend(delta.entries.iter().map(|entry| (entry.id.clone(), entry.created_at)));
                let name = ViewName::of(held.iter().map(|(id, created_at)| (id.as_str(), 0, *created_at)));
                prop_assert_eq!(name.as_bytes(), &delta.view[..]);
                told = now;
            }
            let whole: BTreeMap<String, i64> = view.iter().map(|e| (e.id().to_owned(), e.revision().created_at)).collect();
            prop_assert_eq!(&held, &whole);
        }
    }
}
