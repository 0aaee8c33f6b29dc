//! For whom a token is: parsed at the door, so that a token without one cannot be made. Source: JWT-SVID §3.2.

use thiserror::Error;

/// The recipients that a token names, at least one, none of them empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience(Vec<String>);

/// A request that names no recipient. Source of the words: SPIRE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("at least one audience is required")]
pub struct NoAudience;

impl Audience {
    /// Those of the request that are not empty, in its order; SPIRE leaves the empty ones out too.
    pub fn parse(asked: Vec<String>) -> Result<Self, NoAudience> {
        let named: Vec<String> = asked.into_iter().filter(|recipient| !recipient.is_empty()).collect();
        if named.is_empty() { Err(NoAudience) } else { Ok(Self(named)) }
    }

    /// In the order in which they were asked for.
    pub fn recipients(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_request_that_names_no_recipient() {
        let asked = |names: &[&str]| Audience::parse(names.iter().map(|name| (*name).to_owned()).collect());
        for nobody in [&[][..], &[""], &["", ""]] {
            assert_eq!(asked(nobody), Err(NoAudience));
        }
        let named = asked(&["b", "", "a"]).unwrap();
        assert_eq!(named.recipients(), ["b", "a"]);
    }
}
