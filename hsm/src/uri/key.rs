//! URIs that name a private key in a token.

use std::str::FromStr;

use super::{TokenUri, UriError, decode, put, split, text, without_scheme};
use crate::name::{KeyId, KeyName};

/// Which key, in which token, and optionally which PIN file and module. Source: RFC 7512 §2.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUri {
    token: TokenUri,
    key: KeyName,
}

impl KeyUri {
    /// Parses `pkcs11:token=...;object=...;id=...?module-path=...`.
    pub fn parse(uri: &str) -> Result<Self, UriError> {
        let rest = without_scheme(uri).ok_or(UriError::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut id, mut label, mut of_token) = (None, None, Vec::new());
        for component in path.split(';').filter(|component| !component.is_empty()) {
            let (name, value) = split(component)?;
            match name {
                "object" => put(&mut label, name, text(component, value)?)?,
                "id" => put(&mut id, name, key_id(component, value)?)?,
                "type" if value != "private" => return Err(UriError::NoPrivateKey(value.to_owned())),
                "type" => {}
                _ => of_token.push(component),
            }
        }
        let token = TokenUri::parse(&format!("pkcs11:{}?{query}", of_token.join(";")))?;
        let key = match (id, label) {
            (Some(id), label) => Some(KeyName::new(id, &label.unwrap_or_default())),
            (None, label) => label.as_deref().and_then(KeyName::labelled),
        };
        Ok(Self { token, key: key.ok_or(UriError::NoKey)? })
    }

    /// The token, with what the URI says of module and PIN.
    pub fn token(&self) -> &TokenUri {
        &self.token
    }

    /// The key in it.
    pub fn key(&self) -> &KeyName {
        &self.key
    }
}

impl FromStr for KeyUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

fn key_id(component: &str, value: &str) -> Result<KeyId, UriError> {
    KeyId::new(&decode(component, value)?).ok_or_else(|| UriError::Malformed(component.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn uris_survive_damage() {
        let whole = "pkcs11:token=a%20b;object=k;id=%01%ff;type=private?pin-source=file:/p&module-path=/m.so";
        ironroot_fuzz::Target::new("PKCS#11 URI of a key").seed(whole).survives(|bytes| {
            let _ = KeyUri::parse(&String::from_utf8_lossy(bytes));
        });
    }

    #[test]
    fn what_is_written_for_others_names_the_same_key_and_says_nothing_that_a_configuration_would_have_to_quote() {
        let token =
            TokenUri::parse("pkcs11:token=my%20token?module-path=/m.so&pin-source=file:/etc/a%20b/pin").unwrap();
        let name = KeyName::new(KeyId::new(&[1, 0xff]).unwrap(), "ironroot /run/x \"1\"");
        let uri = token.of_private_key(&name);
        assert_eq!(
            uri,
            "pkcs11:token=my%20token;id=%01%FF;object=ironroot%20%2Frun%2Fx%20%221%22;type=private?pin-source=file:/etc/a%20b/pin"
        );
        let read = KeyUri::parse(&uri).unwrap();
        assert_eq!((read.key(), read.token().pin_source()), (&name, Some(Path::new("/etc/a b/pin"))));
        let bare = TokenUri::with_serial("7").of_private_key(&KeyName::labelled("k").unwrap());
        assert_eq!(bare, "pkcs11:serial=7;object=k;type=private");
    }

    #[test]
    fn a_key_is_named_by_its_label_its_id_or_both_beside_its_token() {
        let uri = KeyUri::parse("pkcs11:token=t;object=dev%20key;id=%01%ff;type=private?module-path=/m.so").unwrap();
        assert_eq!(uri.key().to_string(), "CKA_ID 01ff (CKA_LABEL \"dev key\")");
        assert_eq!(
            (uri.token().to_string().as_str(), uri.token().module_path()),
            ("pkcs11:token=t", Some(Path::new("/m.so")))
        );
        let named = |text: &str| KeyUri::parse(text).map(|uri| uri.key().to_string());
        assert_eq!(named("pkcs11:object=k;serial=1").as_deref(), Ok("CKA_LABEL \"k\""));
        assert_eq!(named("pkcs11:id=%0a;slot-id=1").as_deref(), Ok("CKA_ID 0a"));
        for (text, why) in [
            ("token=t;object=k", UriError::Scheme),
            ("pkcs11:token=t", UriError::NoKey),
            ("pkcs11:token=t;object=", UriError::NoKey),
            ("pkcs11:object=k", UriError::NoToken),
            ("pkcs11:token=t;id=", UriError::Malformed("id=".into())),
            ("pkcs11:token=t;object=a;object=b", UriError::Repeated("object".into())),
            ("pkcs11:token=t;object=k;type=cert", UriError::NoPrivateKey("cert".into())),
            ("pkcs11:token=t;object=k?pin-value=1", UriError::PinValue),
        ] {
            assert_eq!(named(text), Err(why), "{text}");
        }
    }
}
