use ironroot_api::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::*;

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

/// A leaf for `id` that ends at `NOW + ttl`, and its key.
fn leaf(authority: &Authority, id: &str, ttl: i64) -> (CertificateDer<'static>, WorkloadKey) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = OffsetDateTime::from_unix_timestamp(NOW - 3600).expect("in range");
    params.not_after = OffsetDateTime::from_unix_timestamp(NOW + ttl).expect("in range");
    let certificate = params.signed_by(&key, &authority.issuer).expect("signs");
    (certificate.der().clone(), WorkloadKey::new(Zeroizing::new(key.serialize_der())))
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

fn parts<'a>(entry: &Entry<'_>, chain: &'a [CertificateDer<'a>], key: WorkloadKey) -> IdentityParts<'a> {
    IdentityParts {
        entry_id: entry.id.to_owned(),
        spiffe_id: td("td").id_with_path(entry.path).expect("legal"),
        selectors: set(entry.selectors),
        hint: entry.hint.to_owned(),
        created_at: entry.created_at,
        federates_with: Vec::new(),
        chain,
        key,
    }
}

fn identity(authority: &Authority, entry: &Entry<'_>) -> Arc<Identity> {
    let (certificate, key) = leaf(authority, &format!("spiffe://td{}", entry.path), entry.ttl);
    Arc::new(Identity::try_new(parts(entry, &[certificate], key)).expect("fits"))
}

fn bundle(authority: &Authority) -> Bundle {
    Bundle::try_new([&authority.der[..]], 7).expect("an authority")
}

fn snapshot(entries: &[Entry<'_>]) -> Identities {
    let authority = authority();
    let identities = entries.iter().map(|entry| identity(&authority, entry)).collect();
    Identities::try_new(td("td"), identities, bundle(&authority), BTreeMap::new()).expect("sound")
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

#[test]
fn order_is_by_age_and_entry_whatever_the_order_of_arrival() {
    let new = |id, created_at| Entry { id, created_at, ..ENTRY };
    let orders = [[new("c", 1), new("b", 2), new("a", 2)], [new("a", 2), new("c", 1), new("b", 2)]];
    for entries in orders {
        assert_eq!(served(&snapshot(&entries), &["unix:uid:1"], NOW), ["c", "a", "b"]);
    }
}

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
    assert_eq!(served(&identities, &["unix:uid:1"], NOW), ["z", "c", "m", "n"]);
    let identities = snapshot(&[Entry { ttl: 10, ..new("old", "x", 1) }, new("new", "x", 2)]);
    assert_eq!(served(&identities, &["unix:uid:1"], NOW + 20), [""; 0], "a hint does not pass to another identity");
}

#[test]
fn a_hint_that_another_workload_uses_too_is_no_duplicate() {
    let other = Entry { id: "other", hint: "x", created_at: 0, selectors: &["unix:uid:2"], ..ENTRY };
    let identities = snapshot(&[other, Entry { id: "mine", hint: "x", ..ENTRY }]);
    assert_eq!(served(&identities, &["unix:uid:1"], NOW), ["mine"]);
}

#[test]
fn refuses_parts_that_do_not_belong_together() {
    let authority = authority();
    let (certificate, key) = leaf(&authority, "spiffe://td/web", 60);
    let (other, other_key) = leaf(&authority, "spiffe://td/db", 60);
    let ca = CertificateDer::from(authority.der.clone());
    let refusal = |chain: &[CertificateDer<'_>], key: &WorkloadKey| {
        Identity::try_new(parts(&ENTRY, chain, key.clone())).expect_err("does not fit")
    };
    let no_key = WorkloadKey::new(Zeroizing::new(vec![1, 2, 3]));
    assert_eq!(refusal(&[], &key), IdentitiesError::NoCertificate("e".into()));
    assert_eq!(
        refusal(&[other], &other_key),
        IdentitiesError::OtherId { entry_id: "e".into(), found: "spiffe://td/db".into() }
    );
    assert_eq!(refusal(std::slice::from_ref(&certificate), &other_key), IdentitiesError::KeyMismatch("e".into()));
    assert_eq!(refusal(std::slice::from_ref(&certificate), &no_key), IdentitiesError::Key("e".into()));
    assert!(matches!(refusal(&[ca], &key), IdentitiesError::Certificate { .. }));
    assert!(matches!(refusal(&[certificate, vec![0x30].into()], &key), IdentitiesError::Certificate { .. }));
}

#[test]
fn refuses_snapshots_that_contradict_themselves() {
    let authority = authority();
    let one = identity(&authority, &ENTRY);
    let build =
        |name, identities| Identities::try_new(td(name), identities, bundle(&authority), BTreeMap::new()).map(drop);
    assert_eq!(build("td", vec![one.clone(), one.clone()]), Err(IdentitiesError::DuplicateEntry("e".into())));
    assert_eq!(build("other", vec![one]), Err(IdentitiesError::OtherTrustDomain("spiffe://td/web".into())));
    assert_eq!(Bundle::try_new([], 1), Err(IdentitiesError::EmptyBundle));
    assert!(matches!(Bundle::try_new([&b"x"[..]], 1), Err(IdentitiesError::Authority(_))));
}

#[test]
fn a_bundle_is_its_authorities_end_to_end() {
    let (a, b) = (authority(), authority());
    let bundle = Bundle::try_new([&a.der[..], &b.der[..]], 7).expect("two authorities");
    assert_eq!(bundle.concatenated(), &[&a.der[..], &b.der[..]].concat());
    assert_eq!((bundle.authorities(), bundle.sequence()), (&[a.der.into(), b.der.into()][..], 7));
}

#[test]
fn starting_is_a_snapshot_that_serves_nothing() {
    let identities = Identities::starting(td("td"));
    assert!(identities.bundle().is_none() && identities.for_selectors(&set(&["unix:uid:1"]), NOW).is_empty());
}

#[test]
fn a_key_does_not_show_in_debug_output() {
    let (_, key) = leaf(&authority(), "spiffe://td/web", 60);
    assert_eq!(format!("{key:?}"), "WorkloadKey(..)");
    let id = SpiffeId::parse("spiffe://td/web").expect("legal");
    assert!(!format!("{:?} {id}", identity(&authority(), &ENTRY)).contains(&format!("{:?}", key.pkcs8_der())));
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
            (nearest.identity.entry_id().to_owned(), lacks)
        });
        let expected = expected.map(|(n, lacks)| (ids[n].clone(), lacks.iter().map(ToString::to_string).collect()));
        assert_eq!(nearest, expected, "{has:?} among {entries:?}");
    }
}
