//! For whom a token is: parsed at the door, so that a token without one cannot be made. Source: JWT-SVID §3.2.

use ironroot_api::jwt::{AudienceRefusal, check_room};
use thiserror::Error;

/// The recipients that a token names, at least one, none of them empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience(Vec<String>);

/// Why nothing is signed for the recipients of a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AudienceError {
    /// It names none. Source of the words: SPIRE.
    #[error("at least one audience is required")]
    None,
    /// No token holds them.
    #[error(transparent)]
    Refused(#[from] AudienceRefusal),
}

impl Audience {
    /// Those of the request that are not empty, in its order; SPIRE leaves the empty ones out too.
    pub fn parse(asked: Vec<String>) -> Result<Self, AudienceError> {
        let named: Vec<String> = asked.into_iter().filter(|recipient| !recipient.is_empty()).collect();
        if named.is_empty() {
            return Err(AudienceError::None);
        }
        check_room(&named)?;
        Ok(Self(named))
    }

    /// In the order in which they were asked for.
    pub fn recipients(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::jwt::MAX_AUDIENCES_BYTES;

    use super::*;

    #[test]
    fn refuses_a_request_that_names_no_recipient() {
        let asked = |names: &[&str]| Audience::parse(names.iter().map(|name| (*name).to_owned()).collect());
        for nobody in [&[][..], &[""], &["", ""]] {
            assert_eq!(asked(nobody), Err(AudienceError::None));
        }
        let named = asked(&["b", "", "a"]).unwrap();
        assert_eq!(named.recipients(), ["b", "a"]);
        let long = "a".repeat(MAX_AUDIENCES_BYTES);
        assert_eq!(asked(&[&long]), Err(AudienceRefusal::TooMuch.into()));
    }
}
