use ironroot_api::TrustDomain;
use ironroot_api::tls::provider;
use ironroot_shell::describe;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::super::{BundleSource, BundleSourceError, TrustBundleFormat};
use super::*;

/// A server of the web's for `localhost`, and the authority that it is of.
struct Web {
    roots: RootCertStore,
    config: Arc<ServerConfig>,
}

impl Web {
    fn new() -> Self {
        Self::valid((2020, 2090))
    }

    /// Its certificate from the beginning of one year to that of another.
    fn valid((from, until): (i32, i32)) -> Self {
        let (root_key, key) = (KeyPair::generate().expect("key"), KeyPair::generate().expect("key"));
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.distinguished_name.push(rcgen::DnType::CommonName, "An authority of the web");
        let mut roots = RootCertStore::empty();
        roots.add(root.self_signed(&root_key).expect("root").der().clone()).expect("an authority");
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("legal");
        (leaf.not_before, leaf.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(until, 1, 1));
        let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_no_client_auth();
        let config = config.with_single_cert(vec![leaf.der().clone()], key).expect("they fit");
        Self { roots, config: Arc::new(config) }
    }

    /// One that plays `answers`, one to each connection; the port that it listens on.
    async fn playing(&self, answers: Vec<String>) -> u16 {
        let (listener, acceptor) =
            (TcpListener::bind(("127.0.0.1", 0)).await.expect("a port"), TlsAcceptor::from(self.config.clone()));
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            for answer in answers {
                let Ok((tcp, _)) = listener.accept().await else { return };
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let _ = tls.read(&mut [0; 4096]).await;
                let _ = tls.write_all(answer.replace("PORT", &port.to_string()).as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        });
        port
    }

    async fn asked(&self, host: &str, answers: Vec<String>) -> Result<Bytes, WebError> {
        let port = self.playing(answers).await;
        let url = EndpointUrl::parse(&format!("https://{host}:{port}/td?a=b")).expect("a URL");
        follow(url, WebTrust::new(self.roots.clone(), &occasion(&TrustedTime::new()))?).await
    }
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

fn occasion(time: &TrustedTime) -> Occasion<'_> {
    static TD: std::sync::LazyLock<TrustDomain> = std::sync::LazyLock::new(trust_domain);
    Occasion {
        trust_domain: &TD,
        server: ("2001:db8::1", 8081),
        is_rebootstrap: true,
        attempts: 3,
        began_unix: 1_795_641_275,
        time,
        exchanges: KeyExchanges::default(),
    }
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn redirect(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_document_of_a_web_server_is_taken_only_if_that_proves_its_name_and_within_bounds() {
    let web = Web::new();
    assert_eq!(web.asked("localhost", vec![answer("a bundle")]).await.expect("proven"), "a bundle");
    let elsewhere = vec![redirect("/other"), redirect("https://localhost:PORT/more"), answer("there")];
    assert_eq!(web.asked("localhost", elsewhere).await.expect("followed"), "there");
    let refused = async |host: &str, answers: Vec<String>| describe(&web.asked(host, answers).await.expect_err("no"));
    assert!(refused("127.0.0.1", vec![answer("a bundle")]).await.contains("does not prove its name"));
    let unencrypted = refused("localhost", vec![redirect("http://localhost:PORT/td")]).await;
    assert!(unencrypted.contains("must use the https scheme"), "{unencrypted}");
    assert!(refused("localhost", vec![redirect("/td"); 9]).await.contains("redirects more than 3 times"));
    let long = answer(&" ".repeat(MAX_BUNDLE_BYTES + 1));
    assert!(refused("localhost", vec![long]).await.contains("more than 1048576 bytes"));
    let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned();
    assert!(refused("localhost", vec![missing]).await.contains("the status 404"));
    let stranger = Web { roots: Web::new().roots, config: web.config.clone() };
    let unproven = stranger.asked("localhost", vec![answer("a bundle")]).await.expect_err("another authority's");
    assert!(matches!(unproven, WebError::Tls(..)), "{unproven}");
    let nobody = Web { roots: RootCertStore::empty(), config: web.config.clone() };
    assert!(matches!(nobody.asked("localhost", vec![]).await, Err(WebError::NoWebAuthorities)));
}

#[tokio::test]
async fn a_device_whose_clock_is_behind_a_web_servers_certificate_goes_by_that_and_one_that_has_ended_is_refused() {
    let ahead = Web::valid((2080, 2090)).asked("localhost", vec![answer("a bundle")]).await;
    assert_eq!(ahead.expect("this device's clock is years behind"), "a bundle");
    let ended = Web::valid((2020, 2021)).asked("localhost", vec![answer("a bundle")]).await.expect_err("ended");
    let told = describe(&ended);
    assert!(matches!(ended, WebError::Tls(..)) && told.contains("expired"), "{told}");
}

#[tokio::test]
async fn a_program_behind_a_socket_is_told_what_spires_agent_tells_it() {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("b.sock");
    let listener = UnixListener::bind(&socket).expect("bound");
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("asked");
        let mut head = vec![0; 4096];
        let read = stream.read(&mut head).await.expect("a question");
        stream.write_all(answer("no PEM").as_bytes()).await.expect("answered");
        String::from_utf8_lossy(&head[..read]).into_owned()
    });
    let url = SocketUrl::parse("http://bundles/td?a=b#c").expect("legal");
    let source = BundleSource::Socket { url, socket, format: TrustBundleFormat::Pem };
    let time = TrustedTime::new();
    let refused = source.bundle(&occasion(&time)).await.expect_err("no bundle");
    assert!(matches!(refused, BundleSourceError::Pem(_)), "{refused}");
    let head = asked.await.expect("asked");
    // As Go's url.Values.Encode writes them; SPIRE has all in the order of their names.
    let line = "GET /td?a=b&spiffe-trust-domain=td&spire-attest-mode=rebootstrap&spire-attest-start-time=2026-11-25T21%3A14%3A35Z\
                &spire-connection-attempts=3&spire-server-address=2001%3Adb8%3A%3A1&spire-server-port=8081 HTTP/1.1\r\n";
    assert!(head.starts_with(line), "{head}");
    assert!(head.contains("host: bundles\r\n"), "{head}");
}

#[tokio::test]
async fn a_program_behind_a_socket_leads_nowhere_else() {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("b.sock");
    let listener = UnixListener::bind(&socket).expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("asked");
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(redirect("http://elsewhere/").as_bytes()).await;
    });
    let url = SocketUrl::parse("http://bundles/").expect("legal");
    let refused = fetch_over(&socket, &url, &occasion(&TrustedTime::new())).await.expect_err("a redirect");
    assert!(matches!(&refused, WebError::RedirectOfASocket(place) if place.ends_with("b.sock")), "{refused}");
}

#[tokio::test]
async fn where_nobody_listens_it_is_said_who_was_to_be_asked() {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("nobody.sock");
    let time = TrustedTime::new();
    let url = SocketUrl::parse("http://bundles/").expect("legal");
    for source in [
        BundleSource::Socket { url, socket: socket.clone(), format: TrustBundleFormat::Pem },
        BundleSource::WorkloadApi { socket: socket.clone() },
    ] {
        let told = describe(&source.bundle(&occasion(&time)).await.expect_err("nobody"));
        assert!(told.starts_with("the trust bundle could not be fetched: ") && told.contains("nobody.sock"), "{told}");
    }
}
