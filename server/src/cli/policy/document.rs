//! A policy as a file of JSON.

use std::collections::BTreeMap;
use std::path::Path;

use ironroot_api::pb::pcr_policy as pb;
use ironroot_shell::command_line::json_mistake;
use ironroot_shell::describe;
use ironroot_text::HumanFile;
use serde::Deserialize;

/// Largest file accepted, bytes: 64 alternatives of 16 registers each take 150 kB, 8192 files of the usual length 1.5 MB.
const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a policy: an object with name and alternatives")]
struct Document {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    alternatives: Vec<Alternative>,
    ima: Option<Files>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an alternative: an object with bank and pcrs")]
struct Alternative {
    bank: String,
    pcrs: BTreeMap<u32, String>,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with the list \"allowed\"")]
struct Files {
    allowed: Vec<File>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    violations: bool,
    #[serde(default)]
    any_boot_aggregate: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a file: an object with path and digest")]
struct File {
    #[serde(default)]
    path: String,
    digest: String,
}

impl From<Files> for pb::Files {
    fn from(files: Files) -> Self {
        let Files { allowed, exclude, violations, any_boot_aggregate } = files;
        let file = |File { path, digest }| pb::File { path, digest };
        Self { allowed: allowed.into_iter().map(file).collect(), exclude, violations, any_boot_aggregate }
    }
}

/// Reads the file, or standard input for `-`. What is wrong is said with the file's name.
pub(super) fn read(path: &Path) -> Result<pb::Policy, String> {
    let file = HumanFile::argument(path, MAX_FILE_BYTES).map_err(|error| describe(&error))?;
    parse(file.text().as_bytes()).map_err(|error| format!("{}: {}", file.name(), json_mistake(&error)))
}

fn parse(bytes: &[u8]) -> Result<pb::Policy, serde_json::Error> {
    let Document { name, labels, alternatives, ima } = serde_json::from_slice(bytes)?;
    let alternative =
        |Alternative { bank, pcrs, note }| pb::Alternative { bank, pcrs: pcrs.into_iter().collect(), note };
    Ok(pb::Policy {
        name,
        labels: labels.into_iter().collect(),
        alternatives: alternatives.into_iter().map(alternative).collect(),
        ima: ima.map(pb::Files::from),
    })
}

#[cfg(test)]
mod tests {
    use super::super::display::to_json;
    use super::*;

    fn files() -> pb::Files {
        let allowed = vec![pb::File { path: "/bin/a".into(), digest: "sha256:0a".into() }];
        pb::Files { allowed, exclude: vec!["/tmp/".into()], violations: true, any_boot_aggregate: false }
    }

    fn policy() -> pb::Policy {
        let pcrs = [(0, "01".repeat(32)), (7, "02".repeat(32))].into();
        let alternatives = vec![pb::Alternative { bank: "sha256".into(), pcrs, note: "1.2".into() }];
        pb::Policy {
            name: "golden".into(),
            labels: [("site".into(), "rome".into())].into(),
            alternatives,
            ima: Some(files()),
        }
    }

    #[test]
    fn what_show_prints_is_what_set_reads() {
        let printed = to_json(&policy()).to_string();
        assert_eq!(parse(printed.as_bytes()).expect("reads"), policy());
        let without = pb::Policy { ima: None, ..policy() };
        assert_eq!(parse(to_json(&without).to_string().as_bytes()).expect("reads"), without);
    }

    #[test]
    fn a_file_that_is_no_policy_is_told_with_its_name() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("policy.json");
        for (content, told) in [
            (&b"{"[..], "ends before it is whole"),
            (br#"{"name":"a","alternatives":[],"pcrs":{}}"#, "unknown field"),
            (br#"{"name":"a"}"#, "alternatives"),
            (&vec![b' '; MAX_FILE_BYTES + 1], "is it the right file?"),
        ] {
            std::fs::write(&path, content).expect("written");
            let error = read(&path).expect_err("refused");
            assert!(error.contains("policy.json") && error.contains(told), "{error}");
        }
        assert!(read(&directory.path().join("none")).expect_err("refused").contains("No such file"));
    }

    #[test]
    fn policies_survive_damage() {
        ironroot_fuzz::Target::new("PCR policy").seed(to_json(&policy()).to_string()).survives(|bytes| {
            if let Ok(policy) = parse(bytes) {
                let _ = crate::devices::NewPolicy::from_pb(&policy);
            }
        });
    }
}
