//! Fetching bundles from endpoints that are honest, wrong or hostile: over real sockets, and within bounds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ironroot_api::bundle::{DocumentError, MAX_DOCUMENT_BYTES};
use ironroot_api::tls::{KeyExchanges, SvidResolver, TrustAnchors, provider, web_server_config};
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_server::bundle_client::FetchError;
use ironroot_server::bundle_client::fetch::{DEADLINE, EndpointProof, MAX_REDIRECTS, fetch};
use ironroot_server::facts::federation::{EndpointProfile, EndpointUrl, FederationRelationship, UrlError};
use ironroot_server::federation::{Federation, FederationError, FetchedBundle, TakenIn};
use ironroot_server::store::Store;
use ironroot_shell::web::WebQuestionError;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256, SanType,
};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const ENDPOINT: &str = "spiffe://other.test/spire/server";

/// An authority, and a certificate of its for an endpoint.
struct Pki {
    authority: CertificateDer<'static>,
    resolver: Arc<SvidResolver>,
}

impl Pki {
    /// For an X509-SVID of that ID, or for `localhost`.
    fn new(spiffe_id: Option<&str>) -> Self {
        let (ca_key, key) = (KeyPair::generate().expect("key"), KeyPair::generate().expect("key"));
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = ca.self_signed(&ca_key).expect("root").der().clone();
        let mut leaf = CertificateParams::default();
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        leaf.subject_alt_names = match spiffe_id {
            Some(id) => vec![SanType::URI(id.try_into().expect("ASCII"))],
            None => vec![SanType::DnsName("localhost".try_into().expect("ASCII"))],
        };
        let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).expect("signed").der().clone();
        let key = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let certified = CertifiedKey::from_der(vec![leaf], key, &provider()).expect("a pair");
        Self { authority, resolver: SvidResolver::new(certified) }
    }

    fn spiffe_proof(&self) -> EndpointProof {
        let id = SpiffeId::parse(ENDPOINT).expect("legal");
        EndpointProof::spiffe(id, std::slice::from_ref(&self.authority), KeyExchanges::default()).expect("an authority")
    }

    fn web_proof(&self) -> EndpointProof {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).expect("an authority");
        EndpointProof::web_with(roots, KeyExchanges::default()).expect("roots")
    }
}

/// What an endpoint says once it has read a request.
#[derive(Clone)]
enum Play {
    /// These bytes, and the end.
    Says(String),
    /// A good head, and then a byte now and then for ever.
    Drips,
    /// A good head that promises too much, and nothing else.
    Promises(usize),
    /// A body without a length and without an end.
    Floods,
    /// Nothing at all.
    IsSilent,
}

impl Play {
    fn document(text: &str) -> Self {
        Self::Says(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()))
    }

    fn redirect(to: &str) -> Self {
        Self::Says(format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"))
    }

    async fn perform(&self, mut tls: TlsStream<TcpStream>) -> std::io::Result<()> {
        let mut request = vec![0; 4096];
        let _ = tls.read(&mut request).await?;
        match self {
            Self::Says(text) => tls.write_all(text.as_bytes()).await?,
            Self::Promises(bytes) => {
                tls.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n").as_bytes()).await?;
            }
            Self::Drips => {
                tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await?;
                loop {
                    tls.write_all(b" ").await?;
                    tls.flush().await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Self::Floods => {
                tls.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await?;
                loop {
                    tls.write_all(&[b' '; 16 * 1024]).await?;
                }
            }
            Self::IsSilent => std::future::pending().await,
        }
        tls.shutdown().await
    }
}

/// An endpoint that plays `play` to everybody; its port.
async fn endpoint(pki: &Pki, play: impl Fn(u16) -> Play) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (tls, play) = (TlsAcceptor::from(web_server_config(pki.resolver.clone(), KeyExchanges::default())), play(port));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, play) = (tls.clone(), play.clone());
            tokio::spawn(async move {
                if let Ok(tls) = tls.accept(tcp).await {
                    let _ = play.perform(tls).await;
                }
            });
        }
    });
    port
}

fn url(port: u16) -> EndpointUrl {
    EndpointUrl::parse(&format!("https://localhost:{port}/bundle")).expect("legal")
}

/// What one fetch comes to, well within the test's patience.
async fn outcome(pki: &Pki, play: impl Fn(u16) -> Play) -> Result<usize, FetchError> {
    let port = endpoint(pki, play).await;
    fetch(&url(port), &pki.spiffe_proof(), DEADLINE).await.map(|bytes| bytes.len())
}

