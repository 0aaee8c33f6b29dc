//! Names of tokens and keys: `pkcs11:` URIs.
//!
//! Source: RFC 7512. A PIN inside the URI (`pin-value`) is refused: configuration holds paths to secrets, not secrets.

mod key;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

/// Longest URI accepted, bytes.
const MAX_URI_BYTES: usize = 2048;

/// Why a text is no URI that we can use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UriError {
    /// Does not begin with `pkcs11:`, or is longer than 2048 bytes.
    #[error("must begin with \"pkcs11:\" and be at most {MAX_URI_BYTES} bytes long")]
    Scheme,
    /// A component without `=`, or with a broken percent escape.
    #[error("malformed component {0:?}")]
    Malformed(String),
    /// An attribute that is not supported; ignoring it could select another token.
    #[error("unsupported attribute {0:?}")]
    Unsupported(String),
    /// The same attribute twice.
    #[error("attribute {0:?} is given twice")]
    Repeated(String),
    /// An attribute of keys and other objects. Passing over it could mean another key than the one that was named.
    #[error(
        "{0:?} names an object in a token, and here a token is named: leave it out; keys that an administrator has made are named by \
         key_ids and key_labels"
    )]
    NamesObject(String),
    /// Nothing says which key is meant.
    #[error("names no key; give at least one of \"object\" (its CKA_LABEL) and \"id\" (its CKA_ID, each byte as %xx)")]
    NoKey,
    /// A certificate, or a public key.
    #[error("\"type\" is {0:?}, and here a private key is named: leave it out, or write type=private")]
    NoPrivateKey(String),
    /// The PIN itself is in the URI.
    #[error("\"pin-value\" is refused; put the PIN into a file of mode 0600 and name it with \"pin-source=file:...\"")]
    PinValue,
    /// Nothing says which token is meant.
    #[error("names no token; give at least one of \"token\", \"serial\" and \"slot-id\"")]
    NoToken,
}

pub use key::KeyUri;

use crate::name::KeyName;

/// Which token, and optionally which PIN file and module. All given attributes must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenUri {
    token: Option<String>,
    serial: Option<String>,
    manufacturer: Option<String>,
    model: Option<String>,
    slot_id: Option<u64>,
    module_path: Option<PathBuf>,
    pin_source: Option<PathBuf>,
}

/// What a token is called, without padding.
#[derive(Clone, Copy)]
pub(crate) struct TokenNames<'a> {
    pub(crate) label: &'a str,
    pub(crate) serial: &'a str,
    pub(crate) manufacturer: &'a str,
    pub(crate) model: &'a str,
}

/// Trailing blanks and NULs are padding, in the token and in what an operator copied from a tool.
pub(crate) fn without_padding(name: &str) -> &str {
    name.trim_end_matches([' ', '\0'])
}

