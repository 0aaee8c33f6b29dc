//! BatchNewX509SVID from outside: whose names, in what order, in what form.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::svid::batch_new_x509svid_response::Result as Issued;
use ironroot_api::pb::svid::{BatchNewX509svidRequest, NewX509svidParams};
use ironroot_lab::deployment::{Server, ServerOptions, TRUST_DOMAIN};
use ironroot_lab::server_client::{Agent, ServerClient, SharedServer, csr, key};
use rcgen::{KeyPair, SanType};
use spki::SubjectPublicKeyInfoRef;
use spki::der::Decode;
use tonic::{Code, Status};
use webpki::KeyUsage;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, SubjectAltName};

static SERVER: SharedServer = SharedServer::new();

async fn lab() -> (Arc<Server>, ServerClient) {
    let server = SERVER.get(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    (server, client)
}

fn item(entry_id: &str, csr: Vec<u8>) -> NewX509svidParams {
    NewX509svidParams { entry_id: entry_id.to_owned(), csr: csr.into() }
}

async fn batch(agent: &Agent, params: Vec<NewX509svidParams>) -> Result<Vec<Issued>, Status> {
    let answer = agent.svids().batch_new_x509svid(BatchNewX509svidRequest { params }).await?;
    Ok(answer.into_inner().results)
}

async fn one(agent: &Agent, entry_id: &str, csr: Vec<u8>) -> (Certificate, i64) {
    let (svid, _, expires_at) = one_with_ca(agent, entry_id, csr).await;
    (svid, expires_at)
}

/// An SVID and the CA that signed it.
async fn one_with_ca(agent: &Agent, entry_id: &str, csr: Vec<u8>) -> (Certificate, Certificate, i64) {
    let mut results = batch(agent, vec![item(entry_id, csr)]).await.expect("answered");
    let svid = results.swap_remove(0).svid.expect("signed");
    let chain: Vec<_> = svid.cert_chain.iter().map(|der| Certificate::parse(der).expect("a certificate")).collect();
    let [leaf, ca] = &chain[..] else { panic!("{} certificates: leaf and CA, the root is left out", chain.len()) };
    (leaf.clone(), ca.clone(), svid.expires_at)
}

fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

fn now_unix() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

fn names(certificate: &Certificate) -> Vec<GeneralName> {
    let san = certificate.inner().tbs_certificate().get_extension::<SubjectAltName>().expect("parses");
    san.expect("present").1.0
}

async fn root(client: &ServerClient) -> Certificate {
    let bundle = BundleClient::new(client.anonymous().await).get_bundle(GetBundleRequest::default()).await;
    Certificate::parse(&bundle.expect("a bundle").into_inner().x509_authorities[0].asn1).expect("a certificate")
}

//= ID-13 X509-03 FLT-S12
#[tokio::test]
async fn names_come_from_the_entry_whatever_the_request_asks_for() {
    let (server, client) = lab().await;
    let agent = client.agent().await;
    let dns = ["-dns", "web.example.org", "-dns", "*.web.example.org"];
    let entry = server.create_entry(agent.id().as_str(), "/names/web", &["unix:uid:1"], &dns);
    let greedy = [
        SanType::URI(id("/spire/server").as_str().try_into().expect("ASCII")),
        SanType::URI("spiffe://other.example/x".try_into().expect("ASCII")),
        SanType::DnsName("bank.example".try_into().expect("ASCII")),
        SanType::IpAddress([127, 0, 0, 1].into()),
    ];
    let (svid, _) = one(&agent, &entry, csr(&key(), &greedy)).await;
    assert_eq!(svid.leaf_spiffe_id().expect("a leaf").as_str(), id("/names/web"));
    let found: Vec<String> = names(&svid)
        .iter()
        .map(|name| match name {
            GeneralName::DnsName(name) => name.to_string(),
            GeneralName::UniformResourceIdentifier(uri) => uri.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(found, ["web.example.org", "*.web.example.org", &id("/names/web")]);
    assert_eq!(svid.inner().tbs_certificate().subject().to_string(), "CN=web.example.org,O=SPIRE,C=US");
}

#[tokio::test]
async fn each_item_of_a_batch_has_its_own_status_in_the_order_asked() {
    let (server, client) = lab().await;
    let (agent, other) = (client.agent().await, client.agent().await);
    let mine = server.create_entry(agent.id().as_str(), "/order/mine", &["unix:uid:1"], &["-hint", "internal"]);
    let theirs = server.create_entry(other.id().as_str(), "/order/theirs", &["unix:uid:1"], &[]);
    let good = || csr(&key(), &[]);
    let mut spoiled = good();
    let last = spoiled.len() - 1;
    spoiled[last] ^= 1;
    let p521 = csr(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("a key"), &[]);
    let items = vec![
        item(&mine, good()),
        item("no-such-entry", good()),
        item(&theirs, good()),
        item(&mine, b"garbage".to_vec()),
        item(&mine, spoiled),
        item(&mine, p521),
        item("", good()),
        item(&mine, Vec::new()),
        item(&mine, good()),
    ];
    let results = batch(&agent, items).await.expect("the call itself succeeds");
    let codes: Vec<Code> = results.iter().map(|r| Code::from(r.status.as_ref().expect("a status").code)).collect();
    use Code::{InvalidArgument, NotFound, Ok};
    assert_eq!(
        codes,
        [Ok, NotFound, NotFound, InvalidArgument, InvalidArgument, InvalidArgument, NotFound, InvalidArgument, Ok]
    );
    for (code, result) in codes.iter().zip(&results) {
        assert_eq!(*code == Ok, result.svid.is_some());
    }
    let svid = results[0].svid.as_ref().expect("signed");
    assert_eq!((svid.hint.as_str(), svid.id.as_ref().expect("an ID").path.as_str()), ("internal", "/order/mine"));
    let (third, ninth) = (&results[0].svid, &results[8].svid);
    assert_ne!(third, ninth, "each has its own serial number");
}

#[tokio::test]
async fn a_batch_has_one_to_five_hundred_items() {
    let (server, client) = lab().await;
    let agent = client.agent().await;
    let entry = server.create_entry(agent.id().as_str(), "/batch/web", &["unix:uid:1"], &[]);
    let request = csr(&key(), &[]);
    let items = |count: usize| vec![item(&entry, request.clone()); count];
    for count in [0, 501, 2000] {
        let status = batch(&agent, items(count)).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{count}: {status}");
    }
    let results = batch(&agent, items(500)).await.expect("a full batch");
    let serials: std::collections::HashSet<String> = results
        .iter()
        .map(|result| Certificate::parse(&result.svid.as_ref().expect("signed").cert_chain[0]).expect("parses"))
        .map(|certificate| certificate.serial_decimal())
        .collect();
    assert_eq!((results.len(), serials.len()), (500, 500));
}

/// Source: SPIRE's certificate templates; X509-SVID.md; RFC 5280.
//= X509-01 X509-05 X509-08 X509-10 X509-12 X509-13
#[tokio::test]
async fn an_svid_has_the_profile_that_spire_gives_it() {
    let (server, client) = lab().await;
    let agent = client.agent().await;
    let entry = server.create_entry(agent.id().as_str(), "/profile/web", &["unix:uid:1"], &["-x509SVIDTTL", "600"]);
    let root = root(&client).await;
    for algorithm in
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256]
    {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let before = now_unix();
        let (svid, ca, expires_at) = one_with_ca(&agent, &entry, csr(&key, &[])).await;
        let after = now_unix();
        let tbs = svid.inner().tbs_certificate();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);

        assert_eq!(svid.spki_der(), spki, "the key is copied byte for byte");
        let serial = tbs.serial_number().as_bytes();
        let magnitude = serial.strip_prefix(&[0]).unwrap_or(serial);
        assert!(serial[0] & 0x80 == 0 && (9..=16).contains(&magnitude.len()), "serial {serial:x?}");
        assert!((before - 10..=after - 10).contains(&svid.not_before_unix()));
        assert!((before + 600..=after + 600).contains(&svid.not_after_unix()));
        assert_eq!(expires_at, svid.not_after_unix());
        assert_eq!(tbs.subject().to_string(), "O=SPIRE,C=US", "no DNS name, no common name");
        let usage = svid.key_usage().expect("key usage");
        assert!(usage.digital_signature() && usage.key_encipherment() && usage.key_agreement());
        assert!(!usage.key_cert_sign() && !usage.crl_sign() && !usage.non_repudiation() && !usage.data_encipherment());
        let (critical, constraints) = tbs.get_extension::<BasicConstraints>().expect("parses").expect("present");
        assert!(critical && !constraints.ca && constraints.path_len_constraint.is_none());
        let (critical, extended) = tbs.get_extension::<ExtendedKeyUsage>().expect("parses").expect("present");
        let extended: Vec<String> = extended.0.iter().map(ToString::to_string).collect();
        assert_eq!((critical, extended), (false, vec!["1.3.6.1.5.5.7.3.1".into(), "1.3.6.1.5.5.7.3.2".into()]));
        let bits = SubjectPublicKeyInfoRef::from_der(&spki).expect("a key").subject_public_key;
        let key_id = digest(&SHA1_FOR_LEGACY_USE_ONLY, bits.raw_bytes());
        assert_eq!(svid.subject_key_id().expect("present"), key_id.as_ref());
        assert_eq!(svid.authority_key_id(), ca.subject_key_id());
        assert_eq!(svid.authority_key_id().map(|id| id.len()), Some(20));
        assert_eq!(tbs.issuer(), ca.inner().tbs_certificate().subject());
        assert_eq!(ca.inner().tbs_certificate().issuer(), root.inner().tbs_certificate().subject());
        assert_eq!(ca.authority_key_id(), root.subject_key_id());
        for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
            client
                .anchors()
                .verify(svid.der(), std::slice::from_ref(ca.der()), usage, after)
                .expect("the bundle verifies it");
        }
    }
}

