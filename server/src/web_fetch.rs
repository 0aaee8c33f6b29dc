//! One fetch from another's web server, of a bundle or of an issuer's keys: the endpoint is proven, and what it answers is bounded in
//! bytes, time and redirects.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ironroot_api::bundle::{DocumentError, MAX_DOCUMENT_BYTES};
use ironroot_api::tls::{KeyExchanges, ServerTrust, SvidResolver, TrustAnchors, client_config_for, key_exchange};
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_shell::dial;
use ironroot_shell::web::{self, ALPN, EndpointUrl, OtherUrlError, WebAnswer, WebQuestion, WebQuestionError};
use prost::bytes::Bytes;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use thiserror::Error;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::StatusCode;

/// Longest a fetch may take: names, connections, redirects and bytes that drip included.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Redirects that are followed in one fetch.
pub const MAX_REDIRECTS: usize = 3;

/// What a fetch is for; its messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// Another trust domain's bundle, of its bundle endpoint.
    Bundle,
    /// What verifies an issuer's tokens, and where that is.
    IssuerKeys,
}

impl Sought {
    fn endpoint(self) -> &'static str {
        match self {
            Self::Bundle => "the bundle endpoint",
            Self::IssuerKeys => "the issuer's web server",
        }
    }
}

impl fmt::Display for Sought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bundle => "bundle",
            Self::IssuerKeys => "keys of an issuer",
        })
    }
}

