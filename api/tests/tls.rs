//! Who is let in over TLS, and who is not.

use std::sync::Arc;

use ironroot_api::certificate::Certificate;
use ironroot_api::tls::{
    BundleEnd, ClientTrust, KeyExchanges, ServerTrust, SvidRefusal, SvidResolver, TrustAnchors, client_config,
    provider, server_config,
};
use ironroot_api::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConnection, HandshakeKind, ServerConnection};
use webpki::KeyUsage;

const DAY: i64 = 86_400;

struct Authority(Issuer<'static, KeyPair>, CertificateDer<'static>);

impl Authority {
    fn new(id: &str) -> Self {
        Self::with(id, Vec::new())
    }

    fn with(id: &str, extensions: Vec<CustomExtension>) -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(id)];
        params.custom_extensions = extensions;
        let der = params.self_signed(&key).expect("signed").der().clone();
        Self(Issuer::new(params, key), der)
    }

    fn issue(&self, id: &str) -> CertifiedKey {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri(id)];
        (params.not_before, params.not_after) = (at(-DAY), at(DAY));
        let der = params.signed_by(&key, &self.0).expect("signed").der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
        CertifiedKey::from_der(vec![der], key, &provider()).expect("key fits certificate")
    }
}

fn uri(id: &str) -> SanType {
    SanType::URI(id.try_into().expect("ascii"))
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

fn at(offset: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(now() + offset).expect("in range")
}

fn anchors(authority: &Authority) -> Arc<TrustAnchors> {
    TrustAnchors::new(TrustDomain::new("td").expect("td"), std::slice::from_ref(&authority.1)).expect("anchors")
}

fn handshake(
    client: Arc<rustls::ClientConfig>,
    server: Arc<rustls::ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let mut client = ClientConnection::new(client, ServerName::try_from("any.name").expect("name"))?;
    let mut server = ServerConnection::new(server)?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("to memory");
        server.read_tls(&mut bytes.as_slice()).expect("from memory");
        let served = server.process_new_packets();
        bytes.clear();
        server.write_tls(&mut bytes).expect("to memory");
        client.read_tls(&mut bytes.as_slice()).expect("from memory");
        client.process_new_packets()?;
        served?;
    }
    Ok((client, server))
}

fn expect_server(anchors: Arc<TrustAnchors>, id: &str) -> ServerTrust {
    ServerTrust::Bundle { anchors, expected: SpiffeId::parse(id).expect("id") }
}

//= X509-14 TDB-08 X509-07
#[test]
fn only_members_of_the_trust_domain_with_a_path_to_its_authority_are_verified() {
    let (ours, other) = (Authority::new("spiffe://td"), Authority::new("spiffe://td"));
    let anchors = anchors(&ours);
    let verify = |leaf: &CertifiedKey, when| anchors.verify(&leaf.cert[0], &[], KeyUsage::client_auth(), when);
    let good = ours.issue("spiffe://td/w");
    assert_eq!(verify(&good, now()).expect("verified").spiffe_id().as_str(), "spiffe://td/w");
    assert_eq!(verify(&good, now() + 2 * DAY), Err(SvidRefusal::Expired));
    assert_eq!(verify(&good, now() - 2 * DAY), Err(SvidRefusal::NotYetValid));
    assert!(matches!(verify(&other.issue("spiffe://td/w"), now()), Err(SvidRefusal::UnknownAuthority(_))));
    assert!(matches!(verify(&ours.issue("spiffe://else/w"), now()), Err(SvidRefusal::OtherTrustDomain(_))));
    assert!(matches!(verify(&ours.issue("spiffe://td"), now()), Err(SvidRefusal::Leaf(_))));
    assert!(matches!(anchors.verify(&ours.1, &[], KeyUsage::client_auth(), now()), Err(SvidRefusal::Leaf(_))));
    let long = vec![good.cert[0].clone(); 8];
    assert_eq!(anchors.verify(&good.cert[0], &long, KeyUsage::client_auth(), now()), Err(SvidRefusal::ChainTooLong));
    anchors.replace(std::slice::from_ref(&other.1)).expect("replaced");
    assert!(matches!(verify(&good, now()), Err(SvidRefusal::UnknownAuthority(_))));
}