//= FED-06 FED-10 FED-11
#[tokio::test]
async fn an_endpoint_is_proven_by_its_id_or_by_its_name_and_in_no_other_way() {
    let document = |_| Play::document("{\"keys\":[]}");
    let (spiffe, web) = (Pki::new(Some(ENDPOINT)), Pki::new(None));
    let (by_id, by_name) = (endpoint(&spiffe, document).await, endpoint(&web, document).await);
    assert_eq!(fetch(&url(by_id), &spiffe.spiffe_proof(), DEADLINE).await.expect("proven"), "{\"keys\":[]}");
    assert_eq!(fetch(&url(by_name), &web.web_proof(), DEADLINE).await.expect("proven"), "{\"keys\":[]}");
    let other_id = Pki::new(Some("spiffe://other.test/workload"));
    let other_domain = Pki::new(Some("spiffe://third.test/spire/server"));
    for (port, proof) in [
        (endpoint(&other_id, document).await, other_id.spiffe_proof()),
        (endpoint(&other_domain, document).await, other_domain.spiffe_proof()),
        (by_id, Pki::new(Some(ENDPOINT)).spiffe_proof()),
        (by_name, Pki::new(None).web_proof()),
        (by_id, spiffe.web_proof()),
        (by_name, web.spiffe_proof()),
    ] {
        let refused = fetch(&url(port), &proof, DEADLINE).await.expect_err("not proven");
        assert!(matches!(refused, FetchError::Tls(..)), "{refused:?}");
    }
    let by_address = EndpointUrl::parse(&format!("https://127.0.0.1:{by_name}/")).expect("legal");
    let refused = fetch(&by_address, &web.web_proof(), DEADLINE).await.expect_err("its certificate is for a name");
    assert!(matches!(refused, FetchError::Tls(..)), "{refused:?}");
    assert!(matches!(
        EndpointProof::web_with(RootCertStore::empty(), KeyExchanges::default()),
        Err(FetchError::NoWebAuthorities)
    ));
}

//= FED-08 FED-14 FLT-S17
#[tokio::test]
async fn each_way_in_which_an_endpoint_is_hostile_costs_a_named_bound() {
    let pki = Pki::new(Some(ENDPOINT));
    let at_most = MAX_DOCUMENT_BYTES;
    assert_eq!(outcome(&pki, |_| Play::document(&" ".repeat(at_most))).await.expect("just as long"), at_most);
    assert!(matches!(
        outcome(&pki, |_| Play::document(&" ".repeat(at_most + 1))).await,
        Err(FetchError::Answer(_, WebQuestionError::TooLong(_)))
    ));
    assert!(matches!(outcome(&pki, |_| Play::Floods).await, Err(FetchError::Answer(_, WebQuestionError::TooLong(_)))));
    assert!(matches!(
        outcome(&pki, |_| Play::Promises(10)).await,
        Err(FetchError::Answer(_, WebQuestionError::BrokenOff(_)))
    ));
    let not_found = Play::Says("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into());
    let status = outcome(&pki, |_| not_found.clone()).await.expect_err("refused");
    assert_eq!(status.to_string(), "unexpected status 404 fetching bundle");
    assert!(matches!(
        outcome(&pki, |_| Play::Says("SSH-2.0\r\n\r\n".into())).await,
        Err(FetchError::Answer(_, WebQuestionError::Http(_)))
    ));
    let long_head = Play::Says(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024)));
    assert!(matches!(
        outcome(&pki, |_| long_head.clone()).await,
        Err(FetchError::Answer(_, WebQuestionError::Http(_)))
    ));
    for (to, why) in [
        ("http://localhost/", UrlError::Scheme),
        ("https://user@localhost/", UrlError::UserInfo),
        ("//localhost/", UrlError::Scheme),
        ("gopher", UrlError::Scheme),
    ] {
        let refused = outcome(&pki, |_| Play::redirect(to)).await.expect_err("refused");
        assert!(matches!(&refused, FetchError::Redirect(found) if found.0 == why), "{to}: {refused:?}");
    }
    let nowhere = Play::Says("HTTP/1.1 301 Moved\r\ncontent-length: 0\r\n\r\n".into());
    assert!(matches!(outcome(&pki, |_| nowhere.clone()).await, Err(FetchError::RedirectNowhere)));
    assert!(matches!(outcome(&pki, |_| Play::redirect("/again")).await, Err(FetchError::TooManyRedirects)));
    assert_eq!(MAX_REDIRECTS, 3);
    let unused = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port").local_addr().expect("bound").port();
    let refused = fetch(&url(unused), &pki.spiffe_proof(), DEADLINE).await.expect_err("nobody is there");
    assert!(matches!(refused, FetchError::Connect(..)), "{refused:?}");
}

