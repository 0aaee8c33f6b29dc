//! The `token_exchange` block: whose tokens are exchanged for SVIDs, and where. Ours; SPIRE has nothing like it.

use std::net::{IpAddr, SocketAddr};

use ironroot_api::TrustDomain;
use ironroot_api::jwt::Algorithm;
use ironroot_attest::{Selector, SelectorSet};
use ironroot_shell::settings::{Section, places};

use super::acme;
use super::federation::{WebCertificate, read_files};
use crate::facts::federation::{EndpointUrl, UrlError};
use crate::token_exchange::{IssuerPolicy, KeySource, SELECTOR_TYPE, document_url, exchange_parent};

/// Issuers of one server.
pub const MAX_ISSUERS: usize = 16;
/// Audiences of one issuer's tokens.
const MAX_AUDIENCES: usize = 16;
/// Signed by these unless the file says otherwise: what issuers use.
const USUAL_ALGORITHMS: [Algorithm; 2] = [Algorithm::Rs256, Algorithm::Es256];
/// Where everybody has tokens, of an account of their own.
const PUBLIC_ISSUERS: [&str; 6] = [
    "https://token.actions.githubusercontent.com",
    "https://gitlab.com",
    "https://accounts.google.com",
    "https://agent.buildkite.com",
    "https://app.terraform.io",
    "https://oidc.vercel.com",
];

/// Where tokens are exchanged, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenExchangeConfig {
    /// HTTPS. Port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// What the listener shows.
    pub certificate: WebCertificate,
    /// At least one.
    pub issuers: Vec<IssuerPolicy>,
}

/// Reads the block.
pub(super) fn read(exchange: &Section<'_>, trust_domain: Option<&TrustDomain>) -> Option<TokenExchangeConfig> {
    if !exchange.is_present() {
        return None;
    }
    let address = exchange.ip_address("address").unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let port = exchange.required("port", exchange.port("port", 0), "give the TCP port, such as port = 8444");
    port.iter().for_each(|port| exchange.listens("port", &address.to_string(), *port));
    let certificate = read_certificate(exchange);
    let blocks = exchange.named_blocks("issuer");
    if blocks.is_empty() {
        exchange.mistake("issuer", "whose tokens? Give a block for each, such as issuer \"github\" { ... }");
    }
    if blocks.len() > MAX_ISSUERS {
        exchange.mistake("issuer", format!("more than {MAX_ISSUERS}"));
    }
    let mut issuers: Vec<IssuerPolicy> = Vec::new();
    for (name, block) in blocks {
        let Some(issuer) = read_issuer(&name, &block, trust_domain) else { continue };
        if issuers.iter().any(|other| other.url == issuer.url) {
            block.mistake("url", format!("{} is named twice: tokens say no more than that, keep one", issuer.url));
        }
        issuers.push(issuer);
    }
    exchange.finish();
    Some(TokenExchangeConfig { address: SocketAddr::new(address, port?), certificate: certificate?, issuers })
}

fn read_certificate(exchange: &Section<'_>) -> Option<WebCertificate> {
    let (files, acme) = (exchange.block("serving_cert_file"), exchange.block("acme"));
    match (files.is_present(), acme.is_present()) {
        (true, false) => read_files(&files).map(WebCertificate::Files),
        (false, true) => acme::read_named(&acme).map(WebCertificate::Acme),
        (true, true) => {
            exchange.mistake("acme", "give either this or serving_cert_file");
            None
        }
        (false, false) => {
            let hint =
                "missing: tokens are shown over HTTPS alone; give it, or acme { domain_name, email, tos_accepted }";
            exchange.mistake("serving_cert_file", hint);
            None
        }
    }
}

fn read_issuer(name: &str, block: &Section<'_>, trust_domain: Option<&TrustDomain>) -> Option<IssuerPolicy> {
    let parent = trust_domain.map(|own| exchange_parent(own, name).ok().filter(|_| !name.contains('/')));
    if parent == Some(None) {
        block.mistake(
            "url",
            format!("{name:?} is the last part of its entries' parent: use letters, digits, \".\", \"-\" and \"_\""),
        );
    }
    let url = block.parsed("url", issuer_url);
    let url = block.required("url", url, "give the iss of its tokens, an https URL");
    let audience = read_audience(block);
    let algorithms = block.parsed_list("algorithms", algorithm).unwrap_or_else(|| USUAL_ALGORITHMS.to_vec());
    if algorithms.is_empty() {
        block.mistake("algorithms", "an empty list: no token would be taken");
    }
    let required: SelectorSet = block.parsed_list("required_claims", claim).unwrap_or_default().into_iter().collect();
    if required.is_empty() && url.as_deref().is_some_and(is_public) {
        let reason = "everybody has tokens of this issuer: say whose count, such as required_claims = [\"repository_owner_id:1234\"]";
        block.mistake("required_claims", reason);
    }
    let single_use = block.boolean("single_use").unwrap_or(true);
    let keys = read_keys(block, url.as_deref());
    block.finish();
    let (name, url) = (name.to_owned(), url?);
    Some(IssuerPolicy {
        name,
        parent: parent??,
        url,
        audience: audience?,
        algorithms,
        required,
        single_use,
        keys: keys?,
    })
}

/// The words of a URL's faults are those of bundle endpoints.
fn issuer_url(text: &str) -> Result<String, String> {
    let told = |error: UrlError| error.to_string().replacen("bundle endpoint URL", "an issuer's URL", 1);
    EndpointUrl::parse(text).map(|url| url.as_str().to_owned()).map_err(told)
}

fn read_audience(block: &Section<'_>) -> Option<Vec<String>> {
    let audience = block.strings("audience").filter(|all| !all.is_empty());
    let hint = "for whom its tokens are to be, such as audience = [\"https://spire.example.org:8444\"]: one that nobody else takes";
    let audience = block.required("audience", audience, hint)?;
    if audience.len() > MAX_AUDIENCES || audience.iter().any(String::is_empty) {
        block.mistake("audience", format!("1 to {MAX_AUDIENCES}, none of them empty"));
    }
    Some(audience)
}

fn read_keys(block: &Section<'_>, url: Option<&str>) -> Option<KeySource> {
    let (file, ca_file) = (block.path("jwks_file"), block.path("ca_file"));
    for (key, path) in [("jwks_file", &file), ("ca_file", &ca_file)] {
        if let Some(path) = path {
            block.look(key, || places::readable_file(path));
        }
    }
    match (file, ca_file) {
        (Some(_), Some(_)) => {
            block.mistake("ca_file", "with jwks_file nothing is fetched: give one of the two");
            None
        }
        (Some(file), None) => Some(KeySource::File(file)),
        (None, ca_file) => {
            let document = document_url(url?).map_err(|error| block.mistake("url", error.to_string())).ok()?;
            Some(KeySource::Discovery { url: document, ca_file })
        }
    }
}

fn algorithm(name: &str) -> Result<Algorithm, &'static str> {
    Algorithm::named(name).ok_or("not one of RS256, RS384, RS512, ES256, ES384, ES512, PS256, PS384 and PS512")
}

fn claim(text: &str) -> Result<Selector, &'static str> {
    let has_both = text.split_once(':').is_some_and(|(name, value)| !name.is_empty() && !value.is_empty());
    let selector = has_both.then(|| Selector::new(SELECTOR_TYPE, text).ok()).flatten();
    selector.ok_or("a claim is written name:value, as in entries after oidc:")
}

fn is_public(url: &str) -> bool {
    PUBLIC_ISSUERS.contains(&url.trim_end_matches('/'))
}