/// permittedSubtrees with one URI. Source: RFC 5280 §4.2.1.10.
fn uris_of(host: &str) -> CustomExtension {
    let tagged = |tag: u8, content: Vec<u8>| {
        let length = u8::try_from(content.len()).expect("short");
        [vec![tag, length], content].concat()
    };
    let name = tagged(0x86, host.as_bytes().to_vec());
    let permitted = tagged(0xa0, tagged(0x30, name));
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], tagged(0x30, permitted));
    extension.set_criticality(true);
    extension
}

//= X509-09
#[test]
fn no_authority_signs_past_the_uris_that_it_is_constrained_to() {
    let verify = |authority: &Authority| {
        let leaf = authority.issue("spiffe://td/w");
        anchors(authority).verify(&leaf.cert[0], &[], KeyUsage::client_auth(), now())
    };
    assert!(verify(&Authority::with("spiffe://td", Vec::new())).is_ok());
    let refused = verify(&Authority::with("spiffe://td", vec![uris_of("else")]));
    assert!(matches!(refused, Err(SvidRefusal::Path(_))), "{refused:?}");
}

#[test]
fn who_is_signed_by_an_authority_outside_the_bundle_is_told_until_when_the_bundle_is_good() {
    let (ours, other) = (Authority::new("spiffe://td"), Authority::new("spiffe://td"));
    let anchors = anchors(&ours);
    let leaf = other.issue("spiffe://td/w");
    let said = |when| anchors.verify(&leaf.cert[0], &[], KeyUsage::client_auth(), when).unwrap_err().to_string();
    let end = Certificate::parse(&ours.1).expect("authority").not_after_unix();
    assert!(said(now()).contains("not in the trust bundle (its last certificate ends on "), "{}", said(now()));
    let old = BundleEnd { not_after_unix: Some(end), now_unix: end }.to_string();
    let date = ironroot_api::utc(end);
    assert!(old.contains(&format!("last certificate ended on {date}")) && old.contains("new one is needed"), "{old}");
    anchors.replace(&[]).expect("replaced");
    assert!(said(now()).contains("no trust bundle"), "{}", said(now()));
}

//= FLT-N3
#[test]
fn a_workload_of_the_trust_domain_cannot_pose_as_the_server() {
    let authority = Authority::new("spiffe://td");
    let anchors = anchors(&authority);
    let dial = |shown: &str| {
        let server = server_config(
            ClientTrust::new(anchors.clone()),
            SvidResolver::new(authority.issue(shown)),
            KeyExchanges::default(),
        );
        handshake(
            client_config(
                expect_server(anchors.clone(), "spiffe://td/spire/server"),
                SvidResolver::empty(),
                KeyExchanges::default(),
            ),
            server,
        )
    };
    dial("spiffe://td/spire/server").expect("the server is accepted");
    assert!(dial("spiffe://td/w").is_err());
}

//= TDB-08
#[test]
fn a_client_may_come_without_a_certificate_but_not_with_a_foreign_one() {
    let (ours, other) = (Authority::new("spiffe://td"), Authority::new("spiffe://td"));
    let anchors = anchors(&ours);
    let server = server_config(
        ClientTrust::new(anchors.clone()),
        SvidResolver::new(ours.issue("spiffe://td/spire/server")),
        KeyExchanges::default(),
    );
    let dial = |svid| {
        let trust = expect_server(anchors.clone(), "spiffe://td/spire/server");
        handshake(client_config(trust, svid, KeyExchanges::default()), server.clone())
            .map(|(_, s)| s.peer_certificates().is_some())
    };
    assert_eq!(dial(SvidResolver::empty()), Ok(false));
    assert_eq!(dial(SvidResolver::new(ours.issue("spiffe://td/spire/agent/x"))), Ok(true));
    assert!(dial(SvidResolver::new(other.issue("spiffe://td/spire/agent/x"))).is_err());
}

