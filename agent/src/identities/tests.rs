use ironroot_api::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::*;
use crate::agent_key::WorkloadKey;
use crate::server_answers::{WorkloadSvid, restored_workload_svid};
use crate::server_number::ServerNumber;

const NOW: i64 = 1_800_000_000;

fn td(name: &str) -> TrustDomain {
    TrustDomain::new(name).expect("legal")
}

fn set(selectors: &[&str]) -> SelectorSet {
    selectors.iter().map(|s| s.parse().expect("legal")).collect()
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let der = params.self_signed(&key).expect("signs").der().to_vec();
    Authority { issuer: Issuer::new(params, key), der }
}

/// An SVID for `id` that ends at `NOW + ttl`.
fn svid(authority: &Authority, id: &str, ttl: i64) -> WorkloadSvid {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = OffsetDateTime::from_unix_timestamp(NOW - 3600).expect("in range");
    params.not_after = OffsetDateTime::from_unix_timestamp(NOW + ttl).expect("in range");
    let certificate = params.signed_by(&key, &authority.issuer).expect("signs");
    let key = WorkloadKey::new(Zeroizing::new(key.serialize_der()));
    restored_workload_svid([&certificate.der()[..]], &SpiffeId::parse(id).expect("legal"), key, None).expect("a pair")
}

struct Entry<'a> {
    id: &'a str,
    path: &'a str,
    selectors: &'a [&'a str],
    hint: &'a str,
    created_at: i64,
    ttl: i64,
}

const ENTRY: Entry<'static> =
    Entry { id: "e", path: "/web", selectors: &["unix:uid:1"], hint: "", created_at: 1, ttl: 60 };

fn terms(entry: &Entry<'_>) -> Arc<EntryTerms> {
    Arc::new(EntryTerms {
        server: ServerNumber::FIRST,
        id: entry.id.to_owned(),
        spiffe_id: td("td").id_with_path(entry.path).expect("legal"),
        selectors: set(entry.selectors),
        hint: entry.hint.to_owned(),
        created_at: entry.created_at,
        revision_number: 0,
        on_demand: false,
        unique_tokens: Some(false),
        is_privileged: Some(false),
        federates_with: Some(Vec::new()),
        certificate: None,
    })
}

fn identity(authority: &Authority, entry: &Entry<'_>) -> Arc<Identity> {
    let svid = svid(authority, &format!("spiffe://td{}", entry.path), entry.ttl);
    Arc::new(Identity::try_new(terms(entry), Arc::new(svid)).expect("fits"))
}

fn bundle(authority: &Authority) -> Arc<TrustBundle> {
    Arc::new(TrustBundle::new(&td("td"), [(&authority.der[..], false)]).expect("an authority"))
}

fn snapshot(entries: &[Entry<'_>]) -> Identities {
    let authority = authority();
    let identities = entries.iter().map(|entry| identity(&authority, entry)).collect();
    Identities::try_new(td("td"), identities, bundle(&authority)).expect("sound")
}

fn served<'a>(identities: &'a Identities, selectors: &[&str], now: i64) -> Vec<&'a str> {
    identities.for_selectors(&set(selectors), now).iter().map(|i| i.entry_id()).collect()
}

#[test]
fn an_entry_applies_to_who_has_all_its_selectors() {
    let identities = snapshot(&[
        Entry { id: "one", selectors: &["unix:uid:1"], ..ENTRY },
        Entry { id: "both", selectors: &["unix:uid:1", "unix:gid:2"], ..ENTRY },
        Entry { id: "other", selectors: &["unix:uid:3"], ..ENTRY },
    ]);
    assert_eq!(served(&identities, &["unix:uid:1", "unix:user:x"], NOW), ["one"]);
    assert_eq!(served(&identities, &["unix:uid:1", "unix:gid:2"], NOW), ["both", "one"]);
    assert_eq!(served(&identities, &["unix:uid:11"], NOW), [""; 0]);
}

#[test]
fn nothing_expired_is_served_but_its_owner_stays_known() {
    let identities = snapshot(&[Entry { id: "short", ttl: 10, ..ENTRY }, Entry { id: "long", ..ENTRY }]);
    let workload = set(&["unix:uid:1"]);
    assert_eq!(served(&identities, &["unix:uid:1"], NOW + 9), ["long", "short"]);
    assert_eq!(served(&identities, &["unix:uid:1"], NOW + 10), ["long"]);
    assert_eq!(served(&identities, &["unix:uid:1"], NOW + 60), [""; 0]);
    assert!(identities.is_entitled(&workload) && !identities.is_entitled(&set(&["unix:uid:2"])));
}

