use super::*;
use crate::agent_key::{SoftwareKey, WorkloadKey};
use crate::trusted_time::{TrustedTime, system_unix};
use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use time::OffsetDateTime;

/// A trust domain in a test: one authority.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
    certificate: Certificate,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.subject_alt_names = vec![uri("spiffe://td")];
        let certificate = params.self_signed(&key).expect("root");
        Self { params, key, certificate }
    }

    fn bundle(&self) -> TrustBundle {
        TrustBundle::new(&trust_domain(), [(&self.certificate.der()[..], false)]).expect("bundle")
    }

    fn leaf(&self, key: &SoftwareKey, id: &str, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.subject_alt_names = vec![uri(id)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        params.not_before = at(-10);
        params.not_after = at(3600);
        change(&mut params);
        params.signed_by(key, &Issuer::from_params(&self.params, &self.key)).expect("leaf").der().to_vec()
    }
}

fn at(seconds_from_now: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(system_unix() + seconds_from_now).expect("a date")
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

fn answer(path: &str, chain: Vec<Vec<u8>>) -> types::X509svid {
    types::X509svid {
        cert_chain: chain.into_iter().map(Into::into).collect(),
        id: Some(types::Spiffeid { trust_domain: "td".to_owned(), path: path.to_owned() }),
        ..types::X509svid::default()
    }
}

fn workload(answer: &types::X509svid, key: &SoftwareKey, bundle: &TrustBundle) -> Result<WorkloadSvid, AnswerRefusal> {
    let expected = SpiffeId::parse("spiffe://td/w").expect("legal");
    workload_svid(answer, &expected, key, bundle, &TrustedTime::new())
}

fn agent(answer: &types::X509svid, key: &SoftwareKey, bundle: &TrustBundle) -> Result<AgentSvid, AnswerRefusal> {
    agent_svid(answer, key.spki_der(), bundle, &TrustedTime::new())
}

#[test]
fn takes_an_honest_svid_with_its_chain() {
    let (authority, key) = (Authority::new(), SoftwareKey::generate().expect("key"));
    let leaf = authority.leaf(&key, "spiffe://td/w", |_| ());
    let svid = workload(&answer("/w", vec![leaf]), &key, &authority.bundle()).expect("taken");
    assert_eq!((svid.spiffe_id().as_str(), svid.chain().len()), ("spiffe://td/w", 1));
    assert!((svid.lifetime().span().not_after - system_unix() - 3600).abs() <= 2);
    assert_eq!(format!("{svid:?}").matches("key").count(), 0, "no key in debug output");
}

//= FLT-A25
#[test]
fn refuses_each_false_svid_by_its_name() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (key, other_key) = (SoftwareKey::generate().expect("key"), SoftwareKey::generate().expect("key"));
    let bundle = authority.bundle();
    let refusal = |answer: types::X509svid| workload(&answer, &key, &bundle).expect_err("refused");
    let leaf = |id: &str| authority.leaf(&key, id, |_| ());

    assert!(matches!(refusal(answer("/w", vec![])), AnswerRefusal::Missing(_)));
    assert!(matches!(refusal(answer("/w", vec![b"x".to_vec()])), AnswerRefusal::Certificate(_)));
    assert!(matches!(refusal(answer("/w", vec![leaf("spiffe://td/v")])), AnswerRefusal::OtherId { .. }));
    assert!(matches!(refusal(answer("/v", vec![leaf("spiffe://td/w")])), AnswerRefusal::OtherId { .. }));
    assert!(matches!(refusal(answer("v", vec![leaf("spiffe://td/w")])), AnswerRefusal::SpiffeId(_)));
    let foreign = vec![leaf("spiffe://other/w")];
    assert!(matches!(refusal(answer("/w", foreign)), AnswerRefusal::Svid(SvidRefusal::OtherTrustDomain(_))));
    let other_key = vec![authority.leaf(&other_key, "spiffe://td/w", |_| ())];
    assert!(matches!(refusal(answer("/w", other_key)), AnswerRefusal::OtherKey));
    let unknown = vec![other.leaf(&key, "spiffe://td/w", |_| ())];
    assert!(matches!(refusal(answer("/w", unknown)), AnswerRefusal::Svid(SvidRefusal::UnknownAuthority(_))));
    let never = vec![authority.leaf(&key, "spiffe://td/w", |p| p.not_after = at(-20))];
    assert!(matches!(refusal(answer("/w", never)), AnswerRefusal::NeverValid));
    let ca = vec![authority.leaf(&key, "spiffe://td/w", |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))];
    assert!(matches!(refusal(answer("/w", ca)), AnswerRefusal::Svid(SvidRefusal::Leaf(_))));
    let long = vec![leaf("spiffe://td/w"); 20];
    assert!(matches!(refusal(answer("/w", long)), AnswerRefusal::TooMany { what: "certificates", .. }));
}

