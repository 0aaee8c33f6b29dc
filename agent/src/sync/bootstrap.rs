//! First contact: which server to believe while there is no certificate of our own.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use serde::Deserialize;
use thiserror::Error;

use crate::config::TrustBundleFormat;
use crate::durable_file;
use crate::server_answers::{AnswerRefusal, TrustBundle};

/// Largest trust bundle file accepted, bytes.
const MAX_BUNDLE_FILE_BYTES: usize = 1024 * 1024;

/// Why the configured trust bundle cannot be used.
#[derive(Debug, Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("cannot read the trust bundle")]
    Read(#[source] std::io::Error),
    /// There is no such file.
    #[error("the trust bundle file does not exist")]
    Missing,
    /// Not PEM certificates or a SPIFFE bundle document.
    #[error("the trust bundle file is not {0}")]
    Format(&'static str),
    /// Not authorities.
    #[error("the trust bundle file cannot be used")]
    Content(#[from] AnswerRefusal),
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

/// Reads the configured trust bundle. Read anew at each first contact: the operator may have replaced it.
pub fn read_bundle(
    path: &Path,
    format: TrustBundleFormat,
    trust_domain: &TrustDomain,
) -> Result<TrustBundle, BootstrapError> {
    let bytes = durable_file::read_following_links(path, MAX_BUNDLE_FILE_BYTES).map_err(BootstrapError::Read)?;
    parse_bundle(&bytes.ok_or(BootstrapError::Missing)?, format, trust_domain)
}

fn parse_bundle(
    bytes: &[u8],
    format: TrustBundleFormat,
    trust_domain: &TrustDomain,
) -> Result<TrustBundle, BootstrapError> {
    let authorities = match format {
        TrustBundleFormat::Pem => pem_authorities(bytes)?,
        TrustBundleFormat::Spiffe => document_authorities(bytes)?,
    };
    Ok(TrustBundle::new(trust_domain, authorities.iter().map(|der| (der.as_slice(), false)))?)
}

fn pem_authorities(bytes: &[u8]) -> Result<Vec<Vec<u8>>, BootstrapError> {
    let format = BootstrapError::Format("PEM certificates");
    let Ok(text) = std::str::from_utf8(bytes) else { return Err(format) };
    let Ok(certificates) = Certificate::parse_pem(text) else { return Err(format) };
    Ok(certificates.iter().map(|c| c.der().to_vec()).collect())
}

fn document_authorities(bytes: &[u8]) -> Result<Vec<Vec<u8>>, BootstrapError> {
    let format = |_| BootstrapError::Format("a SPIFFE bundle document");
    let document: Document = serde_json::from_slice(bytes).map_err(|e| format(e.to_string()))?;
    let x509 = document.keys.iter().filter(|key| key.purpose == "x509-svid");
    let first = x509.filter_map(|key| key.x5c.first());
    first.map(|der| STANDARD.decode(der).map_err(|e| format(e.to_string()))).collect()
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

    fn parse(bytes: &[u8], format: TrustBundleFormat) -> Result<TrustBundle, BootstrapError> {
        parse_bundle(bytes, format, &TrustDomain::new("td").expect("legal"))
    }

    #[test]
    fn reads_pem_and_bundle_documents() {
        let (a, b) = (authority(), authority());
        let pem = parse((a.pem() + &b.pem()).as_bytes(), TrustBundleFormat::Pem).expect("bundle");
        assert_eq!(pem.authorities().count(), 2);
        let jwk = |purpose: &str, der: &[u8]| {
            format!(r#"{{"use":"{purpose}","kty":"EC","x5c":["{}"]}}"#, STANDARD.encode(der))
        };
        let json = format!(
            r#"{{"keys":[{},{}],"spiffe_sequence":1}}"#,
            jwk("x509-svid", a.der()),
            jwk("jwt-svid", b"ignored")
        );
        let document = parse(json.as_bytes(), TrustBundleFormat::Spiffe).expect("bundle");
        assert_eq!(document.authorities().map(|der| der.to_vec()).collect::<Vec<_>>(), [a.der().to_vec()]);
    }

    #[test]
    fn refuses_empty_and_unusable_files() {
        let refused = |bytes: &[u8], format| parse(bytes, format).expect_err("refused");
        assert!(matches!(refused(b"", TrustBundleFormat::Pem), BootstrapError::Format(_)));
        assert!(matches!(refused(b"{}", TrustBundleFormat::Spiffe), BootstrapError::Format(_)));
        assert!(matches!(
            refused(b"{\"keys\":[]}", TrustBundleFormat::Spiffe),
            BootstrapError::Content(AnswerRefusal::EmptyBundle)
        ));
        let leaf = CertificateParams::new(Vec::new()).expect("params");
        let leaf = leaf.self_signed(&KeyPair::generate().expect("key")).expect("leaf");
        assert!(matches!(
            refused(leaf.pem().as_bytes(), TrustBundleFormat::Pem),
            BootstrapError::Content(AnswerRefusal::NotAnAuthority)
        ));
    }
}