#[test]
fn a_client_is_known_by_what_its_own_handshake_verified_and_only_once() {
    let authority = Authority::new("spiffe://td");
    let (anchors, id) = (anchors(&authority), "spiffe://td/spire/agent/x");
    let clients = ClientTrust::new(anchors.clone());
    let server = server_config(
        clients.clone(),
        SvidResolver::new(authority.issue("spiffe://td/spire/server")),
        KeyExchanges::default(),
    );
    let trust = expect_server(anchors.clone(), "spiffe://td/spire/server");
    let client = client_config(trust, SvidResolver::new(authority.issue(id)), KeyExchanges::default());
    let (_, shaken) = handshake(client, server).expect("handshake");
    let chain = shaken.peer_certificates().expect("it showed one");
    // What is found anew needs authorities; what the handshake has found does not.
    anchors.replace(&[]).expect("no authorities");
    assert_eq!(clients.svid(chain, now()).expect("from the handshake").spiffe_id().as_str(), id);
    assert!(matches!(clients.svid(chain, now()), Err(SvidRefusal::UnknownAuthority(_))));
    assert!(clients.svid(&[], now()).is_err());
}

//= FLT-S14
#[test]
fn sessions_are_never_resumed() {
    let authority = Authority::new("spiffe://td");
    let anchors = anchors(&authority);
    let server = server_config(
        ClientTrust::new(anchors.clone()),
        SvidResolver::new(authority.issue("spiffe://td/spire/server")),
        KeyExchanges::default(),
    );
    let svid = SvidResolver::new(authority.issue("spiffe://td/spire/agent/x"));
    let client =
        client_config(expect_server(anchors.clone(), "spiffe://td/spire/server"), svid, KeyExchanges::default());
    for _ in 0..3 {
        let (client, server) = handshake(client.clone(), server.clone()).expect("handshake");
        assert_eq!(
            (client.handshake_kind(), server.handshake_kind()),
            (Some(HandshakeKind::Full), Some(HandshakeKind::Full))
        );
    }
    anchors.replace(&[]).expect("no authorities");
    assert!(handshake(client, server).is_err(), "a revoked authority ends what it let in");
}

#[test]
fn insecure_bootstrap_still_requires_the_servers_name() {
    let (ours, stranger) = (Authority::new("spiffe://td"), Authority::new("spiffe://td"));
    let dial = |shown: &str| {
        let server = server_config(
            ClientTrust::new(anchors(&ours)),
            SvidResolver::new(stranger.issue(shown)),
            KeyExchanges::default(),
        );
        let expected = SpiffeId::parse("spiffe://td/spire/server").expect("id");
        handshake(
            client_config(ServerTrust::InsecureBootstrap { expected }, SvidResolver::empty(), KeyExchanges::default()),
            server,
        )
    };
    dial("spiffe://td/spire/server").expect("first contact");
    assert!(dial("spiffe://td/w").is_err());
}

#[test]
fn a_certificate_without_its_key_proves_nothing_on_either_side() {
    let authority = Authority::new("spiffe://td");
    let anchors = anchors(&authority);
    let with_another_key = |id: &str| {
        let (stolen, other) = (authority.issue(id), authority.issue("spiffe://td/other"));
        SvidResolver::new(CertifiedKey::new(stolen.cert, other.key))
    };
    let honest = |id: &str| SvidResolver::new(authority.issue(id));
    let dial = |client, server| {
        let trust = expect_server(anchors.clone(), "spiffe://td/spire/server");
        handshake(
            client_config(trust, client, KeyExchanges::default()),
            server_config(ClientTrust::new(anchors.clone()), server, KeyExchanges::default()),
        )
        .map(drop)
    };
    let (client, server) = ("spiffe://td/spire/agent/x", "spiffe://td/spire/server");
    assert_eq!(dial(honest(client), honest(server)), Ok(()));
    let badly_signed = Err(rustls::Error::InvalidCertificate(CertificateError::BadSignature));
    assert_eq!(dial(honest(client), with_another_key(server)), badly_signed);
    assert!(dial(with_another_key(client), honest(server)).is_err());
}
