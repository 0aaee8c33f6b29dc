use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair,
    KeyUsagePurpose, NameConstraints, SanType,
};

use super::*;

/// 2030 and 2035, UNIX seconds: the years in which issuers here are valid.
const BEGIN: i64 = 1_893_456_000;
const END: i64 = 2_051_222_400;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (at(BEGIN), at(END));
    change(&mut params);
    params
}

fn at(unix: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(unix).expect("in range")
}

fn key() -> KeyPair {
    KeyPair::generate().expect("key")
}

fn root(change: impl FnOnce(&mut CertificateParams)) -> Authority {
    CertifiedIssuer::self_signed(authority("root", change), key()).expect("signed")
}

fn issuer(root: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Authority {
    CertifiedIssuer::signed_by(authority("issuer", change), key(), root).expect("signed")
}

/// Good for longer than its issuer.
fn leaf(issuer: &Authority) -> Certificate {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = vec![SanType::URI("spiffe://td/w".try_into().expect("ascii"))];
    (params.not_before, params.not_after) = (at(BEGIN - 1000), at(END + 1000));
    Certificate::parse(params.signed_by(&key(), issuer).expect("signed").der()).expect("parsed")
}

fn anchors(root: &Authority) -> Arc<TrustAnchors> {
    let trust_domain = TrustDomain::new("td").expect("legal");
    TrustAnchors::new(trust_domain, std::slice::from_ref(root.der())).expect("anchors")
}

fn verify(anchors: &TrustAnchors, leaf: &Certificate, shown: &Authority, when: i64) -> Result<(), SvidRefusal> {
    let others = std::slice::from_ref(shown.der());
    anchors.verify_parsed(leaf, others, KeyUsage::client_auth(), when).map(drop)
}

fn remembers(anchors: &TrustAnchors) -> bool {
    anchors.authorities.load().issuer.load().is_some()
}

/// With an issuer that a path led over, and without the authorities that it led to: each path is refused, what is remembered is not.
fn that_only_remember(anchors: &TrustAnchors) -> TrustAnchors {
    let remembered = anchors.authorities.load().issuer.load_full();
    let authorities = Authorities { anchors: Vec::new(), last_end_unix: None, issuer: ArcSwapOption::from(remembered) };
    TrustAnchors { trust_domain: anchors.trust_domain.clone(), authorities: ArcSwap::from_pointee(authorities) }
}

#[test]
fn an_issuer_is_verified_once_and_each_leaf_below_it_every_time() {
    let root = root(|_| ());
    let (ours, impostor) = (issuer(&root, |_| ()), issuer(&self::root(|_| ()), |_| ()));
    let anchors = anchors(&root);
    assert_eq!(verify(&anchors, &leaf(&ours), &ours, BEGIN), Ok(()));
    let remembering = that_only_remember(&anchors);
    assert_eq!(verify(&remembering, &leaf(&ours), &ours, BEGIN), Ok(()), "its issuer is not verified again");
    for anchors in [&*anchors, &remembering] {
        let theirs = leaf(&impostor);
        let refused = |shown| matches!(verify(anchors, &theirs, shown, BEGIN), Err(SvidRefusal::UnknownAuthority(_)));
        assert!(refused(&ours), "another key's signature below the issuer");
        assert!(refused(&impostor), "another issuer of the same name");
    }
    assert_eq!(verify(&anchors, &leaf(&ours), &ours, END), Ok(()), "a refusal forgets nothing");
}

#[test]
fn an_issuer_that_is_remembered_ends_when_it_ends() {
    let root = root(|root| root.not_after = at(END + 1000));
    let (ours, anchors) = (issuer(&root, |_| ()), anchors(&root));
    assert_eq!(verify(&anchors, &leaf(&ours), &ours, BEGIN), Ok(()));
    assert_eq!(verify(&anchors, &leaf(&ours), &ours, END + 1), Err(SvidRefusal::Expired));
    assert_eq!(verify(&anchors, &leaf(&ours), &ours, BEGIN - 1), Err(SvidRefusal::NotYetValid));
}

#[test]
fn an_issuer_goes_with_the_bundle_that_it_led_to() {
    let (root, other) = (root(|_| ()), self::root(|_| ()));
    let (ours, anchors) = (issuer(&root, |_| ()), anchors(&root));
    assert_eq!(verify(&anchors, &leaf(&ours), &ours, BEGIN), Ok(()));
    assert!(remembers(&anchors));
    anchors.replace(std::slice::from_ref(other.der())).expect("replaced");
    assert!(!remembers(&anchors));
    assert!(matches!(verify(&anchors, &leaf(&ours), &ours, BEGIN), Err(SvidRefusal::UnknownAuthority(_))));
}

#[test]
fn an_issuer_is_remembered_for_the_usage_that_it_was_verified_for() {
    let root = root(|_| ());
    let ours = issuer(&root, |issuer| issuer.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let (anchors, leaf) = (anchors(&root), leaf(&ours));
    assert_eq!(verify(&anchors, &leaf, &ours, BEGIN), Ok(()));
    let others = std::slice::from_ref(ours.der());
    let as_server = anchors.verify_parsed(&leaf, others, KeyUsage::server_auth(), BEGIN);
    assert!(matches!(as_server, Err(SvidRefusal::Path(_))), "{as_server:?}");
}

//= X509-09
#[test]
fn no_issuer_is_remembered_below_an_authority_that_constrains_names_or_below_another_issuer() {
    let names = NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("td".into())],
        excluded_subtrees: Vec::new(),
    };
    let constrained = root(|root| root.name_constraints = Some(names));
    let below = issuer(&constrained, |_| ());
    let anchors = anchors(&constrained);
    assert_eq!(verify(&anchors, &leaf(&below), &below, BEGIN), Ok(()));
    assert!(!remembers(&anchors));

    let root = root(|_| ());
    let upper = CertifiedIssuer::signed_by(authority("upper", |_| ()), key(), &root).expect("signed");
    let lower = issuer(&upper, |_| ());
    let anchors = self::anchors(&root);
    let others = [lower.der().clone(), upper.der().clone()];
    anchors.verify_parsed(&leaf(&lower), &others, KeyUsage::client_auth(), BEGIN).expect("a path of three");
    assert!(!remembers(&anchors));
}

