//! A bundle as a document: certificates in PEM, or SPIFFE's.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_api::TrustDomain;
use ironroot_api::certificate::{Certificate, CertificateError};
use ironroot_text::{FileError, HumanFile};
use serde::Deserialize;
use thiserror::Error;

use super::{WebError, WorkloadApiError};
use crate::server_answers::{AnswerRefusal, TrustBundle};

/// Largest document accepted, bytes.
pub(super) const MAX_BUNDLE_BYTES: usize = 1024 * 1024;

/// Format of a trust bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrustBundleFormat {
    /// Certificates in PEM, one after the other.
    #[default]
    Pem,
    /// A SPIFFE bundle document (JWKS).
    Spiffe,
}

/// Why the configured trust bundle cannot be used.
#[derive(Debug, Error)]
pub enum BundleSourceError {
    /// The file cannot be read, or is no text.
    #[error("there is no trust bundle; write what \"ironroot-server bundle show\" prints into this file")]
    File(#[from] FileError),
    /// No thread could be had to read it.
    #[error("the trust bundle file could not be read; it is tried again")]
    Unread,
    /// The file was to be PEM and holds something else, or a damaged certificate.
    #[error("the trust bundle is not PEM certificates")]
    Pem(#[source] CertificateError),
    /// Not a SPIFFE bundle document.
    #[error("the trust bundle is not a SPIFFE bundle document: {0}")]
    Document(String),
    /// What was read is no bundle: no authority, too many, or a certificate that may not sign.
    #[error("the trust bundle cannot be used")]
    Content(#[from] AnswerRefusal),
    /// Neither text nor anything that could be one of both.
    #[error("the trust bundle is no text")]
    Text(#[source] std::str::Utf8Error),
    /// No web server, and no program behind a socket, has one.
    #[error("the trust bundle could not be fetched")]
    Web(#[from] WebError),
    /// No other agent has one.
    #[error("the trust bundle could not be fetched")]
    WorkloadApi(#[from] WorkloadApiError),
}

/// A SPIFFE bundle document. Source: SPIFFE_Trust_Domain_and_Bundle.md §4.
#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    #[serde(rename = "use", default)]
    purpose: String,
    #[serde(default)]
    x5c: Vec<String>,
}

/// Reads the trust bundle of a file.
pub fn read_bundle(
    path: &Path,
    format: TrustBundleFormat,
    trust_domain: &TrustDomain,
) -> Result<TrustBundle, BundleSourceError> {
    let file = HumanFile::regular(path, MAX_BUNDLE_BYTES)?;
    parse_bundle(file.text(), format, trust_domain)
}

/// The bundle of a document that was fetched.
pub(super) fn parse_bytes(
    bytes: &[u8],
    format: TrustBundleFormat,
    trust_domain: &TrustDomain,
) -> Result<TrustBundle, BundleSourceError> {
    parse_bundle(std::str::from_utf8(bytes).map_err(BundleSourceError::Text)?, format, trust_domain)
}

fn parse_bundle(
    text: &str,
    format: TrustBundleFormat,
    trust_domain: &TrustDomain,
) -> Result<TrustBundle, BundleSourceError> {
    let authorities = match format {
        TrustBundleFormat::Pem => pem_authorities(text)?,
        TrustBundleFormat::Spiffe => document_authorities(text)?,
    };
    Ok(TrustBundle::new(trust_domain, authorities.iter().map(|der| (der.as_slice(), false)))?)
}

fn pem_authorities(text: &str) -> Result<Vec<Vec<u8>>, BundleSourceError> {
    let certificates = Certificate::parse_pem(text).map_err(BundleSourceError::Pem)?;
    Ok(certificates.iter().map(|c| c.der().to_vec()).collect())
}

fn document_authorities(text: &str) -> Result<Vec<Vec<u8>>, BundleSourceError> {
    let document: Document = serde_json::from_str(text).map_err(|e| BundleSourceError::Document(e.to_string()))?;
    //= TDB-05 SPIFFE Trust Domain and Bundle 4.2.2: "or an unknown `use` value MUST ignore the entire JWK element"
    let x509 = document.keys.iter().filter(|key| key.purpose == "x509-svid");
    //= X509-18 X509-SVID 6.2: "If `x5c` is not set, or is empty, then the entry MUST be ignored."
    //= X509-19 X509-SVID 6.2: "then all but the first MUST be ignored"
    let first = x509.filter_map(|key| key.x5c.first());
    first.map(|der| STANDARD.decode(der).map_err(|e| BundleSourceError::Document(e.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    fn authority() -> rcgen::Certificate {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&KeyPair::generate().expect("key")).expect("root")
    }

    fn parse(text: &str, format: TrustBundleFormat) -> Result<TrustBundle, BundleSourceError> {
        parse_bundle(text, format, &TrustDomain::new("td").expect("legal"))
    }

    //= TDB-01 X509-18
    #[test]
    fn reads_pem_and_bundle_documents() {
        let (a, b) = (authority(), authority());
        let pem = parse(&(a.pem() + &b.pem()), TrustBundleFormat::Pem).expect("bundle");
        assert_eq!(pem.authorities().count(), 2);
        let jwk = |purpose: &str, der: &[u8]| {
            format!(r#"{{"use":"{purpose}","kty":"EC","x5c":["{}"]}}"#, STANDARD.encode(der))
        };
        let json = format!(
            r#"{{"keys":[{},{}],"spiffe_sequence":1}}"#,
            jwk("x509-svid", a.der()),
            jwk("jwt-svid", b"ignored")
        );
        for json in [json.clone(), json.replace(r#","spiffe_sequence":1"#, "")] {
            let document = parse(&json, TrustBundleFormat::Spiffe).expect("bundle");
            assert_eq!(
                document.authorities().map(|der| der.to_vec()).collect::<Vec<_>>(),
                [a.der().to_vec()],
                "{json}"
            );
        }
    }

    //= X509-18 X509-19 TDB-05
    #[test]
    fn of_a_bundle_document_only_keys_for_x509_svids_count_and_of_each_the_first_certificate() {
        let (first, second) = (STANDARD.encode(authority().der()), STANDARD.encode(authority().der()));
        let json = format!(
            r#"{{"keys": [
                {{"use":"x509-svid","kty":"EC","x5c":["{first}","{second}"]}},
                {{"use":"x509-svid","kty":"EC","x5c":[]}},
                {{"use":"x509-svid","kty":"EC"}},
                {{"kty":"EC","x5c":["{second}"]}},
                {{"use":"something-new","kty":"new","x5c":["{second}"]}}
            ]}}"#
        );
        let bundle = parse(&json, TrustBundleFormat::Spiffe).expect("bundle");
        assert_eq!(bundle.authorities().map(|der| STANDARD.encode(der)).collect::<Vec<_>>(), [first]);
    }

    #[test]
    fn a_mark_before_an_authority_does_not_lose_it() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("bundle.pem");
        let joined = format!("\u{feff}{}\u{feff}{}", authority().pem(), authority().pem());
        std::fs::write(&path, joined).expect("written");
        let trust_domain = TrustDomain::new("td").expect("legal");
        let bundle = read_bundle(&path, TrustBundleFormat::Pem, &trust_domain).expect("bundle");
        assert_eq!(bundle.authorities().count(), 2);
        let gone =
            read_bundle(&directory.path().join("gone"), TrustBundleFormat::Pem, &trust_domain).expect_err("gone");
        assert!(ironroot_shell::command_line::describe(&gone).contains("/gone: No such file"), "{gone}");
    }

    //= TDB-04
    #[test]
    fn refuses_empty_and_unusable_files() {
        let refused = |text: &str, format| parse(text, format).expect_err("refused");
        assert!(matches!(refused("", TrustBundleFormat::Pem), BundleSourceError::Pem(_)));
        assert!(matches!(refused("{}", TrustBundleFormat::Spiffe), BundleSourceError::Document(_)));
        assert!(matches!(
            refused("{\"keys\":[]}", TrustBundleFormat::Spiffe),
            BundleSourceError::Content(AnswerRefusal::EmptyBundle)
        ));
        let leaf = CertificateParams::new(Vec::new()).expect("params");
        let leaf = leaf.self_signed(&KeyPair::generate().expect("key")).expect("leaf");
        assert!(matches!(
            refused(&leaf.pem(), TrustBundleFormat::Pem),
            BundleSourceError::Content(AnswerRefusal::NotAnAuthority)
        ));
    }
}