impl TokenUri {
    /// Parses `pkcs11:token=...;serial=...?module-path=...`.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let rest = without_scheme(text).filter(|_| text.len() <= MAX_URI_BYTES).ok_or(UriError::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self::default();
        for component in path.split(';').filter(|c| !c.is_empty()) {
            uri.set_path_attribute(component)?;
        }
        for component in query.split('&').filter(|c| !c.is_empty()) {
            uri.set_query_attribute(component)?;
        }
        if uri.token.is_none() && uri.serial.is_none() && uri.slot_id.is_none() {
            return Err(UriError::NoToken);
        }
        Ok(uri)
    }

    /// A URI that names a token by its label alone.
    pub fn with_label(label: &str) -> Self {
        Self { token: Some(label.to_owned()), ..Self::default() }
    }

    /// The token with this serial number.
    pub fn with_serial(serial: &str) -> Self {
        Self { serial: Some(serial.to_owned()), ..Self::default() }
    }

    /// The module's path, if one is named.
    pub fn module_path(&self) -> Option<&Path> {
        self.module_path.as_deref()
    }

    /// The file with the PIN, if one is named.
    pub fn pin_source(&self) -> Option<&Path> {
        self.pin_source.as_deref()
    }

    /// The URI of a private key of this token, for software that is to use it: with where its PIN is, and without the module, of which some
    /// that read URIs want to know nothing there (libp11 0.4.12). Source: RFC 7512 §2.3, §2.4.
    pub fn of_private_key(&self, key: &KeyName) -> String {
        let mut uri = self.to_string();
        if let Some(id) = key.id() {
            uri += ";id=";
            uri.extend(id.as_bytes().iter().map(|byte| format!("%{byte:02X}")));
        }
        if let Some(label) = key.label() {
            uri += &format!(";object={}", encode(label));
        }
        uri += ";type=private";
        if let Some(pin) = &self.pin_source {
            let segments: Vec<String> = pin.to_string_lossy().split('/').map(encode).collect();
            uri += &format!("?pin-source=file:{}", segments.join("/"));
        }
        uri
    }

    /// Whether all that is given is true of the token in this slot; padding does not count.
    pub(crate) fn matches(&self, slot_id: u64, token: TokenNames<'_>) -> bool {
        let same = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| without_padding(w) == found);
        same(&self.token, token.label)
            && same(&self.serial, token.serial)
            && same(&self.manufacturer, token.manufacturer)
            && same(&self.model, token.model)
            && self.slot_id.is_none_or(|wanted| wanted == slot_id)
    }

    /// Whether nothing but this slot's number is given.
    pub(crate) fn names_only_slot(&self, slot_id: u64) -> bool {
        let texts = [&self.token, &self.serial, &self.manufacturer, &self.model];
        self.slot_id == Some(slot_id) && texts.iter().all(|text| text.is_none())
    }

    fn set_path_attribute(&mut self, component: &str) -> Result<(), UriError> {
        let (name, value) = split(component)?;
        match name {
            "token" => put(&mut self.token, name, text(component, value)?),
            "serial" => put(&mut self.serial, name, text(component, value)?),
            "manufacturer" => put(&mut self.manufacturer, name, text(component, value)?),
            "model" => put(&mut self.model, name, text(component, value)?),
            "slot-id" => {
                let number = value.parse().map_err(|_| UriError::Malformed(component.to_owned()))?;
                put(&mut self.slot_id, name, number)
            }
            // Source: RFC 7512 §2.3: these and no others are compared with an object's attributes.
            "object" | "id" | "type" => Err(UriError::NamesObject(name.to_owned())),
            _ => Err(UriError::Unsupported(name.to_owned())),
        }
    }

    fn set_query_attribute(&mut self, component: &str) -> Result<(), UriError> {
        let (name, value) = split(component)?;
        match name {
            "module-path" => put(&mut self.module_path, name, text(component, value)?.into()),
            "pin-source" => {
                let source = text(component, value)?;
                let path = file_path(&source);
                if !path.starts_with('/') || path.starts_with("//") {
                    return Err(UriError::Malformed(component.to_owned()));
                }
                put(&mut self.pin_source, name, path.into())
            }
            "pin-value" => Err(UriError::PinValue),
            _ => Err(UriError::Unsupported(name.to_owned())),
        }
    }
}

impl FromStr for TokenUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// The attributes that select the token, for messages.
impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = [
            ("token", &self.token),
            ("serial", &self.serial),
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
        ];
        let mut separator = "pkcs11:";
        for (name, value) in texts {
            if let Some(value) = value {
                write!(f, "{separator}{name}={}", encode(value))?;
                separator = ";";
            }
        }
        self.slot_id.map_or(Ok(()), |id| write!(f, "{separator}slot-id={id}"))
    }
}

/// What follows `pkcs11:`. Source: RFC 3986 §3.1: capitals are the same scheme.
fn without_scheme(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    scheme.eq_ignore_ascii_case("pkcs11").then_some(rest)
}

/// The path of a file's URI, or the path itself. Source: RFC 8089 §2: no host and `localhost` are this one.
fn file_path(source: &str) -> &str {
    let Some(path) = source.strip_prefix("file:") else { return source };
    let local = path.strip_prefix("//").map(|authority| authority.strip_prefix("localhost").unwrap_or(authority));
    local.filter(|path| path.starts_with('/')).unwrap_or(path)
}

fn put<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), UriError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(UriError::Repeated(name.to_owned())),
    }
}

fn split(component: &str) -> Result<(&str, &str), UriError> {
    component.split_once('=').ok_or_else(|| UriError::Malformed(component.to_owned()))
}

fn text(component: &str, value: &str) -> Result<String, UriError> {
    String::from_utf8(decode(component, value)?).map_err(|_| UriError::Malformed(component.to_owned()))
}

