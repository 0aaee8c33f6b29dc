//! Certificates of the web's that the server has from a real ACME server (pebble), and from one that is hostile.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_api::bundle::Bundle;
use ironroot_api::tls::{ACME_TLS_ALPN, KeyExchanges, provider};
use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN, expect_within, free_port};
use ironroot_lab::pebble::{Pebble, expect_shown, shown};
use ironroot_lab::stand_in_web::{StandInWeb, answer};
use ironroot_lab::web_certificate::WebCertificate;
use ironroot_server::bundle_client::fetch::{DEADLINE as FETCH_DEADLINE, EndpointProof, fetch};
use ironroot_server::facts::federation::EndpointUrl;

/// As CAs of the web issue for.
const NINETY_DAYS: u32 = 90 * 24 * 3600;

fn options(server_lines: String, authority: PathBuf) -> ServerOptions {
    let environment = vec![("SSL_CERT_FILE".to_owned(), authority)];
    ServerOptions { server_lines, environment, ..Default::default() }
}

/// A bundle endpoint that has its certificate for `name` from the CA at `directory_url`.
fn endpoint(port: u16, name: &str, directory_url: &str) -> String {
    format!(
        "federation {{ bundle_endpoint {{ address = \"127.0.0.1\" port = {port} profile \"https_web\" {{ acme {{
            domain_name = \"{name}\" email = \"admin@example.org\" tos_accepted = true directory_url = \"{directory_url}\"
        }} }} }} }}"
    )
}

/// Where the server keeps what that CA gave it.
fn kept(server: &Server, pebble: &Pebble) -> PathBuf {
    let port = pebble.directory_url().rsplit(':').next().and_then(|rest| rest.strip_suffix("/dir").map(str::to_owned));
    server.directory().join("data/bundle-acme").join(format!("localhost_{}", port.expect("a port")))
}

