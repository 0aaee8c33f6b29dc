//! What an exchange answers. Source: RFC 8693 §2.2; RFC 6749 §5.

use der::pem::{LineEnding, encode_string};
use ironroot_api::SpiffeId;
use ironroot_shell::command_line::describe;
use prost::bytes::Bytes;
use serde::Serialize;
use tonic::Code;
use tonic::codegen::http::{HeaderValue, StatusCode, header};

use super::request::{FormRefusal, JWT, X509_SVID};
use crate::ca::{Audience, IssuedSvid, IssuedToken};
use crate::endpoints::web::{Answer, answer};
use crate::token_exchange::{ProvenToken, TokenRefusal};

/// When somebody who is over a share may come again, seconds.
const COME_AGAIN: &str = "30";
/// Longest reason told, characters.
const MAX_REASON: usize = 1024;

/// What was issued: the answer, and what the audit says of it.
pub(super) struct Issued {
    pub answer: Answer,
    pub object: String,
}

#[derive(Serialize)]
struct Exchanged<'a> {
    access_token: &'a str,
    issued_token_type: &'static str,
    token_type: &'static str,
    expires_in: i64,
    /// The identity.
    scope: &'a str,
    /// What others of the trust domain are verified by, PEM. Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_bundle: Option<String>,
}

/// A JWT-SVID, which is shown as a bearer token.
pub(super) fn issued_jwt(id: &SpiffeId, audience: &Audience, svid: IssuedToken) -> Issued {
    let exchanged = Exchanged {
        access_token: &svid.token,
        issued_token_type: JWT,
        token_type: "Bearer",
        expires_in: svid.expires_at_unix - svid.issued_at_unix,
        scope: id.as_str(),
        trust_bundle: None,
    };
    Issued { answer: json(StatusCode::OK, &exchanged), object: format!("audience {}", audience.recipients().join(",")) }
}

/// A chain, the SVID first, and the authorities (DER) that those of others lead to. Source of `N_A`: RFC 8693 §2.2.1.
pub(super) fn issued_x509(id: &SpiffeId, svid: &IssuedSvid, authorities: &[Vec<u8>], now_unix: i64) -> Issued {
    let exchanged = Exchanged {
        access_token: &pem(&svid.chain),
        issued_token_type: X509_SVID,
        token_type: "N_A",
        expires_in: svid.not_after_unix - now_unix,
        scope: id.as_str(),
        trust_bundle: Some(pem(authorities)),
    };
    Issued { answer: json(StatusCode::OK, &exchanged), object: format!("serial {}", svid.serial) }
}

fn pem(certificates: &[Vec<u8>]) -> String {
    let text = |der: &Vec<u8>| encode_string("CERTIFICATE", LineEnding::LF, der).expect("some kilobytes are PEM");
    certificates.iter().map(text).collect()
}

/// Why nothing was issued.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    status: StatusCode,
    error: &'static str,
    /// As the audit has it.
    pub code: Code,
    pub reason: String,
    /// What the audit says of it: whose token it was, if that was proven.
    pub object: String,
}

impl Refused {
    /// Somebody is over a share.
    pub fn too_many() -> Self {
        let (status, reason) = (StatusCode::TOO_MANY_REQUESTS, "too many at once; try again later".to_owned());
        Self { status, code: Code::ResourceExhausted, ..Self::later(reason) }
    }

    /// It is nothing about the token, and may be otherwise soon.
    pub fn later(reason: String) -> Self {
        let (status, error) = (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
        Self { status, error, code: Code::Unavailable, reason, object: String::new() }
    }

    fn bad(error: &'static str, code: Code, reason: &(dyn std::error::Error + 'static)) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, code, reason: describe(reason), object: String::new() }
    }

    /// That token had proven itself.
    pub fn about(self, token: &ProvenToken) -> Self {
        Self { object: format!("{} {}", token.issuer(), token.subject()), ..self }
    }

    /// As the caller has it.
    pub fn answer(&self) -> Answer {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'a str,
            error_description: String,
        }
        let body = Body { error: self.error, error_description: described(&self.reason) };
        let mut answer = json(self.status, &body);
        if self.error == "temporarily_unavailable" {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(COME_AGAIN));
        }
        answer
    }
}

/// Source of the words: RFC 6749 §5.2, RFC 8693 §2.2.2.
impl From<FormRefusal> for Refused {
    fn from(refusal: FormRefusal) -> Self {
        let error = match refusal {
            FormRefusal::GrantType => "unsupported_grant_type",
            FormRefusal::Scope(_) => "invalid_scope",
            FormRefusal::Audience(_) | FormRefusal::Resource => "invalid_target",
            _ => "invalid_request",
        };
        let refused = Self::bad(error, Code::InvalidArgument, &refusal);
        match refusal {
            FormRefusal::TooLong => Self { status: StatusCode::PAYLOAD_TOO_LARGE, ..refused },
            _ => refused,
        }
    }
}

/// Of a token that is not taken the error is `invalid_request`. Source: RFC 8693 §2.2.2.
impl From<TokenRefusal> for Refused {
    fn from(refusal: TokenRefusal) -> Self {
        match refusal {
            TokenRefusal::NoKeys(_)
            | TokenRefusal::LookedJustNow { .. }
            | TokenRefusal::Busy(_)
            | TokenRefusal::TooManyUsed
            | TokenRefusal::NotNoted => Self::later(describe(&refusal)),
            TokenRefusal::NotThisOne { .. } | TokenRefusal::Ambiguous(_) => {
                Self::bad("invalid_scope", Code::PermissionDenied, &refusal)
            }
            _ => Self::bad("invalid_request", Code::PermissionDenied, &refusal),
        }
    }
}

/// In the characters that an error may have. Source: RFC 6749 §5.2.
fn described(reason: &str) -> String {
    let legal = |c: char| match c {
        '"' => '\'',
        ' ' | '!' | '#'..='[' | ']'..='~' => c,
        _ => '?',
    };
    reason.chars().take(MAX_REASON).map(legal).collect()
}

/// Of what is in it nobody may keep a copy. Source: RFC 6749 §5.1.
fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(body).expect("texts and numbers are JSON");
    let mut answer = answer(status, "application/json", Bytes::from(body));
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_in_the_characters_that_an_error_may_have_and_not_at_length() {
        assert_eq!(described("issuer \"https://x\\y\"\n\u{fc}"), "issuer 'https://x?y'??");
        assert_eq!(described(&"x".repeat(MAX_REASON + 1)).len(), MAX_REASON);
    }

    #[test]
    fn what_may_be_otherwise_soon_says_when_to_come_again() {
        let just_now = TokenRefusal::LookedJustNow { issuer: "https://ci".into(), key_id: "k2".into() };
        for refused in [Refused::too_many(), TokenRefusal::NoKeys("https://ci".into()).into(), just_now.into()] {
            assert_eq!(
                refused.answer().headers().get(header::RETRY_AFTER).map(|when| when.as_bytes()),
                Some(&b"30"[..])
            );
        }
        let bad = Refused::from(TokenRefusal::Used);
        assert_eq!(
            (bad.status, bad.error, bad.answer().headers().get(header::RETRY_AFTER)),
            (StatusCode::BAD_REQUEST, "invalid_request", None)
        );
        assert_eq!(Refused::from(FormRefusal::TooLong).status, StatusCode::PAYLOAD_TOO_LARGE);
    }
}
