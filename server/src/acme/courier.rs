//! Carries requests to the CA: one connection each, proven by the authorities of the web, bounded in bytes and time. Redirects lead nowhere.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use ironroot_shell::dial;
use prost::bytes::Bytes;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};

use super::error::for_people;
use crate::facts::federation::EndpointUrl;

/// Longest one request may take, the name, the connection and bytes that drip included.
const DEADLINE: Duration = Duration::from_secs(30);
/// Largest answer read, bytes: a chain is a few kB, a directory one.
const MAX_ANSWER_BYTES: usize = 128 * 1024;
/// Longest head of an answer read, bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Longest pause that a CA may ask for within an order, seconds. What is longer is not heard: an order has its own end.
const MAX_RETRY_AFTER_SECONDS: u64 = 60;

/// Why a CA was not asked, or its answer not read.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum CourierError {
    /// The CA names a place that nobody is sent to.
    #[error("the CA leads to {0:?}: only https URLs are followed")]
    Url(String),
    #[error("{0:?} is no name that a certificate can be for")]
    Name(String),
    #[error("cannot connect to {0}")]
    Connect(String, #[source] io::Error),
    /// The other end could not prove its name by an authority of the web that is known here, or speaks no TLS 1.3.
    #[error("{0} is not proven to be the CA")]
    Tls(String, #[source] io::Error),
    #[error("{0} does not speak HTTP")]
    Http(String, #[source] hyper::Error),
    #[error("it redirects (status {}), and a CA's answers are taken from where they were asked for", .0.as_u16())]
    Redirect(StatusCode),
    /// Longer than it may be, or not as long as it said.
    #[error("its answer is longer than {MAX_ANSWER_BYTES} bytes, or breaks off")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {} seconds", DEADLINE.as_secs())]
    Late,
}

/// Goes to the CA and back.
#[derive(Clone, Debug)]
pub(super) struct Courier(Arc<ClientConfig>);

impl Courier {
    /// Believes who proves its name so.
    pub(super) fn new(tls: Arc<ClientConfig>) -> Self {
        Self(tls)
    }
}

impl HttpClient for Courier {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let tls = self.0.clone();
        Box::pin(async move {
            let carried = tokio::time::timeout(DEADLINE, carry(tls, request)).await;
            carried.unwrap_or(Err(CourierError::Late)).map_err(|error| Error::Other(Box::new(error)))
        })
    }
}

async fn carry(
    tls: Arc<ClientConfig>,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<BytesResponse, CourierError> {
    let asked = request.uri().to_string();
    let url = EndpointUrl::parse(&asked).map_err(|_| CourierError::Url(for_people(&asked)))?;
    let (host, place) = (url.host(), format!("{}:{}", url.host(), url.port()));
    let name = ServerName::try_from(host.to_owned()).map_err(|_| CourierError::Name(host.to_owned()))?;
    let tcp = dial::tcp(host, url.port()).await.map_err(|why| CourierError::Connect(place.clone(), why))?;
    let tls = TlsConnector::from(tls).connect(name, tcp).await.map_err(|why| CourierError::Tls(place.clone(), why))?;
    let http = |why| CourierError::Http(place.clone(), why);
    let connecting = http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(tls));
    let (mut sender, connection) = connecting.await.map_err(http)?;
    // Ends with this call, however it ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    address(&mut request, url.uri());
    let (mut parts, body) = sender.send_request(request).await.map_err(http)?.into_parts();
    if parts.status.is_redirection() {
        return Err(CourierError::Redirect(parts.status));
    }
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(CourierError::Answer)?;
    bound_pauses(&mut parts.headers);
    Ok(BytesResponse { parts, body: Box::new(body.to_bytes()) })
}

/// As HTTP/1.1 has it on a connection of its own: the host in a header, a path in the first line.
fn address(request: &mut Request<BodyWrapper<Bytes>>, uri: &Uri) {
    let host = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    let agent = HeaderValue::from_static(concat!("ironroot-server/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(header::USER_AGENT, agent);
    *request.uri_mut() = uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
}

/// Leaves a pause that the CA asks for only where it is a small number: a larger one is added to a clock by who reads it.
fn bound_pauses(headers: &mut HeaderMap) {
    let asked = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    if asked.is_none_or(|seconds| seconds > MAX_RETRY_AFTER_SECONDS) {
        headers.remove(header::RETRY_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_that_a_ca_asks_for_is_heard_only_if_it_is_short() {
        for (asked, heard) in [
            ("3", true),
            ("60", true),
            ("61", false),
            ("18446744073709551615", false),
            ("-1", false),
            ("", false),
            ("Fri, 31 Dec 9999 23:59:59 GMT", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(asked));
            bound_pauses(&mut headers);
            assert_eq!(headers.contains_key(header::RETRY_AFTER), heard, "{asked:?}");
        }
    }
}
