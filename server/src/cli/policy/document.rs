//! A policy as a file of JSON.

use std::collections::BTreeMap;
use std::path::Path;

use ironroot_api::pb::pcr_policy as pb;
use ironroot_shell::describe;
use ironroot_text::HumanFile;
use serde::Deserialize;

/// Largest file accepted, bytes: 64 alternatives of 16 registers each take 150 kB.
const MAX_FILE_BYTES: usize = 512 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    alternatives: Vec<Alternative>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Alternative {
    bank: String,
    pcrs: BTreeMap<u32, String>,
    #[serde(default)]
    note: String,
}

/// Reads the file, or standard input for `-`. What is wrong is said with the file's name.
pub(super) fn read(path: &Path) -> Result<pb::Policy, String> {
    let file = HumanFile::argument(path, MAX_FILE_BYTES).map_err(|error| describe(&error))?;
    parse(file.text().as_bytes()).map_err(|error| format!("{}: {error}", file.name()))
}

fn parse(bytes: &[u8]) -> Result<pb::Policy, serde_json::Error> {
    let Document { name, labels, alternatives } = serde_json::from_slice(bytes)?;
    let alternative =
        |Alternative { bank, pcrs, note }| pb::Alternative { bank, pcrs: pcrs.into_iter().collect(), note };
    Ok(pb::Policy {
        name,
        labels: labels.into_iter().collect(),
        alternatives: alternatives.into_iter().map(alternative).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::display::to_json;
    use super::*;

    fn policy() -> pb::Policy {
        let pcrs = [(0, "01".repeat(32)), (7, "02".repeat(32))].into();
        let alternatives = vec![pb::Alternative { bank: "sha256".into(), pcrs, note: "1.2".into() }];
        pb::Policy { name: "golden".into(), labels: [("site".into(), "rome".into())].into(), alternatives }
    }

    #[test]
    fn what_show_prints_is_what_set_reads() {
        let printed = to_json(&policy()).to_string();
        assert_eq!(parse(printed.as_bytes()).expect("reads"), policy());
    }

    #[test]
    fn a_file_that_is_no_policy_is_told_with_its_name() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("policy.json");
        for (content, told) in [
            (&b"{"[..], "EOF"),
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
