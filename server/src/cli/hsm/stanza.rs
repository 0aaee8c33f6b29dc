//! What to write into the configuration for a token that was looked at.

use std::fmt::Write;
use std::path::Path;

use ironroot_hsm::TokenSurvey;

use crate::config::{LoginMode, PinSource};

/// Sessions that the server opens by itself: as many to sign with, and one for the login.
const DEFAULT_SESSIONS: u64 = 4;

/// The `KeyManager` block, as it stands in `plugins`; `key_kind`: what `ca_key_type` must be, where its default does not do.
pub(super) fn stanza(
    module_path: &Path,
    (slot, token): (u64, Option<&TokenSurvey>),
    is_label_unique: bool,
    login: Option<&LoginMode>,
    key_kind: Option<&str>,
) -> String {
    let mut lines = vec![format!("module_path = {}", quoted(&module_path.display().to_string()))];
    lines.push(token_line(slot, token, is_label_unique));
    lines.push(login_line(token, login));
    let signing = token.and_then(|token| token.max_sessions).map(|most| most.saturating_sub(1).max(1));
    if let Some(signing) = signing.filter(|signing| *signing < DEFAULT_SESSIONS) {
        lines.push(format!("sessions = {signing}"));
    }
    let mut stanza = String::new();
    if let Some(kind) = key_kind.filter(|kind| *kind != "ec-p256") {
        let _ = write!(stanza, "server {{\n    ca_key_type = \"{kind}\"\n}}\n");
    }
    let body: String = lines.iter().map(|line| format!("            {line}\n")).collect();
    let _ = write!(
        stanza,
        "plugins {{\n    KeyManager \"pkcs11\" {{\n        plugin_data {{\n{body}        }}\n    }}\n}}\n"
    );
    stanza
}

fn token_line(slot: u64, token: Option<&TokenSurvey>, is_label_unique: bool) -> String {
    match token {
        Some(token) if is_label_unique && !token.label.is_empty() => format!("token_label = {}", quoted(&token.label)),
        Some(token) if !token.serial.is_empty() => format!("token_serial = {}", quoted(&token.serial)),
        _ => format!("token_uri = \"pkcs11:slot-id={slot}\""),
    }
}

fn login_line(token: Option<&TokenSurvey>, login: Option<&LoginMode>) -> String {
    match (token, login) {
        (Some(token), _) if !token.login_required => "login = \"none\"".to_owned(),
        (Some(token), _) if token.has_pad => "login = \"pinpad\"".to_owned(),
        (_, Some(LoginMode::Pin(PinSource::File(path)))) => {
            // The daemon runs in another directory than whoever probes.
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            format!("pin_file = {}", quoted(&whole.display().to_string()))
        }
        (_, Some(LoginMode::Pin(PinSource::Credential(name)))) => format!("pin_credential = {}", quoted(name)),
        (_, Some(LoginMode::Pin(PinSource::Environment(name)))) => format!("pin_env = {}", quoted(name)),
        _ => "pin_file = \"/etc/ironroot/hsm.pin\"".to_owned(),
    }
}

/// As the configuration reads strings.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_file_is_named_from_the_root() {
        let line = |path: &str| login_line(None, Some(&LoginMode::Pin(PinSource::File(path.into()))));
        let here = std::env::current_dir().expect("a directory").join("hsm.pin");
        assert_eq!(line("hsm.pin"), format!("pin_file = \"{}\"", here.display()));
        assert_eq!(line("/etc/ironroot/hsm.pin"), "pin_file = \"/etc/ironroot/hsm.pin\"");
    }
}
