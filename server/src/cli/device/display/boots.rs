//! What a device has booted, for people and for programs.

use std::collections::BTreeMap;

use ironroot_api::pb::device::{BootState, JudgedFiles, MeasuredFiles, SecureBoot};
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
    if let Some(files) = &boot.ima {
        describe_files(text, files);
    }
    if !boot.command_line.is_empty() {
        line(text, "  Command line", &boot.command_line);
    }
    for (pcr, value) in sorted(&boot.pcrs) {
        line(text, &format!("  PCR {pcr}"), format_args!("{} {value}", boot.bank));
    }
}

fn describe_files(text: &mut String, files: &MeasuredFiles) {
    if !files.missing.is_empty() {
        return line(text, "  Files (IMA)", &files.missing);
    }
    let violations = match files.violations {
        0 => String::new(),
        times => format!(", {times} times the kernel could not tell what was used"),
    };
    line(text, "  Files (IMA)", format_args!("{} entries proven{violations}", files.entries));
    if !files.boot_aggregate {
        line(text, "  Files (IMA)", "the list begins with another boot_aggregate than that of the quoted PCRs 0 to 9");
    }
    for judged in &files.judged {
        let label = format!("  Policy {}", judged.policy);
        judged.outside.iter().for_each(|file| line(text, &label, format_args!("did not allow {file}")));
        if judged.more > 0 {
            line(text, &label, format_args!("did not allow {} more", judged.more));
        }
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
        "ima": boot.ima.as_ref().map(files_to_json),
    })
}

fn files_to_json(files: &MeasuredFiles) -> Value {
    let judged = |judged: &JudgedFiles| json!({ "policy": judged.policy, "outside": judged.outside, "more": judged.more.to_string() });
    json!({
        "entries": files.entries.to_string(),
        "register": files.register,
        "violations": files.violations.to_string(),
        "boot_aggregate": files.boot_aggregate,
        "judged": files.judged.iter().map(judged).collect::<Value>(),
        "missing": files.missing,
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
            ima: Some(MeasuredFiles {
                entries: 57,
                violations: 2,
                judged: vec![JudgedFiles {
                    policy: "golden".into(),
                    outside: vec!["/usr/bin/nc sha256:0a".into()],
                    more: 3,
                }],
                ..MeasuredFiles::default()
            }),
        };
        let mut text = String::new();
        describe(&mut text, &boot);
        let expected = "\
Booted            : 1970-01-01 00:01:00 +0000 UTC, last proven 1970-01-01 00:02:00 +0000 UTC
  Changed         : PCR 7: Secure Boot was on, is off
  Secure Boot     : off
  Boot log        : no log
  Files (IMA)     : 57 entries proven, 2 times the kernel could not tell what was used
  Files (IMA)     : the list begins with another boot_aggregate than that of the quoted PCRs 0 to 9
  Policy golden   : did not allow /usr/bin/nc sha256:0a
  Policy golden   : did not allow 3 more
  Command line    : quiet
  PCR 7           : sha256 07
  PCR 10          : sha256 0a
";
        assert_eq!(text, expected);
        let json = to_json(&boot);
        assert_eq!((&json["pcrs"]["10"], &json["last_at"]), (&json!("0a"), &json!("120")));
        assert_eq!(json["ima"]["judged"][0]["outside"], json!(["/usr/bin/nc sha256:0a"]));
        let missing = BootState {
            ima: Some(MeasuredFiles { missing: "no list".into(), ..MeasuredFiles::default() }),
            ..BootState::default()
        };
        let mut text = String::new();
        describe(&mut text, &missing);
        assert!(text.ends_with("  Files (IMA)     : no list\n"), "{text}");
        assert_eq!(json["changes"], json!(["PCR 7: Secure Boot was on, is off"]));
    }
}
