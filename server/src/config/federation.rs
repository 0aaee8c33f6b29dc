//! The `federation` block: where this trust domain shows its bundle, and where others show theirs. Keys and forms are SPIRE's.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_shell::command_line::describe;
use ironroot_shell::serving_certificate::{CertificateFiles, ServingCertificate};
use ironroot_shell::settings::{Section, format_duration, places};

use super::acme::{self, AcmeConfig};
use crate::facts::federation::{EndpointProfile, EndpointUrl, FederationRelationship};

/// How often others are to look for news, unless the file says otherwise. Source: SPIRE.
const REFRESH_HINT: Duration = Duration::from_secs(300);
/// Outside of these a hint is not followed, or makes trust domains learn of a change late. Source: SPIRE.
const USUAL_HINTS: std::ops::Range<Duration> = Duration::from_secs(60)..Duration::from_secs(24 * 3600);
/// How often the files of a web certificate are looked at. Source: SPIRE.
const FILE_SYNC_INTERVAL: Duration = Duration::from_secs(3600);
/// No more often than this.
const SHORTEST_FILE_SYNC: Duration = Duration::from_secs(1);

/// The `federation` block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FederationConfig {
    /// The listener that shows the bundle, if there is one.
    pub bundle_endpoint: Option<BundleEndpointConfig>,
    /// Where other trust domains show theirs.
    pub federates_with: Vec<FederationRelationship>,
}

/// The listener that shows this trust domain's bundle to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleEndpointConfig {
    /// Port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// How often others are to look for news.
    pub refresh_hint: Duration,
    /// How the listener proves who it is.
    pub identity: WebIdentity,
}

/// How an HTTPS listener proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebIdentity {
    /// By the server's own X509-SVID.
    Spiffe,
    /// By a certificate of the web's.
    Web(WebCertificate),
}

/// Where a certificate of the web's is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebCertificate {
    /// Somebody else has it renewed.
    Files(CertificateFiles),
    /// The server has it from a CA.
    Acme(AcmeConfig),
}

/// Reads the block.
pub(super) fn read(federation: &Section<'_>, own: Option<&TrustDomain>) -> FederationConfig {
    let bundle_endpoint = read_bundle_endpoint(&federation.block("bundle_endpoint"));
    let mut federates_with: Vec<FederationRelationship> = Vec::new();
    for (name, block) in federation.named_blocks("federates_with") {
        let Some(relationship) = read_relationship(&name, &block) else { continue };
        let trust_domain = &relationship.trust_domain;
        if own == Some(trust_domain) {
            block.mistake("bundle_endpoint_url", "this is the server's own trust domain: remove it");
        }
        if federates_with.iter().any(|other| other.trust_domain == *trust_domain) {
            block.mistake("bundle_endpoint_url", format!("{trust_domain} is named twice: keep one"));
        }
        federates_with.push(relationship);
    }
    federation.finish();
    FederationConfig { bundle_endpoint, federates_with }
}

fn read_relationship(name: &str, block: &Section<'_>) -> Option<FederationRelationship> {
    let trust_domain = TrustDomain::new(name);
    if let Err(error) = &trust_domain {
        block.mistake("bundle_endpoint_url", format!("{name:?}: {error}"));
    }
    let url = block.parsed("bundle_endpoint_url", EndpointUrl::parse);
    let hint = "give the https URL where the trust domain shows its bundle";
    let url = block.required("bundle_endpoint_url", url, hint);
    let profile = read_endpoint_profile(block);
    block.finish();
    Some(FederationRelationship { trust_domain: trust_domain.ok()?, url: url?, profile: profile? })
}

fn read_endpoint_profile(block: &Section<'_>) -> Option<EndpointProfile> {
    let profiles = block.named_blocks("bundle_endpoint_profile");
    let [(name, profile)] = profiles.as_slice() else {
        block.mistake(
            "bundle_endpoint_profile",
            "exactly one is needed: \"https_spiffe\" { endpoint_spiffe_id } or \"https_web\" { }",
        );
        return None;
    };
    let read = match name.as_str() {
        "https_web" => Some(EndpointProfile::HttpsWeb),
        "https_spiffe" => {
            let id = profile.parsed("endpoint_spiffe_id", SpiffeId::parse);
            let hint = "give the SPIFFE ID of the server that shows the bundle";
            profile.required("endpoint_spiffe_id", id, hint).map(EndpointProfile::HttpsSpiffe)
        }
        _ => {
            block.mistake("bundle_endpoint_profile", format!("{name:?}: use \"https_spiffe\" or \"https_web\""));
            None
        }
    };
    profile.finish();
    read
}

