//! What a device has booted, for people and for programs.

use std::collections::BTreeMap;

use ironroot_api::pb::device::{BootState, SecureBoot};
use ironroot_api::spire_time;
use ironroot_shell::command_line::int64;
use serde_json::{Value, json};

use super::line;

/// Appends one boot, below a line of its own.
pub(super) fn describe(text: &mut String, boot: &BootState) {
    line(text, "Booted", format_args!("{}, last proven {}", spire_time(boot.first_at), spire_time(boot.last_at)));
    for change in &boot.changes {
        line(text, "  Changed", change);
    }
    if let Some(state) = &boot.secure_boot {
        line(text, "  Secure Boot", if state.enabled { "on" } else { "off" });
    }
    if !boot.missing.is_empty() {
        line(text, "  Boot log", &boot.missing);
    }
    if !boot.command_line.is_empty() {
        line(text, "  Command line", &boot.command_line);
    }
    for (pcr, value) in sorted(&boot.pcrs) {
        line(text, &format!("  PCR {pcr}"), format_args!("{} {value}", boot.bank));
    }
}

/// In the JSON form of protocol buffers.
pub(super) fn to_json(boot: &BootState) -> Value {
    let secure_boot = |state: &SecureBoot| {
        json!({
            "enabled": state.enabled,
            "variables": sorted(&state.variables),
            "dma_unprotected": state.dma_unprotected,
        })
    };
    json!({
        "first_at": int64(boot.first_at),
        "last_at": int64(boot.last_at),
        "bank": boot.bank,
        "pcrs": sorted(&boot.pcrs),
        "secure_boot": boot.secure_boot.as_ref().map(secure_boot),
        "command_line": boot.command_line,
        "missing": boot.missing,
        "changes": boot.changes,
    })
}

fn sorted<'a, K: Ord, V>(map: impl IntoIterator<Item = (&'a K, &'a V)>) -> BTreeMap<&'a K, &'a V> {
    map.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_shown_with_what_changed_first_in_text_and_json() {
        let boot = BootState {
            first_at: 60,
            last_at: 120,
            bank: "sha256".into(),
            pcrs: [(10, "0a".into()), (7, "07".into())].into(),
            secure_boot: Some(SecureBoot { enabled: false, ..Default::default() }),
            command_line: "quiet".into(),
            missing: "no log".into(),
            changes: vec!["PCR 7: Secure Boot was on, is off".into()],
        };
        let mut text = String::new();
        describe(&mut text, &boot);
        let expected = "\
Booted            : 1970-01-01 00:01:00 +0000 UTC, last proven 1970-01-01 00:02:00 +0000 UTC
  Changed         : PCR 7: Secure Boot was on, is off
  Secure Boot     : off
  Boot log        : no log
  Command line    : quiet
  PCR 7           : sha256 07
  PCR 10          : sha256 0a
";
        assert_eq!(text, expected);
        let json = to_json(&boot);
        assert_eq!((&json["pcrs"]["10"], &json["last_at"]), (&json!("0a"), &json!("120")));
        assert_eq!(json["changes"], json!(["PCR 7: Secure Boot was on, is off"]));
    }
}