/// Why a document could not be had. Where SPIRE has words for it, these are its words.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum FetchError {
    /// Nothing to prove the endpoint by.
    #[error("can't perform SPIFFE Authentication: local copy of bundle not found (of trust domain {:?})", .0.as_str())]
    NoBundle(TrustDomain),
    /// No authority of the web is known on this machine.
    #[error("this machine knows no authorities of the web: install ca-certificates, or name a file in SSL_CERT_FILE")]
    NoWebAuthorities,
    /// The bundle that is held has an authority that cannot be used.
    #[error("the bundle that is held of trust domain {:?} cannot be used", .0.as_str())]
    HeldBundle(TrustDomain),
    #[error("{0:?} is no name that a certificate can be for")]
    Name(String, #[source] InvalidDnsNameError),
    #[error("cannot connect to {0}")]
    Connect(String, #[source] io::Error),
    /// The other end could not prove that it is the endpoint, or speaks no TLS 1.3.
    #[error("{0} is not proven to be {what}", what = .1.endpoint())]
    Tls(String, Sought, #[source] io::Error),
    /// It speaks no HTTP, its answer is longer than a document may be, or breaks off.
    #[error("{0} gives no document")]
    Answer(String, #[source] WebQuestionError),
    /// Longer than [`DEADLINE`].
    #[error("no answer within {} seconds", .0.as_secs())]
    Late(Duration),
    #[error("unexpected status {} fetching {what}", .0.as_u16(), what = .1)]
    Status(StatusCode, Sought),
    /// It leads nowhere, or to where nothing is fetched from.
    #[error("it redirects to where nothing is fetched from")]
    Redirect(#[source] OtherUrlError),
    #[error("it redirects and does not say whereto")]
    RedirectNowhere,
    #[error("it redirects more than {MAX_REDIRECTS} times")]
    TooManyRedirects,
    /// What it answers is no bundle.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// How an endpoint is proven: made of what is held at this moment, for one fetch. What is fetched is a bundle, unless it is
/// [an issuer's](Self::of_issuer).
#[derive(Clone, Debug)]
pub struct EndpointProof {
    config: Arc<ClientConfig>,
    sought: Sought,
}

impl EndpointProof {
    /// By an X509-SVID of exactly that ID, and the authorities of its trust domain.
    //= FED-11 SPIFFE Federation 5.2.2.4: "it MUST be validated that the server certificate is a valid X509-SVID for the bundle endpoint SPIFFE ID"
    //= FED-12 SPIFFE Federation 5.2.2.4: "The latest available bundle MUST be used to validate any subsequent connections."
    pub fn spiffe(
        expected: SpiffeId,
        authorities: &[CertificateDer<'_>],
        exchanges: KeyExchanges,
    ) -> Result<Self, FetchError> {
        let of = expected.trust_domain();
        let anchors = TrustAnchors::new(of.clone(), authorities).map_err(|_| FetchError::HeldBundle(of))?;
        let trust = ServerTrust::Bundle { anchors, expected };
        Ok(Self::new(client_config_for(trust, SvidResolver::empty(), ALPN, exchanges)))
    }

    /// By the authorities of the web that this machine knows, for the name in the URL. Blocks: it reads files.
    //= FED-10 SPIFFE Federation 5.2.1.4: "the server certificate MUST be validated in accordance with [RFC 6125]"
    pub fn web(exchanges: KeyExchanges) -> Result<Self, FetchError> {
        web::client_config(exchanges).map(Self::new).ok_or(FetchError::NoWebAuthorities)
    }

    /// By these authorities, for the name in the URL.
    pub fn web_with(roots: RootCertStore, exchanges: KeyExchanges) -> Result<Self, FetchError> {
        web::client_config_with(roots, exchanges).map(Self::new).ok_or(FetchError::NoWebAuthorities)
    }

    /// The same, of an issuer's web server.
    #[must_use]
    pub fn of_issuer(self) -> Self {
        Self { sought: Sought::IssuerKeys, ..self }
    }

    fn new(config: Arc<ClientConfig>) -> Self {
        Self { config, sought: Sought::Bundle }
    }
}

/// The bytes of the document at `url`, of an endpoint that `proof` proves. A redirect is followed to where the same proof holds,
/// and is forgotten afterwards.
pub async fn fetch(url: &EndpointUrl, proof: &EndpointProof, deadline: Duration) -> Result<Bytes, FetchError> {
    //= FED-14 RFC 8259 9: "An implementation may set limits on the size of texts that it accepts."
    let fetched = tokio::time::timeout(deadline, follow(url.clone(), proof)).await;
    fetched.map_err(|_| FetchError::Late(deadline))?
}

async fn follow(mut url: EndpointUrl, proof: &EndpointProof) -> Result<Bytes, FetchError> {
    for _ in 0..=MAX_REDIRECTS {
        match ask(&url, proof).await? {
            Reply::Document(bytes) => return Ok(bytes),
            Reply::Elsewhere(next) => url = next,
        }
    }
    Err(FetchError::TooManyRedirects)
}

enum Reply {
    Document(Bytes),
    Elsewhere(EndpointUrl),
}

async fn ask(url: &EndpointUrl, proof: &EndpointProof) -> Result<Reply, FetchError> {
    let (host, place) = (url.host(), format!("{}:{}", url.host(), url.port()));
    let name = ServerName::try_from(host.to_owned()).map_err(|why| FetchError::Name(host.to_owned(), why))?;
    let tcp = dial::tcp(host, url.port()).await.map_err(|why| FetchError::Connect(place.clone(), why))?;
    let tls = TlsConnector::from(proof.config.clone()).connect(name, tcp).await;
    let tls = tls.map_err(|why| FetchError::Tls(place.clone(), proof.sought, why))?;
    let key_exchange = key_exchange(tls.get_ref().1);
    match proof.sought {
        Sought::Bundle => tracing::debug!(endpoint = place, ?key_exchange, "connected to a bundle endpoint"),
        Sought::IssuerKeys => tracing::debug!(endpoint = place, ?key_exchange, "connected to an issuer's web server"),
    }
    let question = WebQuestion {
        authority: url.authority(),
        path: url.path(),
        accept: "application/json",
        user_agent: concat!("ironroot-server/", env!("CARGO_PKG_VERSION")),
        max_bytes: MAX_DOCUMENT_BYTES,
    };
    match question.ask(tls).await.map_err(|why| FetchError::Answer(place, why))? {
        WebAnswer::Document(bytes) => Ok(Reply::Document(bytes)),
        WebAnswer::Elsewhere(None) => Err(FetchError::RedirectNowhere),
        WebAnswer::Elsewhere(Some(location)) => {
            let next = url.led_to(&location).map_err(|why| FetchError::Redirect(OtherUrlError(why)))?;
            Ok(Reply::Elsewhere(next))
        }
        WebAnswer::Status(status) => Err(FetchError::Status(status, proof.sought)),
    }
}