#[test]
fn what_was_verified_is_believed_for_as_long_as_its_authority_is_in_the_bundle() {
    let (root, other) = (root(|_| ()), self::root(|_| ()));
    let (ours, anchors) = (issuer(&root, |_| ()), anchors(&root));
    let verified = || {
        let others = std::slice::from_ref(ours.der());
        anchors.verify_parsed(&leaf(&ours), others, KeyUsage::client_auth(), BEGIN).expect("a path")
    };
    // By the path, and by the issuer that it remembers.
    let (first, second) = (verified(), verified());
    assert!(remembers(&anchors) && anchors.still_believe(&first) && anchors.still_believe(&second));
    anchors.replace(&[other.der().clone(), root.der().clone()]).expect("replaced");
    assert!(anchors.still_believe(&first) && anchors.still_believe(&second));
    anchors.replace(std::slice::from_ref(other.der())).expect("replaced");
    assert!(!anchors.still_believe(&first) && !anchors.still_believe(&second), "it was revoked");
}

#[test]
fn a_leaf_names_the_authority_whose_key_signed_it_and_no_other_that_was_shown() {
    let root = root(|_| ());
    let upper = issuer(&root, |_| ());
    let lower = issuer(&upper, |_| ());
    let mark = |authority: &Authority| {
        AuthorityMark::of_certificate(&Certificate::parse(authority.der()).expect("parsed")).expect("a CA")
    };
    let anchors = anchors(&root);
    let both = [lower.der().clone(), upper.der().clone()];
    let signer = |leaf: &Certificate, others: &[_]| {
        anchors.verify_parsed(leaf, others, KeyUsage::client_auth(), BEGIN).expect("a path").signer()
    };
    // Twice: by the path, and by the issuer that it remembers.
    for _ in 0..2 {
        assert_eq!(signer(&leaf(&upper), &both[1..]), mark(&upper));
    }
    assert_eq!(signer(&leaf(&lower), &both), mark(&lower));
    assert_eq!(signer(&leaf(&upper), &both), mark(&upper), "whatever else is shown");
    assert_eq!(signer(&leaf(&root), &both), mark(&root), "an authority of the bundle has signed it");
}
