use ironroot_attest::node::x509pop::{AttestedCertificate, Holder, X509PopRefusal};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::super::Fault;
use super::super::agent_path::Kind;
use super::*;

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

/// An authority above several trust domains vouches for SVIDs of each: SPIRE does not look at which.
#[test]
fn an_svid_of_another_trust_domain_or_outside_the_prefix_is_not_exchanged() {
    let issuers = Issuers::TrustDomain { prefix: "/spire-exchange/".to_owned() };
    let trust_domain = TrustDomain::new("example.org").expect("legal");
    let exchanged = |uris: &[&str]| issuers.exchanged_path(attested(uris).0.certificate(), &trust_domain);
    let good = "SPIFFE://example.org/spire-exchange/a/b";
    let lower = "spiffe://example.org/spire-exchange/a/b";
    assert_eq!(exchanged(&["https://example.org/", lower]).expect("exchanged"), "a/b");
    let refused = |uris: &[&str]| exchanged(uris).expect_err("refused");
    assert!(matches!(refused(&["spiffe://other.org/spire-exchange/a"]), X509PopServerRefusal::TrustDomain(_)));
    assert!(matches!(refused(&["spiffe://example.org/spire/agent/x"]), X509PopServerRefusal::Prefix { .. }));
    for none in [&[][..], &["https://example.org/"], &["spiffe://example.org/a//b"], &[good]] {
        assert!(matches!(refused(none), X509PopServerRefusal::NoSpiffeId), "{none:?}");
    }
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
    for node in [X509PopRefusal::Signature.into(), X509PopServerRefusal::NoSpiffeId, X509PopServerRefusal::NoAddress] {
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