fn decode(component: &str, value: &str) -> Result<Vec<u8>, UriError> {
    let malformed = || UriError::Malformed(component.to_owned());
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (escape, tail) = tail.split_at_checked(2).ok_or_else(malformed)?;
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or_else(malformed);
        bytes.push(digit(escape[0])? << 4 | digit(escape[1])?);
        rest = tail;
    }
    Ok(bytes)
}

fn encode(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    value.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_survive_damage() {
        let whole =
            "pkcs11:token=a%20b;serial=01;manufacturer=m;model=x;slot-id=5?pin-source=file:/p&module-path=/m.so";
        ironroot_fuzz::Target::new("PKCS#11 URI").seed(whole).seed("pkcs11:").survives(|bytes| {
            if let Ok(uri) = TokenUri::parse(&String::from_utf8_lossy(bytes)) {
                let _ = (uri.to_string(), uri.module_path(), uri.pin_source());
            }
        });
    }

    #[test]
    fn reads_every_supported_attribute() {
        let uri = TokenUri::parse(
            "pkcs11:token=My%20token;serial=01ab;manufacturer=m;model=x;slot-id=7\
             ?module-path=/usr/lib/p.so&pin-source=file:/run/pin",
        )
        .unwrap();
        assert_eq!(
            (uri.token.as_deref(), uri.serial.as_deref(), uri.slot_id),
            (Some("My token"), Some("01ab"), Some(7))
        );
        assert_eq!(
            (uri.module_path(), uri.pin_source()),
            (Some(Path::new("/usr/lib/p.so")), Some(Path::new("/run/pin")))
        );
        assert_eq!(uri.to_string(), "pkcs11:token=My%20token;serial=01ab;manufacturer=m;model=x;slot-id=7");
        let triple = TokenUri::parse("pkcs11:token=t?pin-source=file:///run/pin").unwrap();
        assert_eq!(triple.pin_source(), Some(Path::new("/run/pin")));
        let local = TokenUri::parse("PKCS11:token=t?pin-source=file://localhost/run/pin").unwrap();
        assert_eq!((local.token.as_deref(), local.pin_source()), (Some("t"), Some(Path::new("/run/pin"))));
    }

    #[test]
    fn refuses_what_it_would_have_to_guess() {
        let unsupported = |name: &str| UriError::Unsupported(name.to_owned());
        let malformed = |component: &str| UriError::Malformed(component.to_owned());
        for (text, why) in [
            ("token=x", UriError::Scheme),
            ("pkcs11:token=a?pin-source=file://elsewhere/pin", malformed("pin-source=file://elsewhere/pin")),
            ("pkcs11:", UriError::NoToken),
            ("pkcs11:token", malformed("token")),
            ("pkcs11:token=%4", malformed("token=%4")),
            ("pkcs11:token=%zz", malformed("token=%zz")),
            ("pkcs11:token=%ff", malformed("token=%ff")),
            ("pkcs11:token=a;token=b", UriError::Repeated("token".into())),
            ("pkcs11:token=a;library-version=3", unsupported("library-version")),
            ("pkcs11:token=a?pin-value=1234", UriError::PinValue),
            ("pkcs11:token=a?module-name=p", unsupported("module-name")),
            ("pkcs11:token=a?pin-source=|cmd", malformed("pin-source=|cmd")),
            ("pkcs11:slot-id=x", malformed("slot-id=x")),
        ] {
            assert_eq!(TokenUri::parse(text), Err(why), "{text}");
        }
        assert_eq!(TokenUri::parse(&format!("pkcs11:token={}", "a".repeat(2048))), Err(UriError::Scheme));
    }

    #[test]
    fn refuses_what_names_a_key_and_not_a_token() {
        for component in ["object=ca", "id=%01%ff", "type=private", "type=public"] {
            let name = component.split_once('=').unwrap().0;
            for uri in [format!("pkcs11:token=a;{component}"), format!("pkcs11:{component}")] {
                assert_eq!(TokenUri::parse(&uri), Err(UriError::NamesObject(name.to_owned())), "{uri}");
            }
        }
        let said = UriError::NamesObject("id".to_owned()).to_string();
        assert!(said.contains("here a token is named: leave it out") && said.contains("key_ids"), "{said}");
    }
}
