//! The `oidc_discovery` block: SPIRE's keys of its discovery provider, which is a program of its own there.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ironroot_shell::settings::{Section, places};

use super::acme;
use super::federation::{WebCertificate, read_files};

/// Where OpenID Connect discovery is served, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcConfig {
    /// The listener.
    pub listener: OidcListener,
    /// What it says of itself.
    pub policy: OidcPolicy,
}

/// What the listener says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcPolicy {
    /// Names that it may be asked by.
    pub domains: BTreeSet<String>,
    /// The issuer of JWT-SVIDs, an https URL; none: the name that it is asked by is.
    pub issuer: Option<String>,
    /// Where the keys are said to be; none: here.
    pub jwks_uri: Option<String>,
    /// Whether keys say that they are for signatures.
    pub set_key_use: bool,
}

/// Where discovery is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OidcListener {
    /// HTTPS with a certificate of the web's. Port 0 lets the kernel choose.
    Https(SocketAddr, WebCertificate),
    /// A unix socket behind a proxy that ends TLS.
    Socket(PathBuf),
}

/// Reads the block; `jwt_issuer` is the server's.
pub(super) fn read(oidc: &Section<'_>, jwt_issuer: Option<&str>) -> Option<OidcConfig> {
    if !oidc.is_present() {
        return None;
    }
    let domains: BTreeSet<String> = oidc.parsed_list("domains", domain).unwrap_or_default().into_iter().collect();
    if domains.is_empty() {
        oidc.required(
            "domains",
            None::<()>,
            "give the names that it is asked by, such as domains = [\"oidc.example.org\"]",
        );
    }
    let issuer = jwt_issuer.filter(|issuer| issuer.starts_with("https://")).map(str::to_owned);
    if issuer.is_none() {
        oidc.warn(
            "domains",
            "jwt_issuer is no https URL: verifiers compare it with the issuer that is said here, so set it",
        );
    }
    let jwks_uri = oidc.parsed("jwks_uri", |text| match text.starts_with("https://") {
        true => Ok(text.to_owned()),
        false => Err("must be an https URL"),
    });
    let set_key_use = oidc.boolean("set_key_use").unwrap_or(false);
    let listener = read_listener(oidc, &domains);
    oidc.finish();
    Some(OidcConfig { listener: listener?, policy: OidcPolicy { domains, issuer, jwks_uri, set_key_use } })
}

/// Source: SPIRE, which wants names as they are asked for, in ASCII.
fn domain(text: &str) -> Result<String, &'static str> {
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    match !text.is_empty() && text.bytes().all(is_name) {
        true => Ok(text.to_owned()),
        false => Err("a domain is written in a-z, 0-9, \".\" and \"-\" (punycode), without a port"),
    }
}

fn read_listener(oidc: &Section<'_>, domains: &BTreeSet<String>) -> Option<OidcListener> {
    let socket = oidc.socket_path("listen_socket_path");
    let (files, acme) = (oidc.block("serving_cert_file"), oidc.block("acme"));
    match (socket, files.is_present(), acme.is_present()) {
        (Some(path), false, false) => {
            oidc.look("listen_socket_path", || places::usable_socket(&path));
            return Some(OidcListener::Socket(path));
        }
        (Some(_), ..) => oidc.mistake("listen_socket_path", "give either this, serving_cert_file or acme"),
        (None, true, true) => oidc.mistake("acme", "give either this or serving_cert_file"),
        (None, true, false) => return https(oidc, read_files(&files).map(WebCertificate::Files)),
        (None, false, true) => {
            let names = domains.iter().cloned();
            return https(oidc, acme::read_unnamed(&acme, oidc, "domains", names).map(WebCertificate::Acme));
        }
        (None, false, false) if oidc.has("listen_socket_path") => {}
        (None, false, false) => oidc.mistake(
            "serving_cert_file",
            "missing: give it, acme { email, tos_accepted }, or listen_socket_path behind a proxy that ends TLS",
        ),
    }
    None
}

fn https(oidc: &Section<'_>, certificate: Option<WebCertificate>) -> Option<OidcListener> {
    let address = oidc.ip_address("address").unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let port = oidc.port("port", 0).unwrap_or(443);
    oidc.listens("port", &address.to_string(), port);
    Some(OidcListener::Https(SocketAddr::new(address, port), certificate?))
}