#[test]
fn a_clock_that_agreed_with_the_server_disputes_what_is_not_valid_now() {
    let (authority, key) = (Authority::new(), SoftwareKey::generate().expect("key"));
    let (time, bundle) = (TrustedTime::new(), authority.bundle());
    let expected = SpiffeId::parse("spiffe://td/w").expect("legal");
    let is_disputed = |from, to| {
        let leaf = authority.leaf(&key, "spiffe://td/w", |p| (p.not_before, p.not_after) = (at(from), at(to)));
        let answer = answer("/w", vec![leaf]);
        let svid = workload_svid(&answer, &expected, &key, &bundle, &time).expect("taken");
        svid.lifetime().is_disputed()
    };
    assert!(!is_disputed(-86_400, -82_800), "nobody has confirmed the clock yet");
    assert!(!is_disputed(120, 3600), "a few minutes of skew are no reason");
    assert!(is_disputed(-86_400, -82_800));
    assert!(is_disputed(3000, 6600));
    assert!(!is_disputed(-10, 3590), "they agree again");
}

#[test]
fn an_old_chain_teaches_no_time() {
    let (authority, key) = (Authority::new(), SoftwareKey::generate().expect("key"));
    let (time, other) = (TrustedTime::new(), SoftwareKey::generate().expect("key"));
    let leaf = authority.leaf(&key, "spiffe://td/w", |p| (p.not_before, p.not_after) = (at(9_000_000), at(9_003_600)));
    let expected = SpiffeId::parse("spiffe://td/w").expect("legal");
    let taken = workload_svid(&answer("/w", vec![leaf]), &expected, &other, &authority.bundle(), &time);
    assert!(matches!(taken, Err(AnswerRefusal::OtherKey)));
    assert!((time.now_unix() - system_unix()).abs() <= 1);
}

#[test]
fn an_agents_certificate_names_an_agent() {
    let (authority, key) = (Authority::new(), SoftwareKey::generate().expect("key"));
    let bundle = authority.bundle();
    let leaf = |id: &str| vec![authority.leaf(&key, id, |_| ())];
    let path = "/spire/agent/tpm2/x";
    let taken = agent(&answer(path, leaf("spiffe://td/spire/agent/tpm2/x")), &key, &bundle).expect("taken");
    assert_eq!((taken.spiffe_id.path(), &taken.spki_der[..]), (path, key.spki_der()));
    for path in ["/w", "/spire/server", "/spire/agents/x", "/spire/agent"] {
        let refused = agent(&answer(path, leaf(&format!("spiffe://td{path}"))), &key, &bundle);
        assert!(matches!(refused, Err(AnswerRefusal::NotAnAgent(_))), "{path}");
    }
    let other = SoftwareKey::generate().expect("key");
    let refused = agent(&answer(path, leaf("spiffe://td/spire/agent/tpm2/x")), &other, &bundle);
    assert!(matches!(refused, Err(AnswerRefusal::OtherKey)));
}

//= TDB-04 TDB-08
#[test]
fn refuses_each_false_bundle_by_its_name() {
    let authority = Authority::new();
    let der = authority.certificate.der().to_vec();
    let bundle = |name: &str, ders: Vec<Vec<u8>>| {
        let authorities = ders.into_iter().map(|der| types::X509Certificate { asn1: der.into(), tainted: false });
        let answer = types::Bundle {
            trust_domain: name.to_owned(),
            x509_authorities: authorities.collect(),
            ..types::Bundle::default()
        };
        TrustBundle::from_answer(&answer, &trust_domain())
    };
    assert!(bundle("td", vec![der.clone()]).is_ok());
    assert!(bundle("spiffe://td", vec![der.clone()]).is_ok(), "either way of writing a trust domain");
    assert!(matches!(bundle("td", vec![]), Err(AnswerRefusal::EmptyBundle)));
    assert!(matches!(bundle("other", vec![der.clone()]), Err(AnswerRefusal::OtherTrustDomain(_))));
    assert!(matches!(bundle("td", vec![der.clone(), b"x".to_vec()]), Err(AnswerRefusal::Authority(_))));
    assert!(matches!(bundle("td", vec![der; 257]), Err(AnswerRefusal::TooMany { what: "authorities", .. })));
    let leaf = authority.leaf(&SoftwareKey::generate().expect("key"), "spiffe://td/w", |_| ());
    assert!(matches!(bundle("td", vec![leaf]), Err(AnswerRefusal::NotAnAuthority)));
}

