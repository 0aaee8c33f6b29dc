//! `telemetry { otlp { } }`: ours; SPIRE has no traces.

use std::fmt;
use std::path::PathBuf;

use http::Uri;
use ironroot_api::tls::KeyExchanges;

use crate::settings::{Section, places};

/// The port that collectors take OTLP/gRPC on. Source: OTLP specification.
const PORT: u16 = 4317;
/// Fewest traces that can be asked for: one in so many.
const MAX_ONE_IN: i64 = 1_000_000;

/// Where spans go, and of which traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// Where.
    pub collector: Collector,
    /// One trace in so many is sent.
    pub sample_one_in: u64,
    /// What the link to the collector may agree on.
    pub key_exchanges: KeyExchanges,
}

/// The collector's place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "parts of an address")]
pub enum Collector {
    /// In the clear, for one on this machine.
    Plain { host: String, port: u16 },
    /// Over TLS; its certificate leads to one of those in the file.
    Tls { host: String, port: u16, ca_file: PathBuf },
    /// A unix socket.
    Socket(PathBuf),
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain { host, port } => write!(f, "http://{host}:{port}"),
            Self::Tls { host, port, .. } => write!(f, "https://{host}:{port}"),
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// What `endpoint` says.
enum Endpoint {
    Plain(String, u16),
    Tls(String, u16),
    Socket(PathBuf),
}

impl Otlp {
    /// The same, over links that agree on one of these key exchanges.
    pub fn agreeing_on(self, key_exchanges: KeyExchanges) -> Self {
        Self { key_exchanges, ..self }
    }
}

/// Reads the block; none if it is not there.
pub(in crate::telemetry) fn read(section: &Section<'_>) -> Option<Otlp> {
    if !section.is_present() {
        return None;
    }
    let hint = "where the collector takes OTLP/gRPC: https://HOST:4317, http://127.0.0.1:4317 or unix:///PATH";
    let endpoint = section.required("endpoint", section.parsed("endpoint", endpoint), hint);
    let ca_file = section.path("ca_file");
    let one_in = section.integer("sample_one_in", 1..=MAX_ONE_IN).unwrap_or(1);
    section.finish();
    let collector = collector(section, endpoint?, ca_file)?;
    Some(Otlp { collector, sample_one_in: one_in.unsigned_abs(), key_exchanges: KeyExchanges::default() })
}

fn collector(section: &Section<'_>, endpoint: Endpoint, ca_file: Option<PathBuf>) -> Option<Collector> {
    if !matches!(endpoint, Endpoint::Tls(..)) && ca_file.is_some() {
        section.mistake("ca_file", "is for an endpoint of https: remove it, or write https");
    }
    match endpoint {
        Endpoint::Plain(host, port) => {
            if !["localhost", "127.0.0.1", "::1"].contains(&host.as_str()) {
                section.warn("endpoint", "SPIFFE IDs go over the network in the clear: use https, or a collector here");
            }
            Some(Collector::Plain { host, port })
        }
        Endpoint::Tls(host, port) => {
            let hint = "give the PEM file with the CAs that the collector's certificate leads to";
            let ca_file = section.required("ca_file", ca_file, hint)?;
            section.look("ca_file", || places::readable_file(&ca_file));
            Some(Collector::Tls { host, port, ca_file })
        }
        Endpoint::Socket(path) => Some(Collector::Socket(path)),
    }
}

fn endpoint(text: &str) -> Result<Endpoint, &'static str> {
    const FORMS: &str = "not an endpoint: write https://HOST:PORT, http://HOST:PORT or unix:///PATH";
    if let Some(path) = text.strip_prefix("unix://") {
        return match path.starts_with('/') {
            true => Ok(Endpoint::Socket(path.into())),
            false => Err("a socket's path is absolute: unix:///PATH"),
        };
    }
    let uri: Uri = text.parse().map_err(|_| FORMS)?;
    if !["", "/"].contains(&uri.path()) || uri.query().is_some() {
        return Err("OTLP over gRPC has no path: leave it out; OTLP over HTTP is not spoken");
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("a user or password has no meaning here: leave it out");
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(PORT);
    match uri.scheme_str() {
        _ if host.is_empty() || port == 0 => Err(FORMS),
        Some("https") => Ok(Endpoint::Tls(host, port)),
        Some("http") => Ok(Endpoint::Plain(host, port)),
        _ => Err(FORMS),
    }
}
