use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use time::OffsetDateTime;

use super::*;

/// When the SVID begins, UNIX seconds.
const BEGIN: i64 = 1_800_000_000;
/// How long it lasts, seconds.
const LIFE: i64 = 3600;

fn at(unix: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix).expect("a date")
}

fn params(uri: &str, key_usage: KeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
    params.key_usages = vec![key_usage];
    (params.not_before, params.not_after) = (at(BEGIN), at(BEGIN + LIFE));
    params
}

/// An agent's answer: one SVID, of a root that is as young.
fn answer() -> X509svidResponse {
    let (root_key, key) = (KeyPair::generate().expect("key"), KeyPair::generate().expect("key"));
    let mut root = params("spiffe://td", KeyUsagePurpose::KeyCertSign);
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let bundle = root.self_signed(&root_key).expect("root").der().to_vec();
    let mut leaf = params("spiffe://td/w", KeyUsagePurpose::DigitalSignature);
    leaf.is_ca = IsCa::ExplicitNoCa;
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&root, &root_key)).expect("leaf").der().to_vec();
    let svid = X509svid {
        spiffe_id: "spiffe://td/w".to_owned(),
        x509_svid: leaf.into(),
        x509_svid_key: key.serialize_der().into(),
        bundle: bundle.into(),
        ..X509svid::default()
    };
    X509svidResponse { svids: vec![svid], ..X509svidResponse::default() }
}

#[test]
fn a_clock_that_is_right_is_not_spoken_of() {
    for now in [BEGIN, BEGIN + LIFE - 1] {
        let svids = WorkloadSvids::verified(&answer(), now).expect("valid");
        assert_eq!(svids.early_clock(now), "");
    }
}

#[test]
fn what_begins_after_this_machines_clock_is_shown_and_the_clock_is_named() {
    for now in [0, BEGIN - 86_400, BEGIN - 1] {
        let svids = WorkloadSvids::verified(&answer(), now).expect("the clock is wrong, not the SVID");
        assert!(svids.describe(Duration::ZERO).contains("spiffe://td/w"));
        let said = svids.early_clock(now);
        assert!(said.contains(&format!("clock shows {}", utc(now))) && said.contains(&utc(BEGIN)), "{said}");
    }
}

#[test]
fn what_another_authority_signed_is_refused_by_an_early_clock_too() {
    let mut forged = answer();
    forged.svids[0].bundle = answer().svids[0].bundle.clone();
    let refused = WorkloadSvids::verified(&forged, 0).expect_err("not of this authority").message();
    assert!(refused.contains("is signed by an authority that is not in the trust bundle"), "{refused}");
}

#[test]
fn what_ended_before_this_machines_clock_is_refused_with_both_times() {
    let now = BEGIN + LIFE + 1;
    let refused = WorkloadSvids::verified(&answer(), now).expect_err("it has ended").message();
    assert!(
        refused.contains(&utc(BEGIN + LIFE)) && refused.contains(&format!("clock shows {}", utc(now))),
        "{refused}"
    );
}
