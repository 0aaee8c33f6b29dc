//! How far ML-DSA goes (docs/hardware.md): what verifies is there, what signs in a token is not.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::sync::Arc;

use ironroot_api::certificate::Certificate;
use ironroot_api::tls::{
    ClientTrust, KeyExchanges, ServerTrust, SvidResolver, TrustAnchors, client_config, provider, server_config,
};
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_lab::softhsm::SoftHsm;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ML_DSA_65, SanType, SignatureAlgorithm,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const ID: &str = "spiffe://example.org/web";

/// A CA with an ML-DSA-65 key, and an SVID of this kind below it.
fn pair(leaf_kind: &'static SignatureAlgorithm) -> (Certificate, CertifiedKey) {
    let key = KeyPair::generate_for(&PKCS_ML_DSA_65).unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.subject_alt_names = vec![SanType::URI("spiffe://example.org".try_into().unwrap())];
    let root = ca.self_signed(&key).unwrap();
    let leaf_key = KeyPair::generate_for(leaf_kind).unwrap();
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name = DistinguishedName::new();
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
    let svid = leaf.signed_by(&leaf_key, &Issuer::new(ca, key)).unwrap();
    let private = PrivateKeyDer::Pkcs8(leaf_key.serialize_der().into());
    let certified = CertifiedKey::from_der(vec![svid.der().clone()], private, &provider()).unwrap();
    (Certificate::parse(root.der()).unwrap(), certified)
}

async fn meet(root: &Certificate, svid: &CertifiedKey) -> usize {
    let anchors = || TrustAnchors::new(TrustDomain::new("example.org").unwrap(), &[root.der().clone()]).unwrap();
    let shown = || SvidResolver::new(svid.clone());
    let trust = ServerTrust::Bundle { anchors: anchors(), expected: SpiffeId::parse(ID).unwrap() };
    let accepts = server_config(ClientTrust::new(anchors()), shown(), KeyExchanges::default());
    let dials = client_config(trust, shown(), KeyExchanges::default());
    let (one, other) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("workload").unwrap();
    let (accepted, dialled) = tokio::join!(
        TlsAcceptor::from(accepts).accept(one),
        TlsConnector::from(Arc::clone(&dials)).connect(name, other)
    );
    dialled.unwrap();
    accepted.unwrap().get_ref().1.peer_certificates().unwrap()[0].len()
}

#[tokio::test]
async fn peers_of_ours_verify_what_a_ca_with_an_ml_dsa_key_has_signed() {
    for (kind, least_bytes) in [(&PKCS_ECDSA_P256_SHA256, 3_309), (&PKCS_ML_DSA_65, 3_309 + 1_952)] {
        let (root, svid) = pair(kind);
        let bytes = meet(&root, &svid).await;
        assert!(bytes > least_bytes, "an SVID below an ML-DSA-65 key has {bytes} bytes");
        println!("an SVID with a key of {kind:?} below an ML-DSA-65 CA: {bytes} bytes");
    }
}

/// When this fails, SoftHSM has learnt it: then the kind of key can be tried in the gate.
#[test]
fn the_token_of_the_gate_has_no_ml_dsa() {
    let hsm = SoftHsm::new();
    let (module, server) =
        (SoftHsm::module_path().display().to_string(), ironroot_lab::deployment::binary("ironroot-server"));
    let said = hsm.run(server.to_str().unwrap(), &["hsm", "probe", "-module", &module]);
    assert!(said.contains("no     ML-DSA") && said.contains("it offers no CKM_ML_DSA"), "{said}");
}
