//! A bundle of a web server, or of a program behind a unix socket: one document, bounded in bytes, time and redirects.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use ironroot_api::certificate::Certificate;
use ironroot_api::tls::{Judge, KeyExchanges, web_client_config};
use ironroot_api::utc;
use ironroot_shell::dial;
use ironroot_shell::web::{
    ALPN, EndpointUrl, MAX_URL_BYTES, OtherUrlError, WebAnswer, WebQuestion, WebQuestionError, authorities,
};
use prost::bytes::Bytes;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::{ClientConfig, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use thiserror::Error as ThisError;
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use super::Occasion;
use super::document::MAX_BUNDLE_BYTES;
use crate::server_answers::span;
use crate::trusted_time::TrustedTime;

/// Longest a fetch may take: names, connections, redirects and bytes that drip included.
const DEADLINE: Duration = Duration::from_secs(30);
/// Redirects that are followed in one fetch.
const MAX_REDIRECTS: usize = 3;
/// The beginnings of names of parameters that are the agent's to add. Source: SPIRE.
const OWN_PARAMETERS: [&str; 2] = ["spiffe-", "spire-"];

/// Why there is no document.
#[derive(Debug, ThisError)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum WebError {
    /// No authority of the web is known on this machine.
    #[error("this machine knows no authorities of the web: install ca-certificates, or name a file in SSL_CERT_FILE")]
    NoWebAuthorities,
    #[error("{0:?} is no name that a certificate can be for")]
    Name(String, #[source] InvalidDnsNameError),
    #[error("cannot connect to {0}")]
    Connect(String, #[source] io::Error),
    /// The other end could not prove its name, or speaks no TLS 1.3.
    #[error("{0} does not prove its name")]
    Tls(String, #[source] io::Error),
    #[error("{0} gives no document")]
    Answer(String, #[source] WebQuestionError),
    #[error("{0} answers with the status {1}")]
    Status(String, u16),
    /// It takes too long.
    #[error("no answer within {} seconds", DEADLINE.as_secs())]
    Late,
    #[error("it redirects to where nothing is fetched from")]
    Redirect(#[source] OtherUrlError),
    #[error("{0} redirects and does not say whereto")]
    RedirectNowhere(String),
    #[error("{0} redirects, and behind a socket there is nowhere else to ask")]
    RedirectOfASocket(String),
    #[error("it redirects more than {MAX_REDIRECTS} times")]
    TooManyRedirects,
}

/// What is asked for behind a unix socket: an `http` URL with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketUrl {
    uri: Uri,
}

impl SocketUrl {
    /// Checks a URL. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_URL_BYTES {
            return Err(format!("longer than {MAX_URL_BYTES} bytes"));
        }
        let asked = text.split('#').next().unwrap_or_default();
        let uri: Uri = asked.parse().map_err(|error| format!("not a URL: {error}"))?;
        if uri.scheme() != Some(&Scheme::HTTP) || uri.host().is_none_or(str::is_empty) {
            return Err("must start with http:// and a host when trust_bundle_unix_socket is given".to_owned());
        }
        let names = uri.query().into_iter().flat_map(|query| query.split('&'));
        let names = names.map(|pair| pair.split('=').next().unwrap_or_default());
        match names.clone().find(|name| OWN_PARAMETERS.iter().any(|own| name.starts_with(own))) {
            Some(name) => Err(format!("its parameter {name:?} begins as those that the agent adds, spiffe- or spire-")),
            None => Ok(Self { uri }),
        }
    }

    /// Path and query, with what the agent adds: in the order of their names, as SPIRE's agent sends them.
    fn path(&self, occasion: &Occasion<'_>) -> String {
        let mode = if occasion.is_rebootstrap { "rebootstrap" } else { "bootstrap" };
        // All of these are made of characters that stand for themselves in a query, but for what the time and an IPv6 address have.
        let escaped = |text: &str| text.replace(':', "%3A");
        let own = format!(
            "spiffe-trust-domain={}&spire-attest-mode={mode}&spire-attest-start-time={}&spire-connection-attempts={}\
             &spire-server-address={}&spire-server-port={}",
            occasion.trust_domain.as_str(),
            escaped(&utc(occasion.began_unix)),
            occasion.attempts,
            escaped(occasion.server.0),
            occasion.server.1,
        );
        match self.uri.query() {
            Some(query) => format!("{}?{query}&{own}", self.uri.path()),
            None => format!("{}?{own}", self.uri.path()),
        }
    }
}

impl fmt::Display for SocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

/// The document at `url`.
pub(super) async fn fetch(url: &EndpointUrl, occasion: &Occasion<'_>) -> Result<Bytes, WebError> {
    // It reads the files of a directory.
    let roots = tokio::task::spawn_blocking(authorities).await.unwrap_or_else(|_| RootCertStore::empty());
    let fetched = tokio::time::timeout(DEADLINE, follow(url.clone(), WebTrust::new(roots, occasion)?)).await;
    fetched.unwrap_or(Err(WebError::Late))
}

/// The document that the program behind `socket` has for `url`.
pub(super) async fn fetch_over(socket: &Path, url: &SocketUrl, occasion: &Occasion<'_>) -> Result<Bytes, WebError> {
    let fetched = tokio::time::timeout(DEADLINE, ask_over(socket.to_owned(), url, url.path(occasion))).await;
    fetched.unwrap_or(Err(WebError::Late))
}

async fn ask_over(socket: PathBuf, url: &SocketUrl, path: String) -> Result<Bytes, WebError> {
    let place = socket.display().to_string();
    let stream = UnixStream::connect(&socket).await.map_err(|why| WebError::Connect(place.clone(), why))?;
    let authority = url.uri.authority().map_or("localhost", |authority| authority.as_str());
    match question(authority, &path).ask(stream).await.map_err(|why| WebError::Answer(place.clone(), why))? {
        WebAnswer::Document(bytes) => Ok(bytes),
        WebAnswer::Elsewhere(_) => Err(WebError::RedirectOfASocket(place)),
        WebAnswer::Status(status) => Err(WebError::Status(place, status.as_u16())),
    }
}

async fn follow(mut url: EndpointUrl, trust: WebTrust) -> Result<Bytes, WebError> {
    for _ in 0..=MAX_REDIRECTS {
        let place = format!("{}:{}", url.host(), url.port());
        match ask(&url, &place, &trust).await? {
            WebAnswer::Document(bytes) => return Ok(bytes),
            WebAnswer::Elsewhere(Some(location)) => {
                url = url.led_to(&location).map_err(|why| WebError::Redirect(OtherUrlError(why)))?;
            }
            WebAnswer::Elsewhere(None) => return Err(WebError::RedirectNowhere(place)),
            WebAnswer::Status(status) => return Err(WebError::Status(place, status.as_u16())),
        }
    }
    Err(WebError::TooManyRedirects)
}

async fn ask(url: &EndpointUrl, place: &str, trust: &WebTrust) -> Result<WebAnswer, WebError> {
    let host = url.host();
    let name = ServerName::try_from(host.to_owned()).map_err(|why| WebError::Name(host.to_owned(), why))?;
    let tcp = dial::tcp(host, url.port()).await.map_err(|why| WebError::Connect(place.to_owned(), why))?;
    let connecting = TlsConnector::from(trust.proving(name.clone())).connect(name, tcp);
    let tls = connecting.await.map_err(|why| WebError::Tls(place.to_owned(), why))?;
    let answer = question(url.authority(), url.path()).ask(tls).await;
    answer.map_err(|why| WebError::Answer(place.to_owned(), why))
}

fn question<'a>(authority: &'a str, path: &'a str) -> WebQuestion<'a> {
    let user_agent = concat!("ironroot-agent/", env!("CARGO_PKG_VERSION"));
    WebQuestion { authority, path, accept: "*/*", user_agent, max_bytes: MAX_BUNDLE_BYTES }
}

/// What a web server is judged by: the web's authorities, at the time that this device takes it to be. A board without a clock starts in the
/// past of every certificate. See `docs/trusted_time.md`.
#[derive(Clone, Debug)]
struct WebTrust {
    webpki: Arc<WebPkiServerVerifier>,
    time: TrustedTime,
    exchanges: KeyExchanges,
}

impl WebTrust {
    fn new(roots: RootCertStore, occasion: &Occasion<'_>) -> Result<Self, WebError> {
        let (time, exchanges) = (occasion.time.clone(), occasion.exchanges);
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), exchanges.provider()).build();
        Ok(Self { webpki: webpki.map_err(|_| WebError::NoWebAuthorities)?, time, exchanges })
    }

    /// Dials whoever proves that name.
    fn proving(&self, name: ServerName<'static>) -> Arc<ClientConfig> {
        web_client_config(NamedWebServer { trust: self.clone(), name }, ALPN, self.exchanges)
    }

    /// When to judge a chain by its leaf: one that has ended by all that is known is judged now, and refused.
    fn at(&self, leaf: &CertificateDer<'_>) -> i64 {
        let moment = self.time.moment();
        let leaf = Certificate::parse(leaf).ok();
        let judged = leaf.and_then(|leaf| moment.judge(span(&[leaf]))).filter(|judged| !judged.in_doubt);
        judged.map_or_else(|| moment.estimate(), |judged| judged.at)
    }
}

/// The web server of that name.
#[derive(Debug)]
struct NamedWebServer {
    trust: WebTrust,
    name: ServerName<'static>,
}

impl Judge for NamedWebServer {
    /// rustls's own clock is passed over.
    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], _now_unix: i64) -> Result<(), Error> {
        let at = Duration::from_secs(u64::try_from(self.trust.at(leaf)).unwrap_or(0));
        self.trust.webpki.verify_server_cert(leaf, others, &self.name, &[], UnixTime::since_unix_epoch(at)).map(drop)
    }
}

#[cfg(test)]
mod tests;
