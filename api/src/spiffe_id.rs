//! SPIFFE IDs and trust domains, parsed once and never normalised.
//!
//! Source: SPIFFE-ID.md §2. We generate and accept lower-case trust domains only.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::pb::types;

/// Longest SPIFFE ID accepted, bytes. Source: SPIFFE-ID.md §2.3.
pub const MAX_SPIFFE_ID_BYTES: usize = 2048;
/// Longest trust domain accepted, bytes. Source: SPIFFE-ID.md §2.3.
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// Why a text is not a SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpiffeIdError {
    /// Does not begin with `spiffe://`.
    #[error("scheme is not \"spiffe://\"")]
    Scheme,
    /// No trust domain, or one with characters outside `a-z0-9.-_`.
    #[error("trust domain must be 1 to {MAX_TRUST_DOMAIN_BYTES} characters of a-z, 0-9, '.', '-' and '_'")]
    TrustDomain,
    /// A trust domain's SPIFFE ID is wanted, and this one is a workload's or an agent's.
    #[error("a trust domain has no path: write {0:?} alone")]
    NotATrustDomain(String),
    /// Empty, `.` or `..` segment, trailing slash, or characters outside `a-zA-Z0-9.-_`.
    #[error("path must be segments of a-z, A-Z, 0-9, '.', '-' and '_', none of them empty, \".\" or \"..\"")]
    Path,
    /// More than 2048 bytes.
    #[error("longer than {MAX_SPIFFE_ID_BYTES} bytes")]
    TooLong,
    /// A message that must carry an ID carries none.
    #[error("no SPIFFE ID given")]
    Missing,
    /// The ID is a trust domain's own where a workload's or agent's is needed.
    #[error("path is empty")]
    NoPath,
    /// The ID belongs to another trust domain.
    #[error("trust domain is {found:?}, not {expected:?}")]
    OtherTrustDomain {
        /// The trust domain of the ID.
        found: String,
        /// The trust domain it must belong to.
        expected: String,
    },
}

/// A trust domain's name, such as `example.org`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses a bare name (`example.org`) or a trust domain's SPIFFE ID (`spiffe://example.org`).
    pub fn new(name: &str) -> Result<Self, SpiffeIdError> {
        let given = name;
        let name = given.strip_prefix("spiffe://").unwrap_or(given);
        match name.split_once('/') {
            None if is_legal_name(name) => Ok(Self(name.into())),
            Some((alone, path)) if is_legal_name(alone) => {
                Err(SpiffeIdError::NotATrustDomain(given[..given.len() - path.len() - "/".len()].to_owned()))
            }
            _ => Err(SpiffeIdError::TrustDomain),
        }
    }

    /// The bare name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `spiffe://name`.
    pub fn id(&self) -> SpiffeId {
        SpiffeId { text: format!("spiffe://{}", self.0).into(), trust_domain_bytes: self.0.len() }
    }

    /// `spiffe://name/spire/server`: the ID every server of the trust domain authenticates with.
    pub fn server_id(&self) -> SpiffeId {
        self.id_with_path("/spire/server").expect("a constant legal path")
    }

    /// `spiffe://name` followed by `path`, which begins with a slash.
    pub fn id_with_path(&self, path: &str) -> Result<SpiffeId, SpiffeIdError> {
        SpiffeId::from_parts(self.as_str(), path)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A SPIFFE ID. Any value of this type is well-formed; two are equal exactly when their texts are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain_bytes: usize,
}

