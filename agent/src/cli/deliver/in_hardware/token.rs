//! Keys in a PKCS#11 token.
//!
//! A delivery has two names in the token, its slots, used in turn: no crash leaves more than two keys, the delivered one is never touched,
//! and the one before lives until the next is made, about as long as its certificate.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ironroot_hsm::settings::{LoginMode, PinSource, TokenAccess};
use ironroot_hsm::{PinError, TokenUri};
use ironroot_shell::command_line::CommandError;
use ironroot_shell::settings::places;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::agent_key::{KeyError, TokenHeldKey};
use crate::cli::deliver::files::SetFile;
use crate::pem;
use crate::token::LazyToken;

/// Longest name of the keys, bytes: tokens keep short labels.
const MAX_NAME_BYTES: usize = 200;

/// Why a token cannot be delivered from: what the command line says of it.
#[derive(Debug, Error)]
enum TokenMistake {
    #[error("the URI names no module: add ?module-path=/usr/lib/... (the token maker's library)")]
    NoModule,
    #[error("module-path: {0}")]
    Module(String),
    #[error("the URI names no PIN file: add pin-source=file:/... (a file that only this user can read)")]
    NoPin,
    #[error("pin-source: {0}")]
    Pin(#[from] PinError),
    #[error(
        "pin-source: {} ends with a line's end, and is named in the files that are delivered: nginx's engine would send the line's end as part \
         of the PIN, again and again, which locks a token; write the PIN without one: printf %s PIN > {}",
        .0.display(),
        .0.display()
    )]
    EndsLine(PathBuf),
    #[error("the keys' name is longer than {MAX_NAME_BYTES} bytes: give a shorter one with -keyName")]
    Name,
}

/// One of a delivery's two names in the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Slot {
    #[serde(rename = "1")]
    First,
    #[serde(rename = "2")]
    Second,
}

impl Slot {
    fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::First { "1" } else { "2" })
    }
}

/// A token, and what the keys of one delivery are called in it.
#[derive(Debug)]
pub(super) struct TokenStore {
    token: LazyToken,
    uri: TokenUri,
    name: String,
}

impl TokenStore {
    /// Opens nothing yet; everything that is wrong with the command line is in the one error.
    pub(super) fn new(uri: TokenUri, name: Option<String>, directory: &Path) -> Result<Self, CommandError> {
        let name = name.unwrap_or_else(|| directory.display().to_string());
        let mistakes = mistakes(&uri, &name);
        let (Some(module), Some(pin), true) = (uri.module_path(), uri.pin_source(), mistakes.is_empty()) else {
            let mistakes: Vec<String> = mistakes.iter().map(|mistake| ironroot_shell::describe(mistake)).collect();
            return Err(CommandError::Usage(format!("-pkcs11: {}", mistakes.join("; "))));
        };
        let login = LoginMode::Pin(PinSource::File(pin.to_owned()));
        let access = TokenAccess { module_path: module.to_owned(), token: uri.clone(), login };
        Ok(Self { token: LazyToken::new(access), uri, name })
    }

    fn label(&self, slot: Slot) -> String {
        format!("ironroot {} {slot}", self.name)
    }

    /// The key in that slot, if there is one.
    pub(super) async fn find(&self, slot: Slot) -> Result<Option<TokenHeldKey>, KeyError> {
        TokenHeldKey::find(&self.token, &self.label(slot)).await
    }

    /// A new key in the slot beside `current`; what was there is destroyed.
    pub(super) async fn make(&self, current: Option<Slot>) -> Result<(Slot, TokenHeldKey), KeyError> {
        let slot = current.map_or(Slot::First, Slot::other);
        Ok((slot, TokenHeldKey::replace(&self.token, &self.label(slot)).await?))
    }

    /// What says where the key is: for who reads keys from PEM, and the files besides, some of which say in which directory they are.
    pub(super) fn references(
        &self,
        key: &TokenHeldKey,
    ) -> Result<(String, impl Fn(&Path) -> Vec<SetFile> + use<>), CommandError> {
        let uri = self.uri.of_private_key(key.name());
        let pem = pem::provider_uri(&uri).map_err(CommandError::run)?;
        let others = move |place: &Path| {
            let nginx = nginx_engine(place, &uri);
            vec![SetFile::open("svid.uri", format!("{uri}\n")), SetFile::open("nginx_engine.conf", nginx)]
        };
        Ok((pem, others))
    }
}

