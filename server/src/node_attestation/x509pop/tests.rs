use ironroot_api::certificate::Certificate;
use ironroot_api::tls::AuthorityMark;
use ironroot_attest::node::x509pop::{AttestedCertificate, Holder, X509PopRefusal};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::super::Fault;
use super::super::agent_path::Kind;
use super::*;
use crate::rights::{OwnAuthorities, Provenance};

/// What has attested with a certificate of these URIs, and the authority that issued it, DER.
fn attested(uris: &[&str]) -> (AttestedCertificate, Vec<u8>) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let [ca_key, key] = [(); 2].map(|()| KeyPair::generate().expect("key"));
    let root = ca.self_signed(&ca_key).expect("signed").der().to_vec();
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let uri = |uri: &&str| SanType::URI((*uri).try_into().expect("a URI"));
    params.subject_alt_names = uris.iter().map(uri).collect();
    let leaf = params.signed_by(&key, &Issuer::new(ca, ca_key)).expect("signed").der().to_vec();
    let holder = Holder::new(vec![leaf], &PrivatePkcs8KeyDer::from(key.serialize_der()).into()).expect("its key");
    let evidence = x509pop::Evidence::from_json(&holder.evidence()).expect("a message");
    let own = Authorities::from_der(std::slice::from_ref(&root)).expect("an authority");
    let (pending, challenge) = evidence
        .verify(&own, &SizeLimits::default(), 1_796_083_200)
        .expect("trusted")
        .challenge([1; 32], 1_796_083_200);
    let answer = holder.respond(&challenge.to_json(), [2; 32]).expect("answers");
    (pending.complete(&answer, 1_796_083_200).expect("attested"), root)
}

/// A certificate of these URIs, and the authority that issued it, DER. What has an SVID's profile is one.
fn issued(uris: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let [ca_key, key] = [(); 2].map(|()| KeyPair::generate().expect("key"));
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = ca.self_signed(&ca_key).expect("signed").der().to_vec();
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("a URI"))).collect();
    (params.signed_by(&key, &Issuer::new(ca, ca_key)).expect("signed").der().to_vec(), root)
}

/// An authority above several trust domains vouches for SVIDs of each: SPIRE does not look at which.
//= FLT-S26
#[test]
fn what_is_exchanged_is_an_svid_of_the_trust_domain_below_the_prefix_from_an_own_ca_and_no_banned_agent() {
    let issuers = Issuers::TrustDomain { prefix: "/spire-exchange/".to_owned() };
    let trust_domain = TrustDomain::new("example.org").expect("legal");
    let exchanged = |uris: &[&str], is_own: bool, is_through_banned: bool| {
        let (leaf, root) = issued(uris);
        let own = OwnAuthorities::default();
        let mark = AuthorityMark::of_certificate(&Certificate::parse(&root).expect("parses")).expect("a CA");
        own.replace(is_own.then_some(mark));
        let provenance = Provenance { own: &own, is_through_banned_agent: &|_| is_through_banned };
        let at = Circumstances { now_unix: 1_796_083_200, address: None, own_authorities: &[root], provenance };
        issuers.exchanged(&[leaf], &trust_domain, &at)
    };
    let good = "spiffe://example.org/spire-exchange/a/b";
    let svid = exchanged(&[good], true, false).expect("exchanged").expect("an SVID");
    assert!(svid.path == "a/b" && !svid.serial.is_empty());
    let refused = |uris: &[&str]| exchanged(uris, true, false).expect_err("refused");
    assert!(matches!(refused(&["spiffe://example.org/spire/agent/x"]), X509PopServerRefusal::Prefix { .. }));
    let two = [good, "https://example.org/"];
    let other = ["spiffe://other.org/spire-exchange/a"];
    for none in [&[][..], &["https://example.org/"], &two, &["spiffe://example.org/a//b"], &other] {
        assert!(matches!(refused(none), X509PopServerRefusal::NoSvid(_)), "{none:?}");
    }
    let elsewhere = exchanged(&[good], false, false);
    assert!(matches!(elsewhere, Err(X509PopServerRefusal::SignedElsewhere)), "{elsewhere:?}");
    let banned = exchanged(&[good], true, true);
    assert!(matches!(banned, Err(X509PopServerRefusal::ThroughBannedAgent)), "{banned:?}");
}

#[test]
fn in_mode_spiffe_the_authorities_of_the_moment_count() {
    let issuers = Issuers::TrustDomain { prefix: "/".to_owned() };
    let (_, root) = attested(&[]);
    assert!(issuers.authorities(&[root]).is_ok());
    assert!(matches!(issuers.authorities(&[b"no DER".to_vec()]), Err(X509PopServerRefusal::OwnAuthorities(_))));
}

#[test]
fn what_cannot_be_read_is_the_messages_fault_and_the_rest_the_nodes() {
    let message = X509PopServerRefusal::from(X509PopRefusal::KeySize { bits: 9000, most: 8192 });
    assert!(matches!(message.fault(), Fault::Message));
    for node in
        [X509PopRefusal::Signature.into(), X509PopServerRefusal::SignedElsewhere, X509PopServerRefusal::NoAddress]
    {
        assert!(matches!(node.fault(), Fault::Node), "{node}");
    }
}

#[test]
fn each_field_that_a_template_may_name_has_a_value() {
    let (attested, _) = attested(&["x509pop://example.org/rack/r1"]);
    let trust_domain = TrustDomain::new("example.org").expect("legal");
    for (name, kind) in X509POP_FIELDS {
        let name = if *kind == Kind::Map { format!("{name}.rack") } else { (*name).to_owned() };
        assert!(agent_fields::value(&name, attested.certificate(), &trust_domain, "path").is_some(), "{name}");
    }
    assert_eq!(agent_fields::value("URISanSelectors.row", attested.certificate(), &trust_domain, ""), None);
}
