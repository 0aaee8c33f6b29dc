//! `acme` blocks: a certificate of the web's that the server itself has from a CA. Keys are SPIRE's.

use std::path::PathBuf;

use ironroot_shell::settings::{Section, places};
use rustls_pki_types::DnsName;

use crate::facts::federation::EndpointUrl;

/// The CA that is asked where the file names none. Source: SPIRE.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Names that a listener has certificates for at the most: each is an order of its own, one after the other.
pub const MAX_NAMES: usize = 32;
/// Longest address of a mailbox. Source: RFC 5321 §4.5.3.1.3.
const MAX_EMAIL_BYTES: usize = 254;

/// Certificates of the web's from an ACME CA whose terms of service the operator has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeConfig {
    /// Where the CA says what it can do.
    pub directory_url: EndpointUrl,
    /// What certificates are for, each for one: lower-case DNS names.
    pub names: Vec<String>,
    /// Whom the CA writes to.
    pub email: String,
    /// Where account and certificates are kept; none: in the server's own directory.
    pub cache_dir: Option<PathBuf>,
}

/// The block of a bundle endpoint, which names its one name.
pub(super) fn read_named(acme: &Section<'_>) -> Option<AcmeConfig> {
    let name = acme.parsed("domain_name", dns_name);
    let name = acme.required("domain_name", name, "give the DNS name that others reach this listener by");
    let read = read_account(acme);
    acme.finish();
    Some(AcmeConfig { names: vec![name?], ..read? })
}

/// The block of a listener whose names are said elsewhere, in `names_key`.
pub(super) fn read_unnamed(
    acme: &Section<'_>,
    listener: &Section<'_>,
    names_key: &str,
    names: impl IntoIterator<Item = String>,
) -> Option<AcmeConfig> {
    let names: Vec<String> = names.into_iter().collect();
    for wrong in names.iter().filter_map(|name| dns_name(name).err().map(|why| format!("{name:?}: {why}"))) {
        listener.mistake(names_key, wrong);
    }
    if names.len() > MAX_NAMES {
        listener.mistake(names_key, format!("certificates for at most {MAX_NAMES} names are had by ACME"));
    }
    let cache_dir = acme.path("cache_dir");
    if acme.has("cache_dir") && cache_dir.is_none() {
        acme.mistake("cache_dir", "must not be empty: CAs issue few certificates a week, so they are kept");
    }
    if let Some(directory) = &cache_dir {
        acme.look("cache_dir", || places::usable_directory(directory));
    }
    let read = read_account(acme);
    acme.finish();
    Some(AcmeConfig { names, cache_dir, ..read? })
}

/// What both have.
fn read_account(acme: &Section<'_>) -> Option<AcmeConfig> {
    let email = acme.required("email", acme.parsed("email", email), "give the address that the CA may write to");
    let url = match acme.has("directory_url") {
        true => acme.parsed("directory_url", |text| {
            EndpointUrl::parse(text).map_err(|_| "must be the https URL of a CA's directory")
        }),
        false => EndpointUrl::parse(LETS_ENCRYPT).ok(),
    };
    let accepted = acme.boolean("tos_accepted") == Some(true);
    if !accepted {
        let ca = url.as_ref().map_or(LETS_ENCRYPT, EndpointUrl::as_str);
        acme.mistake(
            "tos_accepted",
            format!("must be true: read the terms of service of the CA at {ca}, and accept them here"),
        );
    }
    Some(AcmeConfig { directory_url: url?, names: Vec::new(), email: email?, cache_dir: None }).filter(|_| accepted)
}

/// A name that a CA can look at by TLS-ALPN-01: no address, no wildcard.
fn dns_name(text: &str) -> Result<String, &'static str> {
    const WRONG: &str = "must be a DNS name, without a port, such as bundle.example.org";
    let lower = text.to_ascii_lowercase();
    let fits = DnsName::try_from(lower.as_str()).is_ok()
        && !lower.ends_with('.')
        && lower.parse::<std::net::IpAddr>().is_err();
    fits.then_some(lower).ok_or(WRONG)
}

/// One mailbox, as it stands in a `mailto:` URL without being escaped.
fn email(text: &str) -> Result<String, &'static str> {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b"@.+-_=~".contains(&b);
    let parts: Vec<&str> = text.split('@').collect();
    let fits = text.len() <= MAX_EMAIL_BYTES && text.bytes().all(harmless) && parts.len() == 2;
    match fits && parts.iter().all(|part| !part.is_empty()) {
        true => Ok(text.to_owned()),
        false => Err("must be one e-mail address, such as admin@example.org"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_names_and_no_addresses_or_wildcards() {
        for good in ["localhost", "bundle.example.org", "a-1.example"] {
            assert_eq!(dns_name(good).as_deref(), Ok(good));
        }
        assert_eq!(dns_name("Bundle.Example").as_deref(), Ok("bundle.example"));
        for wrong in
            ["", "*.example.org", "127.0.0.1", "::1", "a.example:443", "a.example.", "a b", "ü.example", "../x"]
        {
            assert!(dns_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mailbox_is_one_and_holds_nothing_that_a_url_would_read() {
        assert!(email("admin+acme@example.org").is_ok());
        for wrong in ["", "admin", "@example.org", "a@", "a@b@c", "a@b,c@d", "a@b?cc=d", "mailto:a@b", "a b@c"] {
            assert!(email(wrong).is_err(), "{wrong}");
        }
        assert!(email(&format!("{}@example.org", "a".repeat(300))).is_err());
    }
}
