use super::*;
use crate::server_answers::CertificateTerms;
use ironroot_api::pb::types::{Selector, Spiffeid};
use std::time::Instant;

fn entry(id: &str, path: &str) -> Entry {
    Entry {
        id: id.to_owned(),
        spiffe_id: Some(Spiffeid { trust_domain: "td".to_owned(), path: path.to_owned() }),
        selectors: vec![Selector { r#type: "unix".to_owned(), value: "uid:1".to_owned() }],
        revision_number: 3,
        created_at: 9,
        ..Entry::default()
    }
}

fn terms(entries: Vec<Entry>) -> Vec<String> {
    let trust_domain = TrustDomain::new("td").expect("legal");
    let held = Ledger::default();
    let terms = Answer::full(entries, &held).authorized(&held, &trust_domain, EntryFields::Served).terms;
    terms.into_iter().map(|terms| terms.id).collect()
}

#[test]
fn one_broken_entry_does_not_cost_the_others() {
    let with = |change: fn(&mut Entry)| {
        let mut broken = entry("broken", "/b");
        change(&mut broken);
        vec![entry("good", "/a"), broken]
    };
    assert_eq!(terms(with(|_| ())), ["good", "broken"]);
    assert_eq!(terms(with(|e| e.store_svid = true)), ["good"]);
    assert_eq!(terms(with(|e| e.selectors.clear())), ["good"], "would apply to every process");
    assert_eq!(terms(with(|e| e.spiffe_id = None)), ["good"]);
    assert_eq!(terms(with(|e| e.spiffe_id.as_mut().expect("id").trust_domain = "other".into())), ["good"]);
    assert_eq!(terms(with(|e| e.spiffe_id.as_mut().expect("id").path = String::new())), ["good"]);
    assert_eq!(terms(with(|e| e.id = String::new())), ["good"]);
    assert_eq!(terms(with(|e| e.hint = "x".repeat(5000))), ["good"]);
    assert_eq!(terms(with(|e| e.selectors = vec![e.selectors[0].clone(); 1001])), ["good"]);
}

#[test]
fn only_what_changed_or_was_recreated_is_asked_for() {
    let trust_domain = TrustDomain::new("td").expect("legal");
    let held: Vec<_> = ["same", "updated", "recreated", "removed"]
        .map(|id| {
            EntryTerms::from_answer(&entry(id, "/a"), &trust_domain, EntryFields::Served)
                .expect("terms")
                .expect("served")
        })
        .into();
    let mut ledger = Ledger::default();
    ledger.replace_entries(held, Instant::now());
    let revision = |id: &str, revision_number, created_at| EntryRevision { id: id.into(), revision_number, created_at };
    let (unchanged, needed) = compare(
        vec![revision("updated", 4, 9), revision("same", 3, 9), revision("recreated", 3, 10), revision("new", 0, 1)],
        &ledger,
        EntryFields::Served,
    );
    assert_eq!(unchanged, ["same"]);
    assert_eq!(needed, ["new", "recreated", "updated"], "sorted");
}

#[test]
fn beyond_the_limit_it_goes_on_with_what_it_holds_and_then_the_oldest() {
    let trust_domain = TrustDomain::new("td").expect("legal");
    let aged = |id: String, created_at| Entry { created_at, ..entry(&id, "/a") };
    let mut held = Ledger::default();
    let newest = aged("held".to_owned(), 999_999);
    let terms = EntryTerms::from_answer(&newest, &trust_domain, EntryFields::Served).expect("terms").expect("served");
    held.replace_entries(vec![terms], Instant::now());
    let mut all: Vec<Entry> = (0..MAX_ENTRIES as i64 + 1).rev().map(|n| aged(format!("e{n:05}"), 1_000 + n)).collect();
    all.push(newest);
    let answer = Answer::full(all.clone(), &held);
    assert_eq!((answer.entries.len(), answer.left_out), (MAX_ENTRIES, 2));
    let ids: Vec<&str> = answer.entries.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!((ids[0], ids[1], ids[MAX_ENTRIES - 1]), ("held", "e00000", "e19998"));
    let revision = |e: &Entry| EntryRevision { id: e.id.clone(), revision_number: 3, created_at: e.created_at };
    let mut revisions = Revisions::new(&held);
    all.chunks(PAGE).for_each(|page| revisions.add(page.iter().map(revision).collect()));
    let (fit, left_out) = revisions.that_fit();
    assert_eq!(left_out, 2);
    assert!(fit.iter().map(|revision| revision.id.as_str()).eq(ids), "the same whichever way it is asked");
}

#[test]
fn however_many_revisions_a_server_lists_the_agent_holds_a_bounded_number_and_the_same_ones_stay() {
    let held = Ledger::default();
    let mut revisions = Revisions::new(&held);
    let count = 12 * MAX_ENTRIES as i64;
    for first in (0..count / PAGE as i64).rev().map(|page| page * PAGE as i64) {
        let page = (first..first + PAGE as i64).map(|n| EntryRevision {
            id: format!("e{n:06}"),
            revision_number: 1,
            created_at: n,
        });
        revisions.add(page.collect());
        assert!(revisions.fit.len() <= MAX_REVISIONS_HELD && revisions.fit.capacity() <= 2 * MAX_REVISIONS_HELD);
    }
    let (fit, left_out) = revisions.that_fit();
    assert_eq!((fit.len(), left_out), (MAX_ENTRIES, 11 * MAX_ENTRIES));
    assert!(fit.iter().all(|revision| revision.created_at < MAX_ENTRIES as i64), "the oldest");
}

#[test]
fn what_an_entry_wishes_is_asked_for() {
    assert!(
        mask(EntryFields::Served).federates_with && mask(EntryFields::Served).additional_attributes,
        "otherwise nobody would know"
    );
}

#[test]
fn what_makes_an_entry_privileged_is_asked_for_and_heard() {
    let mask = mask(EntryFields::Served);
    assert!(mask.admin && mask.downstream, "what is not asked for is told as false");
    let id = |path: &str| Some(ironroot_api::SpiffeId::from_parts("td", path).expect("legal").to_pb());
    let selectors = vec![ironroot_api::pb::types::Selector { r#type: "unix".into(), value: "uid:1".into() }];
    let plain = Entry { id: "a".into(), spiffe_id: id("/a"), selectors, ..Entry::default() };
    for (admin, downstream) in [(false, false), (true, false), (false, true)] {
        let entry = Entry { admin, downstream, ..plain.clone() };
        let terms = EntryTerms::from_answer(&entry, &TrustDomain::new("td").expect("legal"), EntryFields::Served)
            .expect("sound");
        assert_eq!(terms.expect("for workloads").is_privileged, Some(admin || downstream));
    }
}

#[test]
fn what_an_agent_signs_by_is_asked_for_by_one_that_signs_alone_and_then_known() {
    let (served, signed) = (mask(EntryFields::Served), mask(EntryFields::Signed));
    assert!(!served.dns_names && !served.x509_svid_ttl, "a server has what other agents ask for at hand");
    assert!(
        signed.dns_names
            && signed.x509_svid_ttl
            && signed.jwt_svid_ttl
            && EntryMask { dns_names: false, x509_svid_ttl: false, jwt_svid_ttl: false, ..signed } == served
    );
    let trust_domain = TrustDomain::new("td").expect("legal");
    let told = Entry { dns_names: vec!["a.example".into()], x509_svid_ttl: 60, jwt_svid_ttl: 30, ..entry("e", "/a") };
    let taken = |fields, entry: &Entry| EntryTerms::from_answer(entry, &trust_domain, fields);
    let served = taken(EntryFields::Served, &told).expect("sound").expect("served");
    let signed = taken(EntryFields::Signed, &told).expect("sound").expect("served");
    let certificate = signed.certificate.clone().expect("known");
    assert_eq!(
        (served.certificate.is_none(), &certificate.dns_names[..], certificate.ttl_seconds),
        (true, &["a.example".to_owned()][..], 60)
    );
    let (revision, created) = (told.revision_number, told.created_at);
    assert!(served.is_same_version(revision, created, EntryFields::Served));
    assert!(!served.is_same_version(revision, created, EntryFields::Signed), "so it is asked for again");
    assert!(signed.is_same_version(revision, created, EntryFields::Signed) && served.is_completed_by(&signed));
    let before = certificate.clone();
    let before =
        EntryTerms { certificate: Some(CertificateTerms { jwt_ttl_seconds: None, ..before }), ..signed.clone() };
    assert!(!before.is_same_version(revision, created, EntryFields::Signed), "of a version that signed no JWT-SVIDs");
    assert!(before.is_completed_by(&signed) && certificate.jwt_ttl_seconds == Some(30));
    let other = EntryTerms { certificate: Some(CertificateTerms::default()), ..signed.clone() };
    assert!(!other.is_completed_by(&signed), "another version");
    for dns_names in [vec!["a".to_owned(); 257], vec!["a".repeat(254)], vec!["\u{e4}.example".to_owned()]] {
        assert!(taken(EntryFields::Signed, &Entry { dns_names, ..told.clone() }).is_err());
    }
}

#[test]
fn the_svid_that_a_ca_is_had_with_is_made_for_nobody() {
    let selectors =
        vec![ironroot_api::pb::types::Selector { r#type: "ironroot".into(), value: "local_authority".into() }];
    let own = Entry { selectors, downstream: true, ..entry("own", "/gateway-ca") };
    let trust_domain = TrustDomain::new("td").expect("legal");
    let terms = EntryTerms::from_answer(&own, &trust_domain, EntryFields::Signed).expect("sound").expect("taken");
    assert!(terms.on_demand && terms.is_of_local_authority() && terms.is_privileged == Some(true));
    let mut ledger = Ledger::default();
    ledger.replace_entries(vec![terms], Instant::now());
    assert_eq!(ledger.of_local_authority().expect("it is there").entry_id, "own");
    let moment = crate::trusted_time::TrustedTime::new().moment();
    assert!(ledger.wanted(Instant::now(), std::time::Duration::ZERO, &moment).is_empty());
    assert!(ledger.to_mint(Instant::now(), &moment).is_empty());
}
