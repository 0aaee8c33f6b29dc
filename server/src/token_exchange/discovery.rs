//! The discovery document of an issuer: where its keys are.

use ironroot_shell::web::{EndpointUrl, OtherUrlError, UrlError};
use serde::Deserialize;

/// Below an issuer's URL. Source: OpenID Connect Discovery 1.0 §4.
const DOCUMENT: &str = "/.well-known/openid-configuration";

/// Why a document does not say where the keys are.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiscoveryError {
    #[error("its discovery document is no JSON object with issuer and jwks_uri")]
    Json(#[source] serde_json::Error),
    /// It is another issuer's.
    #[error("its discovery document is that of issuer {0:?}")]
    OtherIssuer(String),
    #[error("its discovery document names a jwks_uri where no keys are fetched from")]
    KeysUrl(#[source] OtherUrlError),
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

/// Where the document of the issuer at `url` is.
pub fn document_url(url: &str) -> Result<EndpointUrl, UrlError> {
    EndpointUrl::parse(&format!("{}{DOCUMENT}", url.trim_end_matches('/')))
}

/// Where the keys of `issuer` are, by its document.
//= EXC-04 OpenID Connect Discovery 4.3: "The issuer value returned MUST be identical to the Issuer URL that was used as the prefix"
pub(super) fn keys_url(issuer: &str, document: &[u8]) -> Result<EndpointUrl, DiscoveryError> {
    let document: Document = serde_json::from_slice(document).map_err(DiscoveryError::Json)?;
    if document.issuer != issuer {
        return Err(DiscoveryError::OtherIssuer(document.issuer.chars().take(256).collect()));
    }
    EndpointUrl::parse(&document.jwks_uri).map_err(|why| DiscoveryError::KeysUrl(OtherUrlError(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_below_the_issuer_with_or_without_a_slash_at_its_end() {
        for issuer in ["https://ci.example", "https://ci.example/"] {
            let url = document_url(issuer).expect("a URL");
            assert_eq!(url.as_str(), "https://ci.example/.well-known/openid-configuration");
        }
        assert_eq!(document_url("http://ci.example").err(), Some(UrlError::Scheme));
    }

    //= EXC-04
    #[test]
    fn a_document_of_another_issuer_or_that_leads_out_of_https_is_refused() {
        let read = |issuer: &str, keys: &str| {
            let document = format!(r#"{{ "issuer": "{issuer}", "jwks_uri": "{keys}", "more": 1 }}"#);
            keys_url("https://ci.example", document.as_bytes())
        };
        let url = read("https://ci.example", "https://keys.example/k").expect("good");
        assert_eq!(url.as_str(), "https://keys.example/k");
        for issuer in ["https://ci.example/", "https://CI.example", "https://evil.example", ""] {
            assert!(matches!(read(issuer, "https://k.example"), Err(DiscoveryError::OtherIssuer(_))), "{issuer}");
        }
        for keys in ["http://ci.example/k", "file:///etc/passwd", "https://user@ci.example/k", ""] {
            let Err(DiscoveryError::KeysUrl(why)) = read("https://ci.example", keys) else { panic!("{keys}") };
            assert!(!why.to_string().contains("bundle"), "{why}");
        }
        for text in ["", "[]", "{}", r#"{ "issuer": 1, "jwks_uri": "https://k" }"#] {
            let read = keys_url("https://ci.example", text.as_bytes());
            assert!(matches!(read, Err(DiscoveryError::Json(_))), "{text}");
        }
    }

    #[test]
    fn documents_survive_damage() {
        let seed = r#"{ "issuer": "https://ci.example", "jwks_uri": "https://keys.example/k", "more": [1] }"#;
        ironroot_fuzz::Target::new("discovery document").seed(seed).survives(|bytes| {
            if let Ok(url) = keys_url("https://ci.example", bytes) {
                assert!(
                    url.as_str().to_ascii_lowercase().starts_with("https://"),
                    "a scheme counts in any case: {}",
                    url.as_str()
                );
            }
        });
    }
}