impl SpiffeId {
    /// Parses `spiffe://trust-domain/path`; the path may be empty.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        //= ID-09 SPIFFE-ID 2.3: "SPIFFE implementations MUST support SPIFFE URIs up to 2048 bytes in length"
        //= ID-10 SPIFFE-ID 2.3: "SHOULD NOT generate URIs of length greater than 2048 bytes"
        if text.len() > MAX_SPIFFE_ID_BYTES {
            return Err(SpiffeIdError::TooLong);
        }
        //= ID-01 SPIFFE-ID 2: "Valid SPIFFE IDs MUST have the scheme set to `spiffe`"
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeIdError::Scheme)?;
        let (name, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if !is_legal_name(name) {
            return Err(SpiffeIdError::TrustDomain);
        }
        if !is_legal_path(path) {
            return Err(SpiffeIdError::Path);
        }
        Ok(Self { text: text.into(), trust_domain_bytes: name.len() })
    }

    /// Joins a trust domain's bare name and a path (empty, or beginning with a slash).
    pub fn from_parts(trust_domain: &str, path: &str) -> Result<Self, SpiffeIdError> {
        if trust_domain.contains('/') {
            return Err(SpiffeIdError::TrustDomain);
        }
        if !path.is_empty() && !path.starts_with('/') {
            return Err(SpiffeIdError::Path);
        }
        Self::parse(&format!("spiffe://{trust_domain}{path}"))
    }

    /// The whole ID as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The bare trust domain name.
    pub fn trust_domain_name(&self) -> &str {
        &self.text["spiffe://".len()..][..self.trust_domain_bytes]
    }

    /// The trust domain, in a text of its own: costs an allocation, [`Self::trust_domain_name`] none.
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.trust_domain_name().into())
    }

    /// The path, empty or with its leading slash.
    pub fn path(&self) -> &str {
        &self.text["spiffe://".len() + self.trust_domain_bytes..]
    }

    /// Whether the ID belongs to `trust_domain`.
    pub fn is_member_of(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain_name() == trust_domain.as_str()
    }

    /// The ID itself if it belongs to `trust_domain` and has a path.
    pub fn as_member_of(self, trust_domain: &TrustDomain) -> Result<Self, SpiffeIdError> {
        if !self.is_member_of(trust_domain) {
            return Err(SpiffeIdError::OtherTrustDomain {
                found: self.trust_domain_name().to_owned(),
                expected: trust_domain.as_str().to_owned(),
            });
        }
        if self.path().is_empty() {
            return Err(SpiffeIdError::NoPath);
        }
        Ok(self)
    }

    /// Whether the path is under `/spire/`, which is kept for servers and agents.
    pub fn is_reserved(&self) -> bool {
        self.path() == "/spire" || self.path().starts_with("/spire/")
    }

    /// Whether the ID can be an agent's: its path is below `/spire/agent/`. Source: SPIRE, IsAgentPath (pkg/common/idutil).
    pub fn names_an_agent(&self) -> bool {
        self.path().starts_with("/spire/agent/")
    }

    /// As SPIRE's messages have it: name and path apart.
    pub fn to_pb(&self) -> types::Spiffeid {
        types::Spiffeid { trust_domain: self.trust_domain_name().to_owned(), path: self.path().to_owned() }
    }

    /// The parsed form of a wire ID; a missing message is refused. The trust domain may be written as its SPIFFE ID. Source: SPIRE.
    pub fn from_pb(id: Option<&types::Spiffeid>) -> Result<Self, SpiffeIdError> {
        let id = id.ok_or(SpiffeIdError::Missing)?;
        let name = id.trust_domain.strip_prefix("spiffe://").unwrap_or(&id.trust_domain);
        Self::from_parts(name, &id.path)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.text)
    }
}

/// Of a trust domain, without its scheme.
fn is_legal_name(name: &str) -> bool {
    //= ID-02 SPIFFE-ID 2.1: "The `userinfo` and `port` parts of the authority component MUST be empty."
    //= ID-03 SPIFFE-ID 2.1: "The `host` part of the authority MUST be lowercase."
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= MAX_TRUST_DOMAIN_BYTES && name.bytes().all(legal)
}

