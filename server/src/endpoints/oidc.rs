//! OpenID Connect discovery: who issues JWT-SVIDs, and the keys that verify them, for verifiers that know no SPIFFE.
//!
//! Source: OpenID Connect Discovery 1.0 §3, §4; the form of the answers is that of SPIRE's discovery provider.

use std::sync::Arc;

use ironroot_api::bundle::jwks;
use prost::bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{HeaderValue, StatusCode, header};

use super::bundle_api;
use super::web::{Answer, Answers, answer, refusal};
use crate::ca::TrustBundle;
use crate::config::OidcPolicy;

const CONFIGURATION: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/keys";
/// What signs JWT-SVIDs here and at SPIRE's.
const ALGORITHMS: [&str; 3] = ["RS256", "ES256", "ES384"];

/// The port of a URL that says none.
const HTTPS: u16 = 443;

/// Members in SPIRE's order.
#[derive(Serialize)]
struct Configuration<'a> {
    issuer: &'a str,
    jwks_uri: &'a str,
    authorization_endpoint: &'a str,
    response_types_supported: [&'a str; 1],
    subject_types_supported: [&'a str; 1],
    id_token_signing_alg_values_supported: [&'a str; 3],
}

/// Answers of the discovery listener.
#[derive(Debug)]
pub struct Oidc {
    bundle: watch::Receiver<Arc<TrustBundle>>,
    policy: OidcPolicy,
    port: Option<u16>,
}

impl Oidc {
    /// Shows the keys of JWT-SVIDs that `bundle` holds. `port`: where it listens; none at a unix socket.
    pub fn answers(bundle: watch::Receiver<Arc<TrustBundle>>, policy: OidcPolicy, port: Option<u16>) -> Answers {
        let oidc = Self { bundle, policy, port };
        Arc::new(move |request: &Parts| oidc.answer(request))
    }

    fn answer(&self, request: &Parts) -> Answer {
        match request.uri.path() {
            KEYS => refusal(request, KEYS).unwrap_or_else(|| self.keys()),
            _ => refusal(request, CONFIGURATION).unwrap_or_else(|| self.configuration(request)),
        }
    }

    fn configuration(&self, request: &Parts) -> Answer {
        let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let (domain, port) = name_and_port(host);
        if !self.policy.domains.contains(domain) {
            let domain: String = domain.chars().take(255).collect();
            return text(StatusCode::BAD_REQUEST, format!("domain {domain:?} is not allowed\n"));
        }
        let Some(issuer) = self.policy.issuer.clone().or_else(|| self.issuer_of(domain, port)) else {
            let words = "this port is not listened on: set jwt_issuer to the https URL that verifiers are given";
            return text(StatusCode::BAD_REQUEST, format!("{words}\n"));
        };
        let keys = || format!("{}{KEYS}", issuer.trim_end_matches('/'));
        let configuration = Configuration {
            issuer: &issuer,
            jwks_uri: &self.policy.jwks_uri.clone().unwrap_or_else(keys),
            authorization_endpoint: "",
            response_types_supported: ["id_token"],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: ALGORITHMS,
        };
        let json = serde_json::to_vec_pretty(&configuration).expect("texts into memory");
        // It changes with the configuration alone.
        public(json.into(), "public, max-age=300")
    }

    /// The issuer where none is configured: the name that is asked for, at our own port or at that of https. Another port is whatever the
    /// caller has written; SPIRE repeats it, and a cache that leaves ports out of its keys would show the answer to others.
    fn issuer_of(&self, domain: &str, port: Option<u16>) -> Option<String> {
        match port {
            None | Some(HTTPS) => Some(format!("https://{domain}")),
            own if own == self.port => own.map(|port| format!("https://{domain}:{port}")),
            Some(_) => None,
        }
    }

    /// Keys are published before they sign: half of a CA's life at the most is a verifier late that looks when it meets a new one.
    fn keys(&self) -> Answer {
        let bundle = self.bundle.borrow().clone();
        let keys = bundle_api::to_pb(&bundle).jwt_authorities;
        if keys.is_empty() {
            return text(StatusCode::NOT_IMPLEMENTED, "jwt not supported/enabled in this service\n".to_owned());
        }
        match jwks(&keys, self.policy.set_key_use.then_some("sig")) {
            Ok(json) => public(json.into(), "no-cache, no-store, must-revalidate"),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "document not available\n".to_owned()),
        }
    }
}

/// `host` without its port, and that; what is no port belongs to the name, which no domain has.
fn name_and_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((domain, "")) => (domain, None),
        Some((domain, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => match port.parse() {
            Ok(port) => (domain, Some(port)),
            Err(_) => (host, None),
        },
        _ => (host, None),
    }
}

/// JSON that programs in browsers may read, too.
fn public(json: Bytes, cache: &'static str) -> Answer {
    let mut answer = answer(StatusCode::OK, "application/json", json);
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer
}

fn text(status: StatusCode, words: String) -> Answer {
    answer(status, "text/plain; charset=utf-8", words.into())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use ironroot_api::TrustDomain;
    use serde_json::Value;
    use tonic::codegen::http::Request;

    use super::*;

    fn answers(issuer: Option<&str>, jwks_uri: Option<&str>) -> Answers {
        let bundle = TrustBundle {
            trust_domain: TrustDomain::new("td").expect("legal"),
            authorities: Vec::new(),
            tainted_authorities: std::collections::BTreeSet::new(),
            jwt_authorities: Vec::new(),
            wit_authorities: Vec::new(),
            sequence_number: 1,
            refresh_hint_seconds: 1,
        };
        let policy = OidcPolicy {
            domains: ["oidc.example".to_owned()].into(),
            issuer: issuer.map(str::to_owned),
            jwks_uri: jwks_uri.map(str::to_owned),
            set_key_use: false,
        };
        Oidc::answers(watch::channel(Arc::new(bundle)).1, policy, Some(8443))
    }

    async fn ask(answers: &Answers, method: &str, path: &str, host: &str) -> (u16, String, Option<String>) {
        let request = Request::builder().method(method).uri(path).header("host", host).body(()).expect("legal");
        let answer = answers(&request.into_parts().0);
        let cache = answer.headers().get("cache-control").map(|value| value.to_str().expect("text").to_owned());
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("whole").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"), cache)
    }

    #[tokio::test]
    async fn the_configuration_names_the_issuer_and_where_its_keys_are_in_spires_form() {
        let (status, body, cache) = ask(&answers(None, None), "GET", CONFIGURATION, "oidc.example:8443").await;
        assert_eq!((status, cache.as_deref()), (200, Some("public, max-age=300")));
        let wanted = r#"{
  "issuer": "https://oidc.example:8443",
  "jwks_uri": "https://oidc.example:8443/keys",
  "authorization_endpoint": "",
  "response_types_supported": [
    "id_token"
  ],
  "subject_types_supported": [
    "public"
  ],
  "id_token_signing_alg_values_supported": [
    "RS256",
    "ES256",
    "ES384"
  ]
}"#;
        assert_eq!(body, wanted);
        let configured = answers(Some("https://issuer.example/td/"), None);
        let (_, body, _) = ask(&configured, "GET", CONFIGURATION, "oidc.example").await;
        let json: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(json["issuer"], "https://issuer.example/td/");
        assert_eq!(json["jwks_uri"], "https://issuer.example/td/keys");
        let (_, body, _) = ask(&answers(None, Some("https://k.example/")), "GET", CONFIGURATION, "oidc.example").await;
        assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON")["jwks_uri"], "https://k.example/");
    }

    #[tokio::test]
    async fn only_a_port_that_is_ours_is_said() {
        let unconfigured = answers(None, None);
        for (host, issuer) in [
            ("oidc.example:8443", "https://oidc.example:8443"),
            ("oidc.example", "https://oidc.example"),
            ("oidc.example:443", "https://oidc.example"),
            ("oidc.example:", "https://oidc.example"),
        ] {
            let (status, body, _) = ask(&unconfigured, "GET", CONFIGURATION, host).await;
            assert_eq!(status, 200, "{host}: {body}");
            let json: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!((&json["issuer"], &json["jwks_uri"]), (&issuer.into(), &format!("{issuer}/keys").into()));
        }
        for host in ["oidc.example:8444", "oidc.example:0", "oidc.example:65536"] {
            let (status, body, cache) = ask(&unconfigured, "GET", CONFIGURATION, host).await;
            assert_eq!((status, cache), (400, None), "{host}: {body}");
        }
        // A proxy may listen wherever it likes where the operator says who the issuer is.
        let configured = answers(Some("https://issuer.example"), None);
        let (status, body, _) = ask(&configured, "GET", CONFIGURATION, "oidc.example:9443").await;
        assert!(status == 200 && !body.contains("9443"), "{body}");
    }

    #[tokio::test]
    async fn other_names_methods_and_paths_are_refused() {
        let answers = answers(None, None);
        for host in ["evil.example", "", "oidc.example.evil.example", "oidc.example:x"] {
            let (status, body, _) = ask(&answers, "GET", CONFIGURATION, host).await;
            assert_eq!((status, body.contains("is not allowed")), (400, true), "{host}: {body}");
        }
        assert_eq!(ask(&answers, "POST", CONFIGURATION, "oidc.example").await.0, 405);
        assert_eq!(ask(&answers, "GET", "/", "oidc.example").await.0, 404);
        let (status, body, _) = ask(&answers, "GET", KEYS, "oidc.example").await;
        assert_eq!((status, body.as_str()), (501, "jwt not supported/enabled in this service\n"));
    }
}