/// The two directives of nginx for OpenSSL's engine pkcs11 (libp11), which reads the URI from the configuration: certificate and key of one
/// set, whenever it is read.
fn nginx_engine(place: &Path, uri: &str) -> String {
    let certificate = place.join("svid.pem");
    format!("ssl_certificate \"{}\";\nssl_certificate_key \"engine:pkcs11:{uri}\";\n", certificate.display())
}

fn mistakes(uri: &TokenUri, name: &str) -> Vec<TokenMistake> {
    let module = match uri.module_path() {
        None => Some(TokenMistake::NoModule),
        Some(module) => places::pkcs11_module(module).err().map(TokenMistake::Module),
    };
    let pin = match uri.pin_source() {
        None => Some(TokenMistake::NoPin),
        Some(pin) => match PinSource::File(PathBuf::from(pin)).read() {
            Err(error) => Some(TokenMistake::Pin(error)),
            Ok(_) => ends_line(pin).then(|| TokenMistake::EndsLine(pin.to_owned())),
        },
    };
    let name = (name.len() > MAX_NAME_BYTES).then_some(TokenMistake::Name);
    [module, pin, name].into_iter().flatten().collect()
}

/// Whether the file's last byte ends a line. What cannot be read is not said here.
fn ends_line(path: &Path) -> bool {
    let mut last = [0];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)
    });
    read.is_ok() && matches!(last, [b'\n' | b'\r'])
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_pin_file_that_is_delivered_and_ends_a_line_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().expect("directory");
        let (module, pin) = (directory.path().join("module.so"), directory.path().join("pin"));
        write(&module, "").expect("written");
        let said = |content: &str| {
            write(&pin, content).expect("written");
            set_permissions(&pin, Permissions::from_mode(0o600)).expect("closed");
            let uri = format!("pkcs11:token=t?module-path={}&pin-source=file:{}", module.display(), pin.display());
            let found = mistakes(&TokenUri::parse(&uri).expect("legal"), "name");
            found.iter().map(|mistake| ironroot_shell::describe(mistake)).collect::<Vec<_>>().join("; ")
        };
        for ends_line in ["1234\n", "1234\r\n"] {
            let said = said(ends_line);
            assert!(said.contains("ends with a line's end") && said.contains("printf %s PIN > "), "{said}");
            assert!(!said.contains("1234"), "{said}");
        }
        assert!(!said("1234").contains("pin-source"));
    }

    #[test]
    fn everything_that_is_wrong_with_the_command_line_is_said_at_once_and_nothing_is_opened() {
        let said = |uri: &str, name: Option<&str>| {
            let uri = TokenUri::parse(uri).expect("legal");
            let opened = TokenStore::new(uri, name.map(str::to_owned), Path::new("/run/x"));
            opened.map(|opened| opened.name).map_err(|error| error.message())
        };
        let bare = said("pkcs11:token=t", None).expect_err("no module");
        assert!(bare.contains("names no module") && bare.contains("; the URI names no PIN file"), "{bare}");
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        let wrong = said("pkcs11:token=t?module-path=/nowhere.so&pin-source=file:/nowhere", Some(&long));
        let wrong = wrong.expect_err("wrong");
        for part in ["module-path: ", "pin-source: ", "/nowhere", "longer than 200 bytes"] {
            assert!(wrong.contains(part), "{part}: {wrong}");
        }
    }

    #[test]
    fn what_nginx_reads_names_certificate_and_key_of_one_set() {
        let text = nginx_engine(Path::new("/var/lib/id/set-7"), "pkcs11:token=t;object=k;type=private");
        assert_eq!(
            text,
            "ssl_certificate \"/var/lib/id/set-7/svid.pem\";\n\
             ssl_certificate_key \"engine:pkcs11:pkcs11:token=t;object=k;type=private\";\n"
        );
    }

    #[test]
    fn a_delivery_has_two_names_in_turn() {
        assert_eq!((Slot::First.other(), Slot::Second.other()), (Slot::Second, Slot::First));
    }
}
