//! ML-DSA (docs/hardware.md): CAs whose keys in a file are of it, and peers that verify what they sign. On a token: `scripts/substrates
//! ml-dsa`, since none that a package brings has it.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::sync::Arc;

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::svid::MintX509svidRequest;
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::pb::workload::X509svidResponse;
use ironroot_api::tls::{
    ClientTrust, KeyExchanges, ServerTrust, SvidResolver, TrustAnchors, client_config, provider, server_config,
};
use ironroot_api::{MlDsa, SpiffeId, TrustDomain};
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Keys, Server, ServerOptions, TRUST_DOMAIN as LAB, expect_within_async,
};
use ironroot_lab::mutual_tls::handshake;
use ironroot_lab::server_client::{ServerClient, csr};
use ironroot_lab::softhsm::SoftHsm;
use ironroot_lab::{jwt, workload_client};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ML_DSA_44, PKCS_ML_DSA_65, PKCS_ML_DSA_87, SanType,
    SignatureAlgorithm,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use serde_json::Value;
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
    for kind in ["ml-dsa-44", "ml-dsa-65", "ml-dsa-87"] {
        assert!(said.contains(&format!("no     {kind}")), "{said}");
    }
    assert!(said.contains("it offers no CKM_ML_DSA"), "{said}");
}

/// A server whose CAs and root have keys of ML-DSA, in a file.
fn server_with(kind: &str) -> Server {
    let server_lines = format!("ca_key_type = \"{kind}\"\nroot {{ enabled = true }}");
    Server::start(&ServerOptions { server_lines, keys: Keys::File, x509_svid_ttl: "10s", ..ServerOptions::default() })
}

/// A device with an entry for this process.
fn device_at(server: &Server) -> Device {
    let mut device = Device::without_tpm();
    let node = format!("spiffe://{LAB}/node");
    let token = server.cli(&["token", "generate", "-spiffeID", &node, "-output", "json"]);
    let token: Value = serde_json::from_str(&token).unwrap();
    server.create_entry(&node, "/w", &[&format!("unix:uid:{}", nix::unistd::geteuid())], &[]);
    let join_token = Some(token["value"].as_str().unwrap().to_owned());
    device.provision(server, &AgentOptions { join_token, key_manager: "disk", ..AgentOptions::default() });
    device.start();
    device
}

/// Until this process has an SVID that is not signed by `before`, the key identifier of a CA.
async fn svid_of(device: &Device, before: Option<&[u8]>) -> X509svidResponse {
    let mut found = None;
    expect_within_async(
        DEADLINE,
        "an SVID by the CA of now",
        || device.log(),
        async || {
            found = workload_client::fetch(&device.socket()).await.ok().filter(|svid| Some(&*signer(svid)) != before);
            found.is_some()
        },
    )
    .await;
    found.unwrap()
}

/// The key identifier of the CA that has signed it.
fn signer(message: &X509svidResponse) -> Vec<u8> {
    chain(message)[0].authority_key_id().unwrap()
}

fn chain(message: &X509svidResponse) -> Vec<Certificate> {
    Certificate::parse_concatenated(&message.svids[0].x509_svid).unwrap()
}

fn signed_with(certificate: &Certificate) -> Option<MlDsa> {
    MlDsa::of_oid(certificate.inner().signature_algorithm().oid)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_lives_with_keys_of_ml_dsa_and_agents_and_workloads_verify_what_it_signs() {
    for (kind, set) in [("ml-dsa-44", MlDsa::MlDsa44), ("ml-dsa-87", MlDsa::MlDsa87)] {
        let mut server = server_with(kind);
        let device = device_at(&server);
        let first = svid_of(&device, None).await;
        let signed: Vec<_> = chain(&first).iter().map(signed_with).collect();
        assert_eq!(signed, [Some(set); 2], "the SVID by its CA, the CA by its root");
        handshake(&first, &first).await.unwrap();

        // Killed, it finds its keys again; then the next CA takes over.
        server.kill();
        server.restart();
        let prepared: Value =
            serde_json::from_str(&server.cli(&["localauthority", "x509", "prepare", "-output", "json"])).unwrap();
        let next = prepared["prepared_authority"]["authority_id"].as_str().unwrap();
        server.cli(&["localauthority", "x509", "activate", "-authorityID", next]);
        let second = svid_of(&device, Some(&signer(&first))).await;
        assert_eq!(chain(&second).iter().map(signed_with).collect::<Vec<_>>(), [Some(set); 2]);
        handshake(&first, &second).await.unwrap();

        // Tokens stay on curves; other trust domains read the root.
        let token = server.cli(&["jwt", "mint", "-spiffeID", &format!("spiffe://{LAB}/job"), "-audience", "x"]);
        assert_eq!(jwt::parts(token.trim()).0["alg"], "ES256");
        let document: Value = serde_json::from_str(&server.cli(&["bundle", "show", "-format", "spiffe"])).unwrap();
        assert_eq!((&document["keys"][0]["kty"], &document["keys"][0]["alg"]), (&"AKP".into(), &set.name().into()));
        assert!(server.log().contains("heads of the issuance log are too long to be shown"), "{}", server.log());
    }
}

/// As RFC 9881 §5 wants them: such a key signs, and does nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn an_svid_for_a_key_of_ml_dsa_may_only_sign() {
    let server = server_with("ec-p256");
    let client = ServerClient::new(&server).await;
    let id = SanType::URI(format!("spiffe://{LAB}/web").try_into().unwrap());
    for kind in [&PKCS_ECDSA_P256_SHA256, &PKCS_ML_DSA_44, &PKCS_ML_DSA_65, &PKCS_ML_DSA_87] {
        let csr = csr(&KeyPair::generate_for(kind).unwrap(), std::slice::from_ref(&id));
        let asked = MintX509svidRequest { csr: csr.into(), ttl: 60 };
        let minted = SvidClient::new(client.admin().await).mint_x509svid(asked).await.unwrap().into_inner();
        let leaf = Certificate::parse(&minted.svid.unwrap().cert_chain[0]).unwrap();
        let usage = leaf.key_usage().unwrap();
        let is_classic = kind == &PKCS_ECDSA_P256_SHA256;
        assert!(usage.digital_signature());
        assert_eq!((usage.key_encipherment(), usage.key_agreement()), (is_classic, is_classic), "{kind:?}");
    }
}
