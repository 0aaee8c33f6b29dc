//! A policy for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use ironroot_api::pb::pcr_policy as pb;
use serde_json::{Value, json};

/// Appends `policy` and an empty line.
pub(super) fn describe(text: &mut String, policy: &pb::Policy) {
    line(text, "Name", &policy.name);
    line(text, "Selector", format_args!("tpm2:policy:{}", policy.name));
    for (name, value) in sorted(&policy.labels) {
        line(text, "For label", format_args!("{name}={value}"));
    }
    for (place, alternative) in policy.alternatives.iter().enumerate() {
        let note = if alternative.note.is_empty() { String::new() } else { format!(" ({})", alternative.note) };
        line(text, "Alternative", format_args!("{}{note}", place + 1));
        for (pcr, value) in sorted(&alternative.pcrs) {
            line(text, &format!("  PCR {pcr}"), format_args!("{} {value}", alternative.bank));
        }
    }
    text.push('\n');
}

/// In the JSON form of protocol buffers, which "policy set" reads.
pub(super) fn to_json(policy: &pb::Policy) -> Value {
    let alternative = |alternative: &pb::Alternative| json!({ "bank": alternative.bank, "pcrs": sorted(&alternative.pcrs), "note": alternative.note });
    let alternatives: Vec<_> = policy.alternatives.iter().map(alternative).collect();
    json!({ "name": policy.name, "labels": sorted(&policy.labels), "alternatives": alternatives })
}

fn sorted<'a, K: Ord, V>(map: impl IntoIterator<Item = (&'a K, &'a V)>) -> BTreeMap<&'a K, &'a V> {
    map.into_iter().collect()
}

fn line(text: &mut String, label: &str, value: impl Display) {
    writeln!(text, "{label:<18}: {value}").expect("writing to a string cannot fail");
}