//= FED-14
#[tokio::test]
async fn an_endpoint_that_drips_or_says_nothing_is_left_at_the_deadline() {
    let pki = Pki::new(Some(ENDPOINT));
    assert_eq!(DEADLINE, Duration::from_secs(10));
    for play in [Play::Drips, Play::IsSilent] {
        let port = endpoint(&pki, |_| play.clone()).await;
        let (since, deadline) = (Instant::now(), Duration::from_millis(300));
        let late = fetch(&url(port), &pki.spiffe_proof(), deadline).await.expect_err("late");
        assert!(matches!(late, FetchError::Late(of) if of == deadline), "{late:?}");
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    }
}

//= FED-08
#[tokio::test]
async fn a_redirect_is_followed_to_where_the_same_proof_holds() {
    let (pki, stranger) = (Pki::new(Some(ENDPOINT)), Pki::new(Some(ENDPOINT)));
    let target = endpoint(&pki, |_| Play::document("{\"keys\":[]}")).await;
    let to = |port: u16| move |_: u16| Play::redirect(&format!("https://localhost:{port}/"));
    assert_eq!(outcome(&pki, to(target)).await.expect("followed"), 11);
    let elsewhere = endpoint(&stranger, |_| Play::document("{\"keys\":[]}")).await;
    assert!(matches!(outcome(&pki, to(elsewhere)).await, Err(FetchError::Tls(..))));
}