#[test]
fn a_taint_changes_the_bundle_and_what_counts_as_sound() {
    let (old, new) = (Authority::new(), Authority::new());
    let ders = [old.certificate.der().to_vec(), new.certificate.der().to_vec()];
    let bundle =
        |tainted| TrustBundle::new(&trust_domain(), [(&ders[0][..], tainted), (&ders[1][..], false)]).expect("bundle");
    assert!(bundle(false) != bundle(true));
    let key = SoftwareKey::generate().expect("key");
    let leaf = old.leaf(&key, "spiffe://td/w", |_| ());
    let bundle = bundle(true);
    workload(&answer("/w", vec![leaf.clone()]), &key, &bundle).expect("tainted authorities count until they are gone");
    let usage = webpki::KeyUsage::client_auth();
    assert!(bundle.untainted_anchors().verify(&leaf.into(), &[], usage, system_unix()).is_err());
}

#[test]
fn a_stored_svid_is_taken_up_only_with_its_own_key_and_for_its_entry() {
    let authority = Authority::new();
    let (key, other) = (SoftwareKey::generate().expect("key"), SoftwareKey::generate().expect("key"));
    let expected = SpiffeId::parse("spiffe://td/w").expect("legal");
    let leaf = authority.leaf(&key, "spiffe://td/w", |_| ());
    let restored = |chain: &[&[u8]], key: &WorkloadKey| {
        restored_workload_svid(chain.iter().copied(), &expected, key.clone(), Some(60)).map(drop)
    };
    assert!(restored(&[&leaf], key.pkcs8()).is_ok());
    assert!(matches!(restored(&[], key.pkcs8()), Err(AnswerRefusal::Missing(_))));
    assert!(matches!(restored(&[&leaf], other.pkcs8()), Err(AnswerRefusal::OtherKey)));
    let no_key = WorkloadKey::new(zeroize::Zeroizing::new(vec![1, 2, 3]));
    assert!(matches!(restored(&[&leaf], &no_key), Err(AnswerRefusal::Key)));
    let foreign = authority.leaf(&key, "spiffe://td/v", |_| ());
    assert!(matches!(restored(&[&foreign], key.pkcs8()), Err(AnswerRefusal::OtherId { .. })));
    let ca = authority.certificate.der().to_vec();
    assert!(matches!(restored(&[&ca], key.pkcs8()), Err(AnswerRefusal::Certificate(_))));
    assert!(matches!(restored(&[&leaf, &[0x30]], key.pkcs8()), Err(AnswerRefusal::Certificate(_))));
    assert_eq!(format!("{:?}", key.pkcs8()), "WorkloadKey(..)");
}

#[test]
fn a_bundle_is_its_authorities_end_to_end() {
    let (a, b) = (Authority::new(), Authority::new());
    let ders = [a.certificate.der().to_vec(), b.certificate.der().to_vec()];
    let bundle = TrustBundle::new(&trust_domain(), ders.iter().map(|der| (&der[..], false))).expect("two");
    assert_eq!(bundle.concatenated(), &ders.concat());
    assert!(bundle.authorities().map(|der| der.to_vec()).eq(ders));
}

#[test]
fn an_entry_says_whether_its_svid_waits_to_be_asked_for_and_a_strange_friend_costs_it_nothing() {
    use types::entry::AdditionalAttributes;
    let entry = |change: fn(&mut types::Entry)| {
        let mut entry = types::Entry {
            id: "e".to_owned(),
            spiffe_id: Some(types::Spiffeid { trust_domain: "td".to_owned(), path: "/w".to_owned() }),
            selectors: vec![types::Selector { r#type: "unix".to_owned(), value: "uid:1".to_owned() }],
            ..types::Entry::default()
        };
        change(&mut entry);
        EntryTerms::from_answer(&entry, &trust_domain(), EntryFields::Served).expect("good").expect("served")
    };
    fn attributes(on: bool) -> Option<AdditionalAttributes> {
        Some(AdditionalAttributes { disable_x509_svid_prefetch: on, ..Default::default() })
    }
    assert!(!entry(|_| ()).on_demand);
    assert!(entry(|e| e.additional_attributes = attributes(true)).on_demand);
    assert!(!entry(|e| e.additional_attributes = attributes(false)).on_demand);
}