fn is_legal_path(path: &str) -> bool {
    //= ID-05 SPIFFE-ID 2.2: "The path component MUST NOT include percent-encoded characters."
    //= ID-08 SPIFFE-ID 2.2: "segments MUST contain only letters, numbers, dots, dashes, and underscores"
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    //= ID-06 SPIFFE-ID 2.2: "segments that are empty or are relative path modifiers"
    let legal_segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(legal);
    //= ID-07 SPIFFE-ID 2.2: "The path component MUST NOT include a trailing `/`."
    path.is_empty() || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(legal_segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    //= ID-03 ID-08
    #[test]
    fn accepts_exactly_the_characters_of_the_standard() {
        for byte in 0..=255u8 {
            let c = char::from(byte);
            let in_name = c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
            let in_path = c.is_ascii_alphanumeric() || ".-_".contains(c) || c == '/';
            assert_eq!(SpiffeId::parse(&format!("spiffe://t{c}d")).is_ok(), in_name || c == '/', "name with {byte}");
            assert_eq!(SpiffeId::parse(&format!("spiffe://td/a{c}b")).is_ok(), in_path, "path with {byte}");
        }
    }

    //= ID-01 ID-02 ID-03 ID-04 ID-05 ID-06 ID-07
    #[test]
    fn refuses_what_a_normalising_parser_would_repair() {
        use SpiffeIdError::{Path, Scheme, TrustDomain as Name};
        for (text, why) in [
            ("", Scheme),
            ("SPIFFE://td/x", Scheme),
            ("https://td/x", Scheme),
            ("spiffe:/td", Scheme),
            ("spiffe://", Name),
            ("spiffe:///x", Name),
            ("spiffe://TD/x", Name),
            ("spiffe://t%64/x", Name),
            ("spiffe://u@td/x", Name),
            ("spiffe://td:443/x", Name),
            ("spiffe://[::1]/x", Name),
            ("spiffe://td?a", Name),
            ("spiffe://td#a", Name),
            ("spiffe://tд/x", Name),
            ("spiffe://td/", Path),
            ("spiffe://td/a/", Path),
            ("spiffe://td//a", Path),
            ("spiffe://td/a//b", Path),
            ("spiffe://td/./a", Path),
            ("spiffe://td/../a", Path),
            ("spiffe://td/a%2fb", Path),
            ("spiffe://td/%2e%2e", Path),
            ("spiffe://td/a b", Path),
            ("spiffe://td/a?b", Path),
            ("spiffe://td/é", Path),
            ("spiffe://td/a\0b", Path),
        ] {
            assert_eq!(SpiffeId::parse(text), Err(why), "{text:?}");
        }
    }

    //= ID-09 ID-10 FLT-A24
    #[test]
    fn accepts_2048_bytes_and_not_one_more() {
        let longest = format!("spiffe://td/{}", "a".repeat(MAX_SPIFFE_ID_BYTES - 12));
        assert_eq!(longest.len(), MAX_SPIFFE_ID_BYTES);
        assert!(SpiffeId::parse(&longest).is_ok());
        assert_eq!(SpiffeId::parse(&format!("{longest}a")), Err(SpiffeIdError::TooLong));
        assert!(TrustDomain::new(&"a".repeat(255)).is_ok());
        assert_eq!(TrustDomain::new(&"a".repeat(256)), Err(SpiffeIdError::TrustDomain));
    }

    //= ID-04 ID-11
    #[test]
    fn parts_and_wire_form_round_trip() {
        let id = SpiffeId::parse("spiffe://1.2.3.4/spire/agent/x").expect("legal");
        assert_eq!((id.trust_domain_name(), id.path()), ("1.2.3.4", "/spire/agent/x"));
        assert_eq!(SpiffeId::from_pb(Some(&id.to_pb())), Ok(id.clone()));
        let with_scheme = types::Spiffeid { trust_domain: "spiffe://1.2.3.4".into(), ..id.to_pb() };
        assert_eq!(SpiffeId::from_pb(Some(&with_scheme)), Ok(id.clone()), "as SPIRE takes it");
        let twice = types::Spiffeid { trust_domain: "spiffe://spiffe://1.2.3.4".into(), ..id.to_pb() };
        assert_eq!(SpiffeId::from_pb(Some(&twice)), Err(SpiffeIdError::TrustDomain));
        assert!(id.is_reserved() && id.names_an_agent());
        for other in
            ["spiffe://td/spire/agent", "spiffe://td/spire/agents/x", "spiffe://td/spire/server", "spiffe://td/x"]
        {
            assert!(!SpiffeId::parse(other).expect("legal").names_an_agent(), "{other}");
        }
        assert_eq!(SpiffeId::from_parts("td/x", "/y"), Err(SpiffeIdError::TrustDomain));
        assert_eq!(SpiffeId::from_parts("td", "y"), Err(SpiffeIdError::Path));
        assert_ne!(SpiffeId::parse("spiffe://td/A"), SpiffeId::parse("spiffe://td/a"));
    }
}