#[tokio::test]
async fn the_bundle_endpoint_has_its_first_certificate_from_the_ca_and_shows_it_to_who_asks_by_its_name_alone() {
    let port = free_port();
    let pebble = Pebble::start(port, NINETY_DAYS);
    let server = Server::start(&options(endpoint(port, "localhost", &pebble.directory_url()), pebble.authority()));
    let roots = pebble.roots().await;
    expect_shown(port, "localhost", roots.clone(), None, || format!("{}\n{}", server.log(), pebble.log())).await;
    // Anybody who knows the web's authorities can take our bundle there.
    let proof = EndpointProof::web_with(roots.clone(), KeyExchanges::default()).expect("authorities");
    let url = EndpointUrl::parse(&format!("https://localhost:{port}/")).expect("legal");
    let document = fetch(&url, &proof, FETCH_DEADLINE).await.expect("fetched");
    let bundle = Bundle::from_document(TrustDomain::new(TRUST_DOMAIN).expect("legal"), &document).expect("a bundle");
    assert_eq!(bundle.passed_over, 0);

    for name in ["other.example", "localhost.example"] {
        assert!(shown(port, name, true, roots.clone()).await.is_none(), "{name}");
    }
    assert!(shown(port, "localhost", false, roots.clone()).await.is_none(), "who asks by no name is shown nothing");
    // Nobody is shown a challenge once it is over, and no answer is given under the CA's protocol.
    assert!(!speaks_acme(port), "a challenge is shown though there is none");
    let folder = kept(&server, &pebble);
    for file in ["acme_account+key", "localhost.pem"] {
        let mode = std::fs::metadata(folder.join(file)).expect(file).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert!(server.log().contains("terms of service accepted"), "{}", server.log());
}

/// Whether a client that speaks what a looking CA speaks gets through the handshake.
fn speaks_acme(port: u16) -> bool {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.3 suites")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![ACME_TLS_ALPN.to_vec()];
    let mut connection =
        rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().expect("legal")).expect("made");
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    tcp.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    match connection.complete_io(&mut tcp) {
        Ok(_) => true,
        // A certificate came, and is not believed.
        Err(error) => error.to_string().contains("UnknownIssuer"),
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_ahead_of_its_end_and_stays_while_the_ca_is_away_and_a_ca_that_forgot_us_is_met_anew()
{
    let port = free_port();
    let mut pebble = Pebble::start(port, 45);
    let server = Server::start(&options(endpoint(port, "localhost", &pebble.directory_url()), pebble.authority()));
    let roots = pebble.roots().await;
    let explain = || format!("{}\n{}", server.log(), pebble.log());
    let first = expect_shown(port, "localhost", roots.clone(), None, explain).await;
    // While the first is valid; what is shown has not ended at any moment, or this would not be told apart from nothing.
    let second = expect_shown(port, "localhost", roots.clone(), Some(&first), explain).await;
    let first = ironroot_api::certificate::Certificate::parse(&first).expect("a certificate");
    assert!(now_unix() < first.not_after_unix(), "renewed ahead of its end");
    pebble.stop();
    let away = || server.log().contains("certificate of the web not renewed; the one from before is shown");
    expect_within(DEADLINE, "it is told that the CA is away", || server.log(), away);
    assert_eq!(shown(port, "localhost", true, roots).await, Some(second), "{}", server.log());
    pebble.restart();
    let roots = pebble.roots().await;
    expect_shown(port, "localhost", roots, None, || format!("{}\n{}", server.log(), pebble.log())).await;
    assert!(server.log().contains("accountDoesNotExist"), "{}", server.log());
}

/// UNIX seconds.
fn now_unix() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_secs().try_into().expect("fits")
}

#[tokio::test]
async fn a_restart_keeps_account_and_certificate_and_asks_the_ca_nothing() {
    let port = free_port();
    let mut pebble = Pebble::start(port, NINETY_DAYS);
    let mut server = Server::start(&options(endpoint(port, "localhost", &pebble.directory_url()), pebble.authority()));
    let roots = pebble.roots().await;
    let first = expect_shown(port, "localhost", roots.clone(), None, || server.log()).await;
    let account = account_of(&server.log());
    // It is shown first, and kept then.
    let file = kept(&server, &pebble).join("localhost.pem");
    expect_within(DEADLINE, "it is kept", || server.log(), || file.exists());
    server.restart();
    assert_eq!(shown(port, "localhost", true, roots.clone()).await.as_ref(), Some(&first), "{}", server.log());
    assert_eq!(server.log().matches("ACME account opened").count(), 1, "{}", server.log());
    // What is lost is had anew, under the same account.
    server.kill();
    std::fs::remove_file(kept(&server, &pebble).join("localhost.pem")).expect("removed");
    server.restart();
    expect_shown(port, "localhost", roots, Some(&first), || server.log()).await;
    assert_eq!(account_of(&server.log()), account);
    pebble.stop();
}

/// The address of the account that was opened last.
fn account_of(log: &str) -> String {
    let line = log.lines().rfind(|line| line.contains("ACME account opened")).unwrap_or_else(|| panic!("{log}"));
    line.split_whitespace().find(|word| word.contains("account=")).unwrap_or_else(|| panic!("{line}")).to_owned()
}

#[tokio::test]
async fn of_several_names_of_discovery_each_has_its_own_certificate_and_one_that_is_refused_hinders_no_other() {
    let port = free_port();
    let pebble = Pebble::start(port, NINETY_DAYS);
    let lines = format!(
        "jwt_issuer = \"https://b.example\"
        oidc_discovery {{ domains = [\"a.example\", \"b.example\", \"blocked.example\"] address = \"127.0.0.1\" port = {port}
            acme {{ email = \"admin@example.org\" tos_accepted = true directory_url = \"{}\" }} }}",
        pebble.directory_url()
    );
    let server = Server::start(&options(lines, pebble.authority()));
    let roots = pebble.roots().await;
    let explain = || format!("{}\n{}", server.log(), pebble.log());
    let a = expect_shown(port, "a.example", roots.clone(), None, explain).await;
    let b = expect_shown(port, "b.example", roots.clone(), None, explain).await;
    assert_ne!(a, b);
    let refused = || server.log().contains("no certificate of the web") && server.log().contains("the CA refuses: ");
    expect_within(DEADLINE, "the CA's refusal is told", explain, refused);
    assert!(shown(port, "blocked.example", true, roots).await.is_none());
    // Whoever asks how the server is learns which name has none.
    let status = server.cli_output(&["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    for told in [
        "Web           : certificate of a.example for discovery until ",
        "Web           : certificate of b.example for discovery until ",
        "WARNING       : certificate of blocked.example for discovery: there is none yet",
    ] {
        assert!(said.contains(told), "{told:?} in {said}");
    }
    assert!(server.directory().join("data/discovery-acme").is_dir());
}

#[test]
fn a_ca_that_does_not_see_the_name_at_our_port_is_told_of_in_its_words() {
    let port = free_port();
    // It looks where nobody listens.
    let pebble = Pebble::start(free_port(), NINETY_DAYS);
    let server = Server::start(&options(endpoint(port, "localhost", &pebble.directory_url()), pebble.authority()));
    let told = || server.log().contains("the CA has not seen at port 443 of this name what it asked for: ");
    expect_within(DEADLINE, "it is told why", || format!("{}\n{}", server.log(), pebble.log()), told);
    assert!(server.log().contains("again_in_s=5") || server.log().contains("again_in_s=6"), "{}", server.log());
}

#[test]
fn a_ca_that_redirects_floods_or_leads_elsewhere_costs_a_line_and_a_pause() {
    let (web, port) = (WebCertificate::new(), free_port());
    let leads = r#"{"newNonce": "http://localhost:PORT_/n", "newAccount": "https://localhost:PORT_/a", "newOrder": "https://localhost:PORT_/o"}"#;
    let redirects =
        "HTTP/1.1 302 Found\r\nlocation: https://localhost:PORT_/elsewhere\r\ncontent-length: 0\r\n\r\n".to_owned();
    let ca = StandInWeb::start(&web, vec![redirects, answer(&" ".repeat(300_000)), answer(leads), answer("[]")]);
    let url = format!("https://localhost:{}/dir", ca.port());
    let server = Server::start(&options(endpoint(port, "localhost", &url), web.authority()));
    for told in [
        "it redirects (status 302)",
        "its answer is longer than 131072 bytes",
        "only https URLs are followed",
        "the CA's answer is not understood",
    ] {
        expect_within(DEADLINE, told, || server.log(), || server.log().contains(told));
    }
    assert!(server.cli_output(&["healthcheck"]).status.success(), "the server goes on");
}

#[test]
fn a_ca_that_is_silent_is_left_after_a_bounded_time() {
    let (web, port) = (WebCertificate::new(), free_port());
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let url = format!("https://localhost:{}/dir", silent.local_addr().expect("bound").port());
    let server = Server::start(&options(endpoint(port, "localhost", &url), web.authority()));
    let left = || server.log().contains("no answer within 30 seconds");
    expect_within(DEADLINE, "it is left", || server.log(), left);
}
