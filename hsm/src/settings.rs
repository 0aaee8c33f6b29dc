//! How a configuration file names a token, its module and where its PIN comes from.

use std::path::{Path, PathBuf};

use ironroot_shell::command_line::describe;
use ironroot_shell::settings::{Section, places};

use crate::pin::{Pin, PinError};
use crate::token::{TokenConfig, UserLogin};
use crate::uri::TokenUri;

/// Which token, and how it is opened. Never the PIN itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAccess {
    /// The maker's PKCS#11 library, which is loaded into this process.
    pub module_path: PathBuf,
    /// By label, serial number, maker or slot; exactly one token must fit.
    pub token: TokenUri,
    /// With what its keys are unlocked.
    pub login: LoginMode,
}

/// How to log in to the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginMode {
    /// With a PIN; it is read when the token is opened, not before.
    Pin(PinSource),
    /// At the token's own pad or reader.
    Pinpad,
    /// Not at all: a token without a user PIN.
    None,
}

/// Where the user PIN comes from. Never the PIN itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinSource {
    /// A file that only its owner can read.
    File(PathBuf),
    /// What systemd hands over under this name (`LoadCredential=`).
    Credential(String),
    /// An environment variable, by name: the weakest way, since children inherit it.
    Environment(String),
}

impl TokenAccess {
    /// What the token is opened with, its PIN read now; so many `sessions` sign at once.
    pub fn config(&self, sessions: usize) -> Result<TokenConfig, PinError> {
        let (module_path, token) = (self.module_path.clone(), self.token.clone());
        Ok(TokenConfig { module_path, token, login: self.login.read()?, sessions })
    }
}

impl LoginMode {
    /// Reads the PIN, if one is sent.
    pub fn read(&self) -> Result<UserLogin, PinError> {
        Ok(match self {
            Self::Pin(source) => UserLogin::Pin(source.read()?),
            Self::Pinpad => UserLogin::Pinpad,
            Self::None => UserLogin::None,
        })
    }
}

impl PinSource {
    /// Reads the PIN from there now, and anew at each call: one that was changed is taken in.
    pub fn read(&self) -> Result<Pin, PinError> {
        match self {
            Self::File(path) => Pin::from_file(path),
            Self::Credential(name) => Pin::from_credential(name),
            Self::Environment(name) => Pin::from_env(name),
        }
    }
}

/// Reads the keys that name a token (`token_uri`, `token_label` or `token_serial`), and the rest of [`read_access_of`].
pub fn read_access(data: &Section<'_>) -> Option<TokenAccess> {
    let token = read_token(data);
    read_access_of(data, token)
}

/// Reads `module_path`, `login` and where the PIN comes from, for a token that is named already: in `token` module and PIN may be, too.
pub fn read_access_of(data: &Section<'_>, token: Option<TokenUri>) -> Option<TokenAccess> {
    let module_path = data.path("module_path");
    if data.has("module_path") {
        let in_uri = token.as_ref().and_then(TokenUri::module_path);
        refuse_contradiction(data, "module_path", module_path.as_deref(), in_uri);
    }
    let module_path = module_path.or_else(|| token.as_ref()?.module_path().map(Path::to_owned));
    let hint = "give the token maker's library, such as /usr/lib/softhsm/libsofthsm2.so";
    let module_path = data.required("module_path", module_path, hint);
    if let Some(module) = &module_path {
        data.look("module_path", || places::pkcs11_module(module));
    }
    let login = read_login(data, token.as_ref());
    if let Some(LoginMode::Pin(pin)) = &login {
        look_at_pin(data, pin);
    }
    data.refuse("pin", "a configuration file is no place for a PIN: put it in a file of mode 0600 and give pin_file");
    Some(TokenAccess { module_path: module_path?, token: token?, login: login? })
}

