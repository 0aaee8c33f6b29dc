//! Why there is no new certificate.

use std::time::Duration;

use thiserror::Error;

use super::certificate::CertificateRefusal;
use super::courier::CourierError;
use super::folder::FolderError;

/// Longest part of a CA's own words that is repeated, characters.
const MAX_WORDS: usize = 400;
/// What a CA says of an account that it does not know, as after its data were lost. Source: RFC 8555 §6.7.
const UNKNOWN_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why there is no new certificate. Whose fault: the way to the CA's, the CA's, ours.
#[derive(Debug, Error)]
pub enum AcmeError {
    /// Nothing to prove the CA by.
    #[error("this machine knows no authorities of the web: install ca-certificates, or name a file in SSL_CERT_FILE")]
    NoWebAuthorities,
    /// It was not reached, or what it answers is out of bounds.
    #[error("the CA cannot be asked")]
    Courier(#[from] CourierError),
    /// It says no, in its own words.
    #[error("the CA refuses: {words}")]
    Refused {
        /// What it says, for people.
        words: String,
        /// Whether it does not know our account (any more).
        unknown_account: bool,
    },
    /// It answers what this client does not understand.
    #[error("the CA's answer is not understood: {0}")]
    NotUnderstood(String),
    /// It did not come to an end.
    #[error("the CA did not finish the order within {} seconds", .0.as_secs())]
    Late(Duration),
    /// It wants to see something else than what TLS can show.
    #[error("the CA offers no challenge of kind tls-alpn-01 for this name")]
    NoChallenge,
    /// It wants to be shown that another name is ours.
    #[error("the CA asks about other names than the one that was ordered")]
    OtherNames,
    /// It does not give the order's names back as ours.
    #[error("the CA has not seen at port 443 of this name what it asked for: {0}")]
    NotSeen(String),
    /// What it issued is nothing that can be shown.
    #[error("what the CA issued cannot be shown")]
    Certificate(#[from] CertificateRefusal),
    /// The account's key cannot be kept.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The key of what the CA wants to see cannot be used.
    #[error("cannot show the CA what it wants to see")]
    Challenge(#[source] rustls::Error),
    /// A key or a request could not be made.
    #[error("cannot make a key or a request for a certificate")]
    Made(#[from] rcgen::Error),
}

impl AcmeError {
    /// Whether the CA may be asked again soon, since it has counted no failed order of ours: it was not reached, or does not know us.
    pub fn may_be_tried_soon(&self) -> bool {
        matches!(self, Self::Courier(_)) || self.is_unknown_account()
    }

    /// Whether the account must be made anew.
    pub(super) fn is_unknown_account(&self) -> bool {
        matches!(self, Self::Refused { unknown_account: true, .. })
    }
}

impl From<instant_acme::Error> for AcmeError {
    fn from(error: instant_acme::Error) -> Self {
        use instant_acme::Error::{Api, Other, Timeout};
        match error {
            Api(problem) => Self::Refused {
                unknown_account: problem.r#type.as_deref() == Some(UNKNOWN_ACCOUNT),
                words: for_people(&problem.to_string()),
            },
            Timeout(_) => Self::Late(super::order::POLL_DEADLINE),
            Other(cause) => match cause.downcast::<CourierError>() {
                Ok(courier) => Self::Courier(*courier),
                Err(other) => Self::NotUnderstood(for_people(&other.to_string())),
            },
            other => Self::NotUnderstood(for_people(&other.to_string())),
        }
    }
}

/// A stranger's words: one line of a bounded length.
pub(super) fn for_people(words: &str) -> String {
    words.chars().take(MAX_WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cas_words_are_one_bounded_line_and_an_unknown_account_is_told_apart() {
        let json =
            serde_json::json!({ "type": UNKNOWN_ACCOUNT, "detail": format!("line\n\u{1b}[31m{}", "x".repeat(5000)) });
        let problem: instant_acme::Problem = serde_json::from_value(json).expect("a problem");
        let error = AcmeError::from(instant_acme::Error::Api(problem));
        assert!(error.is_unknown_account() && error.may_be_tried_soon());
        let words = error.to_string();
        assert!(words.len() < 600 && !words.contains(['\n', '\u{1b}']), "{words}");
        let late = AcmeError::from(instant_acme::Error::Other(Box::new(CourierError::Late)));
        assert!(late.may_be_tried_soon() && !late.is_unknown_account());
        assert!(!AcmeError::NoChallenge.may_be_tried_soon());
    }
}
