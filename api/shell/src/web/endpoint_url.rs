//! The URL of a bundle endpoint, or of another web server.

use std::fmt;

use http::Uri;
use thiserror::Error;

/// Longest URL accepted, bytes. Ours: what HTTP servers take of a request's first line.
pub const MAX_URL_BYTES: usize = 2048;

/// Why a text is no URL of a bundle endpoint. The words are SPIRE's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Not a URL at all, or too long for one.
    #[error("failed to parse bundle endpoint URL: {0}")]
    Malformed(String),
    /// Anything else can be read and altered on its way.
    #[error("bundle endpoint URL must use the https scheme")]
    Scheme,
    /// Nowhere to connect to.
    #[error("bundle endpoint URL must specify the host")]
    NoHost,
    /// A password has no place in there.
    #[error("bundle endpoint URL must not contain user info")]
    UserInfo,
}

/// The same of a URL that is no bundle endpoint's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", .0.to_string().replacen("bundle endpoint URL", "URL", 1))]
pub struct OtherUrlError(pub UrlError);

/// An `https` URL with a host and without user information. It is kept as it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointUrl {
    text: String,
    uri: Uri,
}

impl EndpointUrl {
    /// Checks a URL.
    //= FED-08 SPIFFE Federation 5.2.1.1: "MUST have the scheme set to `https` and MUST NOT include userinfo in the authority component"
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlError::Malformed(format!("longer than {MAX_URL_BYTES} bytes")));
        }
        // A fragment is nothing that a server is asked for.
        let asked = text.split('#').next().unwrap_or_default();
        match asked.split_once("://") {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {}
            _ => return Err(UrlError::Scheme),
        }
        let rest = &asked["https://".len()..];
        if rest.is_empty() || rest.starts_with(['/', '?', ':']) {
            return Err(UrlError::NoHost);
        }
        let uri: Uri = asked.parse().map_err(|error| UrlError::Malformed(format!("{error}")))?;
        let authority = uri.authority().ok_or(UrlError::NoHost)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        if authority.host().is_empty() {
            return Err(UrlError::NoHost);
        }
        if authority.port_u16().is_none() && authority.as_str() != authority.host() {
            return Err(UrlError::Malformed("what follows the host is no port".to_owned()));
        }
        Ok(Self { text: text.to_owned(), uri })
    }

    /// Where an answer from here leads to: whole, or a path at the same place. It is held to what any endpoint is.
    //= FED-08 SPIFFE Federation 5.2.1.1: "MUST have the scheme set to `https` and MUST NOT include userinfo in the authority component"
    pub fn led_to(&self, location: &str) -> Result<Self, UrlError> {
        match (location.starts_with('/') && !location.starts_with("//"), self.uri.authority()) {
            (true, Some(authority)) => Self::parse(&format!("https://{authority}{location}")),
            _ => Self::parse(location),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its parts.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The name or address to connect to, without brackets.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default().trim_matches(['[', ']'])
    }

    /// What is asked for there: path and query.
    pub fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    /// Host and port as they are written.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// The TCP port to connect to.
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(443)
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= FED-08
    #[test]
    fn only_https_urls_with_a_host_and_without_a_user_are_taken() {
        for (text, host, port) in [
            ("https://other.test", "other.test", 443),
            ("HTTPS://other.test:8443/a/b?c=d", "other.test", 8443),
            ("https://127.0.0.1:1/", "127.0.0.1", 1),
            ("https://[::1]:2/#part", "::1", 2),
        ] {
            let url = EndpointUrl::parse(text).expect(text);
            assert_eq!((url.host(), url.port(), url.as_str()), (host, port, text));
        }
        let malformed = |text: &str| matches!(EndpointUrl::parse(text), Err(UrlError::Malformed(_)));
        assert!(malformed(&format!("https://other.test/{}", "x".repeat(MAX_URL_BYTES))));
        assert!(malformed("https://other test/") && malformed("https://other.test:99999/"));
        for (text, why) in [
            ("", UrlError::Scheme),
            ("other.test", UrlError::Scheme),
            ("http://other.test", UrlError::Scheme),
            ("spiffe://other.test", UrlError::Scheme),
            ("https://", UrlError::NoHost),
            ("https:///path", UrlError::NoHost),
            ("https://:443/", UrlError::NoHost),
            ("https://user:pw@other.test/", UrlError::UserInfo),
            ("https://user@other.test/", UrlError::UserInfo),
        ] {
            assert_eq!(EndpointUrl::parse(text), Err(why), "{text}");
        }
    }
}
