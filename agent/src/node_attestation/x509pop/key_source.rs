//! Where the private key of the device's certificate is, and how it signs there.

use std::fmt;
use std::path::PathBuf;

use ironroot_attest::node::x509pop::{Question, ShownKey, Signed};
use ironroot_attest::tpm::{PersistentSignature, Tpm};
use ironroot_hsm::settings::read_access_of;
use ironroot_hsm::{HsmError, KeyKind, KeyName, KeyUri, TokenKey, Urgency};
use ironroot_shell::settings::Section;

use super::X509PopFailure;
use crate::config::TpmKeys;
use crate::node_attestation::Device;
use crate::token::{LazyToken, TokenFailure};

/// Where the key is. `Chip`: what is known of the TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource<Chip> {
    /// PEM: PKCS#8, PKCS#1 or SEC 1.
    File(PathBuf),
    /// In a PKCS#11 token, which signs.
    Token {
        /// Opened when the device first attests.
        token: LazyToken,
        /// The key's name in it.
        key: KeyName,
    },
    /// In the TPM, which signs.
    Chip {
        /// The persistent handle of the key, 0x81000000 to 0x81ffffff; it has no password.
        handle: u32,
        /// The TPM.
        chip: Chip,
    },
}

/// Reads `private_key_path`, or `private_key_uri` with what goes with it.
pub(super) fn read(data: &Section<'_>) -> Option<(KeySource<()>, TpmKeys)> {
    let hint = "give the PEM file of the key of the device's certificate, or private_key_uri if it is in a token or in the TPM";
    let path = data.path("private_key_path");
    if path.is_some() && data.has("private_key_uri") {
        data.mistake("private_key_uri", "give either private_key_path or private_key_uri, not both");
    }
    match data.parsed("private_key_uri", parse) {
        Some(Named::Token(uri)) => {
            let access = read_access_of(data, Some(uri.token().clone()))?;
            let source = KeySource::Token { token: LazyToken::new(access), key: uri.key().clone() };
            Some((source, TpmKeys::default()))
        }
        Some(Named::Chip(handle)) => Some((KeySource::Chip { handle, chip: () }, TpmKeys::read_for_keys(data))),
        None if data.has("private_key_uri") => None,
        None => data.required("private_key_path", path, hint).map(|path| (KeySource::File(path), TpmKeys::default())),
    }
}

enum Named {
    Token(Box<KeyUri>),
    Chip(u32),
}

/// `pkcs11:`, RFC 7512; or `handle:0x81...`, as OpenSSL's TPM provider names a persistent key.
fn parse(text: &str) -> Result<Named, String> {
    let Some(handle) = text.strip_prefix("handle:") else {
        return KeyUri::parse(text).map(|uri| Named::Token(Box::new(uri))).map_err(|error| error.to_string());
    };
    let handle = handle.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let handle = handle.filter(|handle| handle >> 24 == 0x81);
    let outside = || "a persistent key of the TPM is named handle:0x81000000 to handle:0x81ffffff".to_owned();
    handle.map(Named::Chip).ok_or_else(outside)
}

impl<Chip> KeySource<Chip> {
    /// The same with what is known of the chip by now.
    pub(super) fn on<More>(self, known: impl FnOnce(Chip) -> More) -> KeySource<More> {
        match self {
            Self::File(path) => KeySource::File(path),
            Self::Token { token, key } => KeySource::Token { token, key },
            Self::Chip { handle, chip } => KeySource::Chip { handle, chip: known(chip) },
        }
    }
}

/// For messages.
impl<Chip> fmt::Display for KeySource<Chip> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Token { key, .. } => write!(f, "in the token with {key}"),
            Self::Chip { handle, .. } => write!(f, "in the TPM at handle {handle:#x}"),
        }
    }
}

/// The key, found where it is.
pub(in super::super) enum HardwareKey {
    Token(TokenKey),
    Chip { handle: u32, tpm: Tpm },
}

impl HardwareKey {
    /// `kind`: the certificate's key. That it is the very key, a signature shows.
    pub(super) async fn find(source: &KeySource<Device>, kind: ShownKey) -> Result<Self, X509PopFailure> {
        match source {
            // The caller reads files itself.
            KeySource::File(_) => Err(X509PopFailure::TokenKeyKind),
            KeySource::Chip { handle, chip } => Ok(Self::Chip { handle: *handle, tpm: chip.tpm.clone() }),
            KeySource::Token { token, key } => {
                let kind = kind_in_token(kind).ok_or(X509PopFailure::TokenKeyKind)?;
                let found = token.get().await?.find_of(kind, key.clone()).await.map_err(failed)?;
                found.map(Self::Token).ok_or_else(|| X509PopFailure::NoTokenKey(key.clone()))
            }
        }
    }

    pub(super) async fn sign(&self, question: &Question) -> Result<Signed, X509PopFailure> {
        let digest = question.digest();
        match self {
            Self::Token(key) => {
                let signature = key.sign_sha256(&digest, Urgency::FIRST).await.map_err(failed)?;
                match key.kind() {
                    KeyKind::EcP256 | KeyKind::EcP384 => Ok(Signed::Ecdsa(signature)),
                    KeyKind::Rsa2048 | KeyKind::Rsa4096 => Ok(Signed::RsaPss(signature)),
                    KeyKind::MlDsa(_) => Err(X509PopFailure::TokenKeyKind),
                }
            }
            Self::Chip { handle, tpm } => {
                let handle = *handle;
                let signed = tpm.run("sign", move |chip| chip.sign_with_persistent(handle, &digest)).await;
                Ok(match signed.map_err(|source| X509PopFailure::Chip { handle, source })? {
                    PersistentSignature::Ecdsa(both) => Signed::Ecdsa(both),
                    PersistentSignature::RsaPss(signature) => Signed::RsaPss(signature),
                })
            }
        }
    }
}

fn failed(error: HsmError) -> X509PopFailure {
    TokenFailure::Token(error).into()
}

fn kind_in_token(kind: ShownKey) -> Option<KeyKind> {
    match kind {
        ShownKey::P256 => Some(KeyKind::EcP256),
        ShownKey::P384 => Some(KeyKind::EcP384),
        ShownKey::Rsa(2048) => Some(KeyKind::Rsa2048),
        ShownKey::Rsa(4096) => Some(KeyKind::Rsa4096),
        ShownKey::P521 | ShownKey::Rsa(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_in_a_token_or_by_a_handle_of_the_tpm() {
        assert!(matches!(parse("handle:0x81010002"), Ok(Named::Chip(0x8101_0002))));
        assert!(matches!(parse("pkcs11:token=t;object=k"), Ok(Named::Token(_))));
        for (text, why) in [
            ("handle:0x40000001", "handle:0x81000000 to"),
            ("handle:81010002", "handle:0x81000000 to"),
            ("file:/etc/key", "must begin with \"pkcs11:\""),
            ("pkcs11:token=t", "names no key"),
        ] {
            let said = parse(text).err().expect(text);
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
