//! A policy for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Display;

use ironroot_api::pb::pcr_policy as pb;
use ironroot_shell::command_line::labelled;
use serde_json::{Value, json};

/// Appends `policy` and an empty line.
pub(super) fn describe(text: &mut String, policy: &pb::Policy) {
    line(text, "Name", &policy.name);
    line(text, "Selector", format_args!("tpm2:policy:{}", policy.name));
    for (name, value) in sorted(&policy.labels) {
        line(text, "For label", format_args!("{name}={value}"));
    }
    if let Some(files) = &policy.ima {
        describe_files(text, &policy.name, files);
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
    let mut json = json!({ "name": policy.name, "labels": sorted(&policy.labels), "alternatives": alternatives });
    if let Some(files) = &policy.ima {
        json["ima"] = files_to_json(files);
    }
    json
}

/// How many; which they are is in the JSON.
fn describe_files(text: &mut String, name: &str, files: &pb::Files) {
    line(text, "For files", format_args!("tpm2:ima:{name}"));
    line(text, "Files (IMA)", format_args!("{} allowed", files.allowed.len()));
    files.exclude.iter().for_each(|directory| line(text, "  Any below", directory));
    if files.violations {
        line(text, "  Violations", "allowed");
    }
    if files.any_boot_aggregate {
        line(text, "  boot_aggregate", "any");
    }
}

fn files_to_json(files: &pb::Files) -> Value {
    let file = |file: &pb::File| json!({ "path": file.path, "digest": file.digest });
    json!({
        "allowed": files.allowed.iter().map(file).collect::<Value>(),
        "exclude": files.exclude,
        "violations": files.violations,
        "any_boot_aggregate": files.any_boot_aggregate,
    })
}

fn sorted<'a, K: Ord, V>(map: impl IntoIterator<Item = (&'a K, &'a V)>) -> BTreeMap<&'a K, &'a V> {
    map.into_iter().collect()
}

fn line(text: &mut String, label: &str, value: impl Display) {
    labelled(text, 18, label, value);
}