/// Whether there is a PIN. A credential is there for the service alone: whoever validates outside of it is told so, and nothing is missed.
fn look_at_pin(data: &Section<'_>, pin: &PinSource) {
    let key = match pin {
        PinSource::File(_) => "pin_file",
        PinSource::Credential(_) => "pin_credential",
        PinSource::Environment(_) => "pin_env",
    };
    data.look(key, || match pin.read() {
        Err(PinError::NoCredentials(name)) => {
            data.warn(key, format!("credential {name:?} is there for the service alone, and was not looked at"));
            Ok(())
        }
        read => read.map(drop).map_err(|error| describe(&error)),
    });
}

fn read_token(data: &Section<'_>) -> Option<TokenUri> {
    let uri = data.parsed("token_uri", TokenUri::parse);
    let label = data.string("token_label").map(|label| TokenUri::with_label(&label));
    let serial = data.string("token_serial").map(|serial| TokenUri::with_serial(&serial));
    one_of(data, [("token_uri", uri), ("token_label", label), ("token_serial", serial)], "name the token with one of")
}

fn read_login(data: &Section<'_>, token: Option<&TokenUri>) -> Option<LoginMode> {
    let known = |text: &str| match text {
        "pin" | "pinpad" | "none" => Ok(text.to_owned()),
        _ => Err("use pin (a PIN is sent), pinpad (the token asks for it itself) or none (the token needs no login)"),
    };
    let mode = data.parsed("login", known);
    let pin = read_pin(data, token);
    match (mode.as_deref(), pin) {
        (None, _) if data.has("login") => None,
        (None | Some("pin"), pin) => pin.unwrap_or_else(|| missing_pin(data)).map(LoginMode::Pin),
        (Some(mode), Some(_)) => {
            data.mistake("login", format!("{mode:?} sends no PIN: remove where it comes from, or use login = \"pin\""));
            None
        }
        (Some("pinpad"), None) => Some(LoginMode::Pinpad),
        (Some(_), None) => Some(LoginMode::None),
    }
}

/// Where the PIN comes from; none if nothing is said of it, nothing in it if something wrong is.
fn read_pin(data: &Section<'_>, token: Option<&TokenUri>) -> Option<Option<PinSource>> {
    let choices = [
        ("pin_file", data.path("pin_file").map(PinSource::File)),
        ("pin_credential", data.string("pin_credential").map(PinSource::Credential)),
        ("pin_env", data.string("pin_env").map(PinSource::Environment)),
    ];
    let file = token.and_then(TokenUri::pin_source);
    if let Some(key) = choices.iter().map(|(key, _)| *key).find(|key| data.has(key)) {
        let given = data.path("pin_file").filter(|_| key == "pin_file");
        refuse_contradiction(data, key, given.as_deref(), file);
        return Some(one_of(data, choices, PIN_HINT));
    }
    Some(Some(PinSource::File(file?.to_owned())))
}

/// What the token's URI names, too, is the same here.
fn refuse_contradiction(data: &Section<'_>, key: &str, given: Option<&Path>, in_uri: Option<&Path>) {
    if let Some(in_uri) = in_uri.filter(|in_uri| given != Some(in_uri)) {
        data.mistake(key, format!("token_uri names {}: give one of the two", in_uri.display()));
    }
}

const PIN_HINT: &str = "say where the PIN comes from with one of";

fn missing_pin(data: &Section<'_>) -> Option<PinSource> {
    data.mistake("pin_file", format!("missing: {PIN_HINT} pin_file, pin_credential, pin_env"));
    None
}

/// The one value that was given, or a mistake.
fn one_of<T, const N: usize>(data: &Section<'_>, choices: [(&str, Option<T>); N], hint: &str) -> Option<T> {
    let names = choices.each_ref().map(|(key, _)| *key).join(", ");
    let given: Vec<&str> = choices.iter().map(|(key, _)| *key).filter(|key| data.has(key)).collect();
    match given.as_slice() {
        [] => data.mistake(choices[0].0, format!("missing: {hint} {names}")),
        [_] => {}
        [_, again, ..] => data.mistake(again, format!("{hint} {names}, not with several")),
    }
    choices.into_iter().find_map(|(_, value)| value)
}