#[tokio::test]
async fn what_goes_wrong_where_an_issuers_keys_are_fetched_names_them_and_no_bundle() {
    let (pki, stranger) = (Pki::new(Some(ENDPOINT)), Pki::new(Some(ENDPOINT)));
    let not_found = Play::Says("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into());
    let (missing, elsewhere) = (not_found.clone(), Play::redirect("http://localhost/"));
    for (place, play, told) in [
        (&pki, missing, "unexpected status 404 fetching keys of an issuer"),
        (&stranger, not_found, "is not proven to be the issuer's web server"),
        (&pki, elsewhere, "it redirects to where nothing is fetched from: URL must use the https scheme"),
    ] {
        let port = endpoint(place, |_| play.clone()).await;
        let refused = fetch(&url(port), &pki.spiffe_proof().of_issuer(), DEADLINE).await.expect_err("refused");
        let said = ironroot_shell::describe(&refused);
        assert!(said.contains(told) && !said.contains("bundle"), "{said}");
    }
}

fn relationship() -> FederationRelationship {
    FederationRelationship {
        trust_domain: TrustDomain::new("other.test").expect("legal"),
        url: url(1),
        profile: EndpointProfile::HttpsWeb,
    }
}

fn fetched(text: &str) -> FetchedBundle {
    FetchedBundle::read(&relationship(), text.as_bytes()).expect("a document")
}

async fn federation(directory: &tempfile::TempDir) -> Federation {
    let own = TrustDomain::new("example.org").expect("legal");
    let store = Store::open(&directory.path().join("datastore.sqlite3"), &own).expect("opens");
    Federation::load_beside(store, vec![relationship()]).await.expect("loads")
}

//= FED-04 FED-05 TDB-04
#[tokio::test]
async fn a_fetched_bundle_takes_the_place_of_an_older_one_and_never_of_a_newer() {
    let directory = tempfile::tempdir().expect("directory");
    let federation = federation(&directory).await;
    let take = async |text: &str| federation.take_in(fetched(text)).await;
    let new = TakenIn::New { passed_over: 0, is_empty: true };
    assert_eq!(take(r#"{"keys":[],"spiffe_sequence":5}"#).await.expect("the first"), new);
    assert_eq!(take(r#"{"keys":[],"spiffe_sequence":5}"#).await.expect("again"), TakenIn::Same);
    assert_eq!(take(r#"{"keys":[],"spiffe_sequence":7}"#).await.expect("newer"), new);
    let older = take(r#"{"keys":[],"spiffe_sequence":6}"#).await.expect_err("it went back");
    assert!(matches!(older, FederationError::WentBack { held: 7, found: 6 }), "{older}");
    let held = || federation.bundle(&relationship().trust_domain).expect("held");
    // Leaving the number out is no way back.
    for without in [r#"{"keys":[],"spiffe_sequence":0}"#, r#"{"keys":[],"spiffe_refresh_hint":60}"#] {
        let told = take(without).await.expect_err("it has counted").to_string();
        assert!(told.contains("went back from 7 to none") && told.contains("bundle delete"), "{told}");
    }
    assert_eq!(held().sequence_number(), 7);
}

#[tokio::test]
async fn of_a_trust_domain_that_does_not_count_the_last_bundle_counts() {
    let directory = tempfile::tempdir().expect("directory");
    let federation = federation(&directory).await;
    let take = async |text: &str| federation.take_in(fetched(text)).await;
    let held = || federation.bundle(&relationship().trust_domain).expect("held");
    take(r#"{"keys":[]}"#).await.expect("the first");
    let uncounted = take(r#"{"keys":[{"use":"new"}],"spiffe_refresh_hint":60}"#).await.expect("uncounted");
    assert_eq!(uncounted, TakenIn::New { passed_over: 1, is_empty: true });
    assert_eq!((held().sequence_number(), held().refresh_hint_seconds()), (0, 60));
    let nonsense = FetchedBundle::read(&relationship(), b"<html>").expect_err("no document");
    assert!(matches!(nonsense, DocumentError::Json(_)));
}

/// The bundle of a mesh: the RSA root that it has made itself, which has no ID and no key ID, and the certificate of a workload. Source:
/// Istio, pkg/spiffe/spiffe_test.go (`validSpiffeX509Bundle`) and security/pkg/pki/ca (`NewSelfSignedIstioCAOptions`).
fn of_a_mesh(workload: &str) -> (String, CertificateDer<'static>) {
    let (root_key, key) = (KeyPair::generate_for(&PKCS_RSA_SHA256).expect("key"), KeyPair::generate().expect("key"));
    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::OrganizationName, "cluster.local");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = root.self_signed(&root_key).expect("root").der().clone();
    let mut leaf = CertificateParams::default();
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf.subject_alt_names = vec![SanType::URI(workload.try_into().expect("ASCII"))];
    // RSAPublicKey of 2,048 bits: SEQUENCE (4 bytes of header), INTEGER n (4 bytes, a zero, 256 bytes), INTEGER e.
    let modulus = URL_SAFE_NO_PAD.encode(&root_key.public_key_raw()[9..265]);
    let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).expect("signed").der().clone();
    let document = serde_json::json!({
        "spiffe_sequence": 1,
        "spiffe_refresh_hint": 450_000,
        "keys": [{ "kty": "RSA", "use": "x509-svid", "n": modulus, "e": "AQAB", "x5c": [STANDARD.encode(&authority)] }],
    });
    (document.to_string(), leaf)
}

#[tokio::test]
async fn the_bundle_of_a_mesh_as_istio_writes_it_is_fetched_by_its_web_name_and_its_workloads_are_believed() {
    let (document, workload) = of_a_mesh("spiffe://other.test/ns/default/sa/httpbin");
    let web = Pki::new(None);
    let port = endpoint(&web, |_| Play::document(&document)).await;
    let fetched = fetch(&url(port), &web.web_proof(), DEADLINE).await.expect("fetched");
    let directory = tempfile::tempdir().expect("directory");
    let federation = federation(&directory).await;
    let taken = federation.take_in(FetchedBundle::read(&relationship(), &fetched).expect("a bundle")).await;
    assert_eq!(taken.expect("the first"), TakenIn::New { passed_over: 0, is_empty: false });
    let bundle = federation.bundle(&relationship().trust_domain).expect("held");
    assert_eq!((bundle.sequence_number(), bundle.refresh_hint_seconds()), (1, 450_000));
    let roots: Vec<_> = bundle.x509_authorities().map(|der| CertificateDer::from(der.to_vec())).collect();
    let anchors = TrustAnchors::new(relationship().trust_domain, &roots).expect("authorities");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    anchors.verify(&workload, &[], webpki::KeyUsage::server_auth(), now.cast_signed()).expect("one of its workloads");
}
