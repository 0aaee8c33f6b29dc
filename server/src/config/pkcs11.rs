//! `KeyManager "pkcs11"`: which token, how to log in, and which of its keys.

use ironroot_hsm::settings::{TokenAccess, read_access};
use ironroot_hsm::{KeyId, KeyName};
use ironroot_shell::settings::Section;

use super::Pkcs11Config;

/// Sessions opened on the token unless the file says otherwise.
const DEFAULT_SESSIONS: usize = 4;

/// Reads the block.
pub(super) fn read(data: &Section<'_>) -> Option<Pkcs11Config> {
    let access = read_access(data);
    let sessions =
        data.integer("sessions", 1..=64).and_then(|count| usize::try_from(count).ok()).unwrap_or(DEFAULT_SESSIONS);
    let given_keys = read_given_keys(data);
    data.boolean("previous");
    data.finish();
    let TokenAccess { module_path, token, login } = access?;
    Some(Pkcs11Config { module_path, token, login, sessions, given_keys })
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
        data.warn(if data.has("key_labels") { "key_labels" } else { "key_ids" }, KEYS_HINT);
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
