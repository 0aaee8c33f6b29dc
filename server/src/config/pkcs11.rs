//! `KeyManager "pkcs11"`: which token, how to log in, and which of its keys.

use std::path::{Path, PathBuf};

use ironroot_hsm::{KeyId, KeyName, PinError, TokenUri};
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::{Section, places};

use super::{LoginMode, PinSource, Pkcs11Config};

/// Sessions opened on the token unless the file says otherwise.
const DEFAULT_SESSIONS: usize = 4;

/// Which token, and how it is opened.
pub(super) struct Access {
    pub(super) module_path: PathBuf,
    pub(super) token: TokenUri,
    pub(super) login: LoginMode,
}

/// Reads the block.
pub(super) fn read(data: &Section<'_>) -> Option<Pkcs11Config> {
    let access = read_access(data);
    let sessions =
        data.integer("sessions", 1..=64).and_then(|count| usize::try_from(count).ok()).unwrap_or(DEFAULT_SESSIONS);
    let given_keys = read_given_keys(data);
    data.boolean("previous");
    data.finish();
    let Access { module_path, token, login } = access?;
    Some(Pkcs11Config { module_path, token, login, sessions, given_keys })
}

/// Reads what names a token and its PIN, in this block or in another.
pub(super) fn read_access(data: &Section<'_>) -> Option<Access> {
    let token = read_token(data);
    let module_path = data.path("module_path");
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
    Some(Access { module_path: module_path?, token: token?, login: login? })
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

/// Two lists and not one of blocks: each key has one name, and a name is a string on a line of its own.
fn read_given_keys(data: &Section<'_>) -> Vec<KeyName> {
    let labelled = |text: &str| KeyName::labelled(text).ok_or("a label is not empty");
    let ids = data.parsed_list("key_ids", str::parse::<KeyId>).unwrap_or_default();
    let labels = data.parsed_list("key_labels", labelled).unwrap_or_default();
    let mut keys: Vec<KeyName> = Vec::new();
    for (list, key) in
        ids.iter().map(|id| ("key_ids", id.into())).chain(labels.into_iter().map(|key| ("key_labels", key)))
    {
        if keys.contains(&key) {
            data.mistake(list, format!("{key} is named twice: keep one"));
        }
        keys.push(key);
    }
    if (1..KEYS_AT_FOUNDING).contains(&keys.len()) {
        data.warn("key_labels", KEYS_HINT);
    }
    for list in ["key_ids", "key_labels"] {
        // An empty list would quietly mean that the server makes its keys.
        if data.strings(list).is_some_and(|names| names.is_empty()) {
            data.mistake(list, "name at least one key, or remove it: then the server makes its keys");
        }
    }
    keys
}

/// Keys that are used in the first life of a CA: its root, itself, and its successor.
const KEYS_AT_FOUNDING: usize = 3;
const KEYS_HINT: &str = "the first CA, its root and its successor need three keys, and each rotation one more";

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
    if choices.iter().any(|(key, _)| data.has(key)) {
        return Some(one_of(data, choices, PIN_HINT));
    }
    let file = token.and_then(TokenUri::pin_source)?;
    Some(Some(PinSource::File(file.to_owned())))
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
