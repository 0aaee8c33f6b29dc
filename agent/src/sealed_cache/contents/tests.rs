//! Contents as they were written, of older builds, and damaged.

use super::*;
use crate::agent_key::SoftwareKey;
use crate::server_answers::EntryFields;
use crate::trusted_time::{Keeper, Reading};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

fn trust_domain() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

fn bundle_and_svid() -> (Arc<TrustBundle>, WorkloadSvid) {
    let ca_key = KeyPair::generate().expect("key");
    let mut ca = CertificateParams::new(Vec::new()).expect("params");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.subject_alt_names = vec![SanType::URI("spiffe://td".try_into().expect("uri"))];
    let root = ca.self_signed(&ca_key).expect("root");
    let key = SoftwareKey::generate().expect("key");
    let mut leaf = CertificateParams::new(Vec::new()).expect("params");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.subject_alt_names = vec![SanType::URI("spiffe://td/w".try_into().expect("uri"))];
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, &ca_key)).expect("leaf");
    let id = SpiffeId::parse("spiffe://td/w").expect("legal");
    let svid = restored_workload_svid([&leaf.der()[..]], &id, key.pkcs8().clone(), Some(9)).expect("svid");
    let bundle = TrustBundle::new(&trust_domain(), [(&root.der()[..], true)]).expect("bundle");
    (Arc::new(bundle), svid)
}

fn terms(id: &str) -> EntryTerms {
    EntryTerms {
        server: ServerNumber::FIRST,
        id: id.to_owned(),
        spiffe_id: SpiffeId::parse("spiffe://td/w").expect("legal"),
        selectors: ["unix:uid:1", "unix:path:/bin/x"].map(|s| s.parse().expect("legal")).into_iter().collect(),
        hint: "internal".to_owned(),
        created_at: 5,
        revision_number: 6,
        on_demand: true,
        unique_tokens: Some(true),
        is_privileged: Some(true),
        federates_with: Some(vec![TrustDomain::new("other").expect("legal")]),
        certificate: Some(CertificateTerms {
            dns_names: vec!["w.example".to_owned()],
            ttl_seconds: 60,
            jwt_ttl_seconds: Some(30),
        }),
    }
}

fn now() -> Moment {
    let reading = Reading { boot: 100, kernel: 1_000 };
    Moment::new(Keeper::new(0, reading), reading)
}

/// With no other trust domain's bundle, synced at the beginning of time.
fn encoded(bundle: &TrustBundle, entries: &[(&EntryTerms, Option<&WorkloadSvid>)]) -> Vec<u8> {
    let (time, moment, federated) = (TimeRecord::default(), now(), FederatedBundles::default());
    let state = IdentitiesToCache {
        bundle,
        federated: &federated,
        synced_unix: 0,
        time: &time,
        moment: &moment,
        issuance_heads: &[],
    };
    encode_identities(state, entries.iter().copied()).to_vec()
}

#[test]
fn the_one_bound_of_an_older_version_is_read_back_as_a_claim() {
    let old = TimeMessage { unix: 77, ..TimeMessage::default() };
    assert_eq!(time_record(old), TimeRecord::of_an_unconfirmed_bound(77, None));
}

#[test]
fn identities_survive() {
    let (bundle, svid) = bundle_and_svid();
    let time = TimeRecord {
        confirmed: 7,
        tpm_clock: Some(TpmClock { clock_ms: 8, reset_count: 9 }),
        boot: Some(BootMark { id: "b".to_owned(), seconds: 11 }),
        claim: Some(12),
        kernel: Some(13),
    };
    let state = IdentitiesToCache {
        bundle: &bundle,
        federated: &FederatedBundles::default(),
        synced_unix: 10,
        time: &time,
        moment: &now(),
        issuance_heads: &[vec![7]],
    };
    let (with, without) = (terms("a"), terms("b"));
    let bytes = encode_identities(state, [(&with, Some(&svid)), (&without, None)].into_iter());
    assert_eq!(bytes.len(), bytes.capacity(), "the buffer never grew");
    let back = decode_identities(&bytes, &trust_domain()).expect("decoded");
    assert_eq!((back.bundle, back.synced_unix, back.time), (bundle, 10, time));
    assert_eq!(back.issuance_heads, [vec![7]]);
    assert_eq!(back.entries, [(with, Some(svid)), (without, None)]);
}