//= WLA-13
#[test]
fn order_is_by_entry_id_as_at_spires_agent_whatever_the_age_and_the_order_of_arrival() {
    let new = |id, created_at| Entry { id, created_at, ..ENTRY };
    let orders = [[new("c", 1), new("b", 2), new("a", 2)], [new("a", 2), new("c", 1), new("b", 2)]];
    for entries in orders {
        let identities = snapshot(&entries);
        assert_eq!(served(&identities, &["unix:uid:1"], NOW), ["a", "b", "c"]);
        let for_jwt = identities.entries_for(&set(&["unix:uid:1"]));
        assert_eq!(for_jwt.iter().map(|terms| terms.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}

//= WLA-07
#[test]
fn of_equal_hints_the_oldest_entry_wins_and_a_tie_goes_by_entry_id() {
    let new = |id, hint, created_at| Entry { id, hint, created_at, ..ENTRY };
    let identities = snapshot(&[
        new("z", "x", 1),
        new("a", "x", 2),
        new("d", "y", 3),
        new("c", "y", 3),
        new("n", "", 4),
        new("m", "", 4),
    ]);
    assert_eq!(served(&identities, &["unix:uid:1"], NOW), ["c", "m", "n", "z"]);
    let for_jwt = identities.entries_for(&set(&["unix:uid:1"]));
    assert_eq!(for_jwt.iter().map(|terms| terms.id.as_str()).collect::<Vec<_>>(), ["c", "m", "n", "z"]);
    let identities = snapshot(&[Entry { ttl: 10, ..new("old", "x", 1) }, new("new", "x", 2)]);
    assert_eq!(served(&identities, &["unix:uid:1"], NOW + 20), [""; 0], "a hint does not pass to another identity");
}

//= WLA-07
#[test]
fn a_hint_that_another_workload_uses_too_is_no_duplicate() {
    let other = Entry { id: "other", hint: "x", created_at: 0, selectors: &["unix:uid:2"], ..ENTRY };
    let identities = snapshot(&[other, Entry { id: "mine", hint: "x", ..ENTRY }]);
    assert_eq!(served(&identities, &["unix:uid:1"], NOW), ["mine"]);
}

#[test]
fn an_svid_for_another_id_is_not_the_entrys() {
    let other = Arc::new(svid(&authority(), "spiffe://td/db", 60));
    let refusal = Identity::try_new(terms(&ENTRY), other).expect_err("does not fit");
    assert_eq!(refusal, IdentitiesError::OtherId { entry_id: "e".into(), found: "spiffe://td/db".into() });
}

#[test]
fn what_a_workload_was_sent_looks_the_same_until_its_svid_or_hint_changes() {
    let one = identity(&authority(), &ENTRY);
    let with = |entry: &Entry<'_>| Identity::try_new(terms(entry), one.svid().clone()).expect("fits");
    assert!(one.looks_like(&with(&Entry { selectors: &["unix:uid:2"], created_at: 9, ..ENTRY })));
    assert!(!one.looks_like(&with(&Entry { hint: "x", ..ENTRY })));
    assert!(!one.looks_like(&identity(&authority(), &ENTRY)));
}

#[test]
fn an_entry_on_demand_is_found_by_who_may_ask_for_it() {
    let on_demand = |id, selectors| {
        let terms = terms(&Entry { id, selectors, ..ENTRY });
        Arc::new(EntryTerms { on_demand: true, ..EntryTerms::clone(&terms) })
    };
    let unsigned = vec![on_demand("one", &["unix:uid:1"]), on_demand("both", &["unix:uid:1", "unix:path:/a"])];
    let all = snapshot(&[]).with_unsigned(unsigned);
    let found = |selectors: &[&str]| {
        all.unsigned_for(&set(selectors)).into_iter().map(|terms| terms.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(found(&["unix:uid:1"]), ["one"]);
    assert_eq!(found(&["unix:uid:1", "unix:path:/a"]), ["one", "both"]);
    assert_eq!(found(&["unix:uid:2"]), [""; 0]);
    assert!(!all.is_entitled(&set(&["unix:uid:1"])), "there is nothing to serve yet");
    assert!(all.demand().concerns(&set(&["unix:uid:1"])), "its executable is looked at");
}

#[test]
fn refuses_snapshots_that_contradict_themselves() {
    let authority = authority();
    let one = identity(&authority, &ENTRY);
    let build = |name, identities| Identities::try_new(td(name), identities, bundle(&authority)).map(drop);
    assert_eq!(build("td", vec![one.clone(), one.clone()]), Err(IdentitiesError::DuplicateEntry("e".into())));
    assert_eq!(build("other", vec![one]), Err(IdentitiesError::OtherTrustDomain("spiffe://td/web".into())));
}

#[test]
fn starting_is_a_snapshot_that_serves_nothing() {
    let identities = Identities::starting(td("td"));
    assert!(identities.bundle().is_none() && identities.for_selectors(&set(&["unix:uid:1"]), NOW).is_empty());
}

#[test]
fn a_key_does_not_show_in_debug_output() {
    let identity = identity(&authority(), &ENTRY);
    assert!(!format!("{identity:?}").contains(&format!("{:?}", identity.key().pkcs8_der())));
}

#[test]
fn the_nearest_entry_shares_something_and_lacks_least() {
    type Texts = &'static [&'static str];
    type Case = (Texts, &'static [Texts], Option<(usize, Texts)>);
    let table: [Case; 6] = [
        (&["unix:uid:7"], &[], None),
        (&["unix:uid:7"], &[&["unix:uid:1"]], Some((0, &["unix:uid:1"]))),
        (
            &["unix:uid:7", "unix:gid:7"],
            &[&["unix:uid:1"], &["unix:uid:7", "unix:path:/a", "unix:user:x"]],
            Some((1, &["unix:path:/a", "unix:user:x"])),
        ),
        (
            &["unix:uid:7", "unix:gid:7"],
            &[&["unix:uid:7", "unix:path:/a", "unix:user:x"], &["unix:uid:7", "unix:path:/a"]],
            Some((1, &["unix:path:/a"])),
        ),
        (
            &["unix:uid:7", "unix:gid:7"],
            &[&["unix:uid:7", "unix:user:x"], &["unix:gid:7", "unix:uid:7", "unix:user:x"]],
            Some((1, &["unix:user:x"])),
        ),
        (&["unix:uid:7"], &[&["unix:gid:1", "unix:uid:7"], &["unix:gid:2", "unix:uid:7"]], Some((0, &["unix:gid:1"]))),
    ];
    for (has, entries, expected) in table {
        let ids: Vec<String> = (0..entries.len()).map(|n| format!("e{n}")).collect();
        let entry = |(selectors, id): (&Texts, &'static str)| Entry { id, selectors, ..ENTRY };
        let all = snapshot(&entries.iter().zip(["e0", "e1", "e2"]).map(entry).collect::<Vec<_>>());
        let nearest = all.nearest(&set(has)).map(|nearest| {
            let lacks: Vec<String> = nearest.lacks.iter().map(ToString::to_string).collect();
            (nearest.terms.id.clone(), lacks)
        });
        let expected = expected.map(|(n, lacks)| (ids[n].clone(), lacks.iter().map(ToString::to_string).collect()));
        assert_eq!(nearest, expected, "{has:?} among {entries:?}");
    }
}

#[test]
fn an_alias_of_nodes_is_near_to_no_process() {
    const ALIAS: &[&str] = &["spiffe_id:spiffe://td/spire/agent/join_token/x"];
    let alias = || Entry { id: "alias", selectors: ALIAS, ..ENTRY };
    let web = Entry { id: "web", selectors: &["unix:uid:1", "unix:uid:2", "unix:uid:3"], ..ENTRY };
    assert!(snapshot(&[alias()]).nearest(&set(&["unix:uid:7"])).is_none());
    let both = snapshot(&[alias(), web]);
    let near: Vec<_> = both.nearest_few(&set(&["unix:uid:7"]), 5).iter().map(|near| near.terms.id.clone()).collect();
    assert_eq!(near, ["web"]);
}

#[test]
fn an_entry_whose_key_is_in_hardware_is_nobodys_but_for_certificates_whatever_selectors_are_named() {
    const ASKED: &[&str] = &["unix:uid:1", "ironroot:hardware_key"];
    let entry = |id, selectors, created_at| terms(&Entry { id, selectors, created_at, ..ENTRY });
    let authority = authority();
    let key = svid(&authority, "spiffe://td/web", 60);
    let refused = Identity::try_new(entry("new", ASKED, 2), Arc::new(key)).map(drop);
    assert_eq!(refused, Err(IdentitiesError::KeyInHardware("new".to_owned())));

    let on_demand = EntryTerms { on_demand: true, ..EntryTerms::clone(&entry("new", ASKED, 2)) };
    let hinted = |id, created_at| EntryTerms {
        hint: "h".to_owned(),
        ..EntryTerms::clone(&entry(id, &["ironroot:hardware_key", "unix:gid:2"], created_at))
    };
    let nobodys = entry("nobodys", &["ironroot:hardware_key"], 0);
    let unsigned = [on_demand, hinted("b", 4), hinted("a", 3)].map(Arc::new).into_iter().chain([nobodys]).collect();
    let all = Identities::try_new(td("td"), Vec::new(), bundle(&authority)).expect("sound").with_unsigned(unsigned);
    for named in [&["unix:uid:1", "unix:gid:2"][..], &["unix:uid:1", "unix:gid:2", "ironroot:hardware_key"]] {
        let selectors = set(named);
        assert!(all.entries_for(&selectors).is_empty() && all.all_entries_for(&selectors).is_empty(), "{named:?}");
        assert!(all.unsigned_for(&selectors).is_empty() && !all.is_entitled(&selectors), "{named:?}");
        let ids: Vec<_> = all.hardware_entries_for(&selectors).iter().map(|terms| terms.id.as_str()).collect();
        assert_eq!(ids, ["a", "new"], "by entry ID, of a hint the oldest alone, and not what names nobody");
    }
    assert!(all.hardware_entries_for(&set(&["unix:uid:2"])).is_empty());
}