//= X509-20 FLT-S10 REG-12
#[tokio::test]
async fn no_svid_outlives_its_authority() {
    let (server, client) = lab().await;
    let agent = client.agent().await;
    let a_year = (366 * 86_400).to_string();
    let entry = server.create_entry(agent.id().as_str(), "/capped/web", &["unix:uid:1"], &["-x509SVIDTTL", &a_year]);
    let (svid, ca, expires_at) = one_with_ca(&agent, &entry, csr(&key(), &[])).await;
    let end = ca.not_after_unix();
    assert_eq!((svid.not_after_unix(), expires_at), (end, end));
    let usual = server.create_entry(agent.id().as_str(), "/capped/usual", &["unix:uid:1"], &[]);
    let (svid, _) = one(&agent, &usual, csr(&key(), &[])).await;
    assert!((svid.not_after_unix() - now_unix() - 3600).abs() < 60, "the server's default TTL is an hour");
}

#[tokio::test]
async fn an_entry_that_is_gone_or_has_ended_signs_nothing() {
    let (server, client) = lab().await;
    let agent = client.agent().await;
    let deleted = server.create_entry(agent.id().as_str(), "/gone/deleted", &["unix:uid:1"], &[]);
    let ended = server.create_entry(agent.id().as_str(), "/gone/ended", &["unix:uid:1"], &["-entryExpiry", "1000"]);
    one(&agent, &deleted, csr(&key(), &[])).await;
    server.cli(&["entry", "delete", "-entryID", &deleted]);
    let items = vec![item(&deleted, csr(&key(), &[])), item(&ended, csr(&key(), &[]))];
    for result in batch(&agent, items).await.expect("answered") {
        assert_eq!(Code::from(result.status.expect("a status").code), Code::NotFound);
        assert_eq!(result.svid, None);
    }
}