#[test]
fn bundles_of_other_trust_domains_survive_and_an_entry_of_an_older_version_is_asked_for_again() {
    let (bundle, _) = bundle_and_svid();
    let spki = SoftwareKey::generate().expect("key").spki_der().to_vec();
    let key = JwtKey { public_key: spki.into(), key_id: "k".to_owned(), ..JwtKey::default() };
    let wire = Bundle { trust_domain: "other".to_owned(), jwt_authorities: vec![key], ..Bundle::default() };
    let other = TrustDomain::new("other").expect("legal");
    let mut federated = FederatedBundles::default();
    assert!(federated.add(Arc::new(ForeignBundle::from_answer(&wire, &other).expect("a bundle"))));
    let (time, moment) = (TimeRecord::default(), now());
    let state = IdentitiesToCache {
        bundle: &bundle,
        federated: &federated,
        synced_unix: 0,
        time: &time,
        moment: &moment,
        issuance_heads: &[],
    };
    let bytes = encode_identities(state, [(&terms("a"), None)].into_iter());
    let back = decode_identities(&bytes, &trust_domain()).expect("decoded");
    assert_eq!((&back.federated, &back.entries[0].0), (&federated, &terms("a")));
    let mut older = IdentitiesMessage::decode(&bytes[..]).expect("a message");
    older.federated.clear();
    older.entries.iter_mut().for_each(|entry| entry.federates_with = None);
    let back = decode_identities(&older.encode_to_vec(), &trust_domain()).expect("decoded");
    let (entry, _) = &back.entries[0];
    assert!(
        back.federated.is_empty()
            && !entry.is_same_version(entry.revision_number, entry.created_at, EntryFields::Served)
    );
    assert!(entry.is_completed_by(&terms("a")));
    older.federated = vec![Bundle { refresh_hint: -1, ..wire }];
    assert!(decode_identities(&older.encode_to_vec(), &trust_domain()).is_err());
}

#[test]
fn keys_of_jwt_svids_survive_and_a_file_that_has_none_is_read_all_the_same() {
    let (bundle, _) = bundle_and_svid();
    let spki = SoftwareKey::generate().expect("key").spki_der().to_vec();
    let key = JwtKey { public_key: spki.into(), key_id: "k".to_owned(), expires_at: 9, tainted: true };
    let bundle = TrustBundle::clone(&bundle).with_jwt(&[key], 300);
    let bytes = encoded(&bundle, &[(&terms("a"), None)]);
    let back = decode_identities(&bytes, &trust_domain()).expect("decoded");
    assert_eq!(*back.bundle, bundle);
    assert!(back.bundle.jwt_authorities().find("k").is_some_and(|key| key.is_tainted()));

    let mut older = IdentitiesMessage::decode(&bytes[..]).expect("a message");
    (older.jwt_authorities, older.refresh_hint) = (Vec::new(), 0);
    older.entries.iter_mut().for_each(|entry| (entry.unique_tokens, entry.is_privileged) = (None, None));
    let back = decode_identities(&older.encode_to_vec(), &trust_domain()).expect("an older version's");
    assert!(back.bundle.jwt_authorities().is_empty());
    let (held, told) = (&back.entries[0].0, terms("a"));
    assert!(!held.is_same_version(held.revision_number, held.created_at, EntryFields::Served), "it is asked for again");
    assert!(held.is_completed_by(&told), "and its SVID is not replaced for that");
}

#[test]
fn refuses_content_of_another_trust_domain_and_rubbish() {
    let (bundle, svid) = bundle_and_svid();
    let bytes = encoded(&bundle, &[(&terms("a"), Some(&svid))]);
    let other = TrustDomain::new("other").expect("legal");
    let refusal = decode_identities(&bytes, &other).map(|_| ()).expect_err("of another trust domain").to_string();
    let told = format!(
        "it is of trust domain {}, and this agent's configuration says trust_domain = \"other\"",
        trust_domain()
    );
    assert_eq!(refusal, told);
    assert!(matches!(decode_identities(b"rubbish", &trust_domain()), Err(CacheRefusal::Content)));
    assert!(matches!(decode_identities(b"", &trust_domain()), Err(CacheRefusal::Content)));
}

#[test]
fn contents_survive_damage() {
    let (bundle, svid) = bundle_and_svid();
    let bytes = encoded(&bundle, &[(&terms("a"), Some(&svid))]);
    ironroot_fuzz::Target::new("sealed cache contents").seed(bytes.to_vec()).survives(|bytes| {
        let _ = (decode_identities(bytes, &trust_domain()), decode_record(bytes, &trust_domain()));
    });
}

#[test]
fn record_survives() {
    let record = AgentRecord {
        chain: vec![b"leaf".to_vec()],
        reattestable: true,
        bundle: Some(bundle_and_svid().0),
        time: Some(TimeRecord { confirmed: 3, claim: Some(4), ..TimeRecord::default() }),
        left: Some(5),
        attested_boot: "a-boot".into(),
        newest_authority: Some(6),
        disbelieved_since: Some(17),
        local_authority: Some(KeptAuthority { proof: vec![b"svid".to_vec(), b"ca".to_vec()], left: 6 }),
        local_jwt_key: Some(KeptJwtKey { key_id: "7".into(), span: Span { not_before: 1, not_after: 9 }, left: 8 }),
    };
    assert_eq!(decode_record(&encode_record(&record), &trust_domain()).expect("decoded"), record);
    assert!(matches!(decode_record(b"\xff", &trust_domain()), Err(CacheRefusal::Content)));
}