fn read_bundle_endpoint(endpoint: &Section<'_>) -> Option<BundleEndpointConfig> {
    if !endpoint.is_present() {
        return None;
    }
    let address = endpoint.ip_address("address").unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let port = endpoint.required("port", endpoint.port("port", 0), "give the TCP port, such as port = 8443");
    port.iter().for_each(|port| endpoint.listens("port", &address.to_string(), *port));
    let refresh_hint = endpoint.duration("refresh_hint").unwrap_or(REFRESH_HINT);
    if !USUAL_HINTS.contains(&refresh_hint) {
        let (least, most) = (format_duration(USUAL_HINTS.start), format_duration(USUAL_HINTS.end));
        endpoint.warn(
            "refresh_hint",
            format!("others refresh no more often than each {least}, and from {most} on too late"),
        );
    }
    let identity = read_identity(endpoint);
    endpoint.finish();
    Some(BundleEndpointConfig { address: SocketAddr::new(address, port?), refresh_hint, identity: identity? })
}

/// A profile, or what SPIRE had before there were any.
fn read_identity(endpoint: &Section<'_>) -> Option<WebIdentity> {
    let old = endpoint.block("acme");
    match (old.is_present(), endpoint.has("profile")) {
        (false, _) => read_profile(endpoint),
        (true, true) => {
            endpoint
                .mistake("acme", "give either this or profile: profile \"https_web\" { acme { ... } } says the same");
            None
        }
        (true, false) => {
            endpoint.warn("acme", "is deprecated here: write profile \"https_web\" { acme { ... } }");
            acme::read_named(&old).map(WebCertificate::Acme).map(WebIdentity::Web)
        }
    }
}

fn read_profile(endpoint: &Section<'_>) -> Option<WebIdentity> {
    let profiles = endpoint.named_blocks("profile");
    match profiles.as_slice() {
        [] if endpoint.has("profile") => None,
        [] => {
            endpoint.warn("profile", "not given: https_spiffe is taken; write profile \"https_spiffe\" { }");
            Some(WebIdentity::Spiffe)
        }
        [(name, profile)] => {
            let identity = match name.as_str() {
                "https_spiffe" => Some(WebIdentity::Spiffe),
                "https_web" => read_web(profile),
                _ => {
                    endpoint.mistake("profile", format!("{name:?}: use \"https_spiffe\" or \"https_web\""));
                    return None;
                }
            };
            profile.finish();
            identity
        }
        _ => {
            endpoint.mistake("profile", "exactly one bundle endpoint profile is expected: keep one");
            None
        }
    }
}

fn read_web(profile: &Section<'_>) -> Option<WebIdentity> {
    let (files, acme) = (profile.block("serving_cert_file"), profile.block("acme"));
    match (files.is_present(), acme.is_present()) {
        (true, true) => profile.mistake("acme", "give either this or serving_cert_file"),
        (true, false) => return read_files(&files).map(WebCertificate::Files).map(WebIdentity::Web),
        (false, true) => return acme::read_named(&acme).map(WebCertificate::Acme).map(WebIdentity::Web),
        (false, false) => profile.mistake(
            "serving_cert_file",
            "missing: give cert_file_path and key_file_path in it, or acme { domain_name, email, tos_accepted }",
        ),
    }
    None
}

/// Reads `cert_file_path`, `key_file_path` and `file_sync_interval`.
pub(super) fn read_files(files: &Section<'_>) -> Option<CertificateFiles> {
    let path = |key: &str, hint: &str| {
        let path = files.required(key, files.path(key), hint);
        if let Some(path) = &path {
            files.look(key, || places::readable_file(path));
        }
        path
    };
    let certificate = path("cert_file_path", "give the PEM file with the certificate and those above it");
    let key = path("key_file_path", "give the PEM file with the certificate's private key");
    let sync_interval = files.duration("file_sync_interval").unwrap_or(FILE_SYNC_INTERVAL);
    if sync_interval < SHORTEST_FILE_SYNC {
        files.mistake("file_sync_interval", format!("must be {} or more", format_duration(SHORTEST_FILE_SYNC)));
    }
    files.finish();
    let named = CertificateFiles { certificate: certificate?, key: key?, sync_interval };
    let can_be_read = [&named.certificate, &named.key].iter().all(|path| places::readable_file(path).is_ok());
    files.look("cert_file_path", || match can_be_read {
        true => ServingCertificate::load(named.clone()).map(drop).map_err(|error| describe(&error)),
        false => Ok(()),
    });
    Some(named)
}
