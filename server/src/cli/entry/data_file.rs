//! Entries and IDs in JSON files.

use std::path::Path;

use ironroot_api::SpiffeId;
use ironroot_api::command_line::CommandError;
use ironroot_api::pb::types;
use ironroot_text::HumanFile;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Largest file accepted, bytes: a batch of 10,000 entries is some MB.
const MAX_FILE_BYTES: usize = 64 * 1024 * 1024;

/// `{"entries": [...]}`. Source: SPIRE's `spire.common.RegistrationEntries` in Go's JSON. Unlike there, a key nobody knows
/// is refused: a misspelt key would make another entry than was meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntriesFile {
    entries: Vec<FileEntry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileEntry {
    entry_id: String,
    parent_id: String,
    spiffe_id: String,
    selectors: Vec<FileSelector>,
    x509_svid_ttl: i32,
    jwt_svid_ttl: i32,
    federates_with: Vec<String>,
    admin: bool,
    downstream: bool,
    #[serde(rename = "entryExpiry", alias = "entry_expiry")]
    entry_expiry: i64,
    dns_names: Vec<String>,
    revision_number: i64,
    store_svid: bool,
    hint: String,
    created_at: i64,
    additional_attributes: Option<FileAttributes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSelector {
    r#type: String,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileAttributes {
    disable_x509_svid_prefetch: bool,
    jwt_svid_include_jti: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdsFile {
    ids: Vec<String>,
}

/// The entries of the file at `path`; `-` is standard input.
pub(super) fn entries(path: &Path) -> Result<Vec<types::Entry>, CommandError> {
    let file = HumanFile::argument(path, MAX_FILE_BYTES)?;
    let entries: EntriesFile = parse(&file)?;
    entries
        .entries
        .into_iter()
        .enumerate()
        .map(|(index, entry)| {
            entry
                .into_pb()
                .map_err(|why| CommandError::Malformed(format!("{}: entry {}: {why}", file.name(), index + 1)))
        })
        .collect()
}

/// The entry IDs of the file at `path`; `-` is standard input.
pub(super) fn ids(path: &Path) -> Result<Vec<String>, CommandError> {
    let ids: IdsFile = parse(&HumanFile::argument(path, MAX_FILE_BYTES)?)?;
    Ok(ids.ids)
}

impl FileEntry {
    fn into_pb(self) -> Result<types::Entry, String> {
        let id = |key: &str, text: &str| {
            SpiffeId::parse(text).map(|id| id.to_pb()).map_err(|why| format!("{key} {text:?}: {why}"))
        };
        let selector = |selector: FileSelector| types::Selector { r#type: selector.r#type, value: selector.value };
        Ok(types::Entry {
            spiffe_id: Some(id("spiffe_id", &self.spiffe_id)?),
            parent_id: Some(id("parent_id", &self.parent_id)?),
            id: self.entry_id,
            selectors: self.selectors.into_iter().map(selector).collect(),
            x509_svid_ttl: self.x509_svid_ttl,
            federates_with: self.federates_with,
            admin: self.admin,
            downstream: self.downstream,
            expires_at: self.entry_expiry,
            dns_names: self.dns_names,
            revision_number: self.revision_number,
            store_svid: self.store_svid,
            jwt_svid_ttl: self.jwt_svid_ttl,
            hint: self.hint,
            created_at: self.created_at,
            additional_attributes: self.additional_attributes.map(|attributes| types::entry::AdditionalAttributes {
                disable_x509_svid_prefetch: attributes.disable_x509_svid_prefetch,
                jwt_svid_include_jti: attributes.jwt_svid_include_jti,
            }),
        })
    }
}

fn parse<T: DeserializeOwned>(file: &HumanFile) -> Result<T, CommandError> {
    // serde names line and column.
    serde_json::from_str(file.text()).map_err(|error| CommandError::Malformed(format!("{}: {error}", file.name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries_of(text: &str) -> Result<Vec<types::Entry>, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("entries.json");
        std::fs::write(&path, text).expect("written");
        entries(&path).map_err(|error| error.message().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn reads_the_shape_that_spire_reads() {
        let text = r#"{"entries": [
            {"selectors": [{"type": "unix", "value": "uid:1111"}], "spiffe_id": "spiffe://td/Blog",
             "parent_id": "spiffe://td/spire/agent/join_token/T", "x509_svid_ttl": 200, "jwt_svid_ttl": 30, "admin": true},
            {"selectors": [{"type": "unix", "value": "uid:2222"}], "spiffe_id": "spiffe://td/DB", "parent_id": "spiffe://td/n",
             "entryExpiry": 1552410266, "dns_names": ["unu"], "downstream": true, "entry_id": "x", "federates_with": [],
             "additional_attributes": {"disable_x509_svid_prefetch": true}, "hint": "h", "store_svid": false}
        ]}"#;
        let entries = entries_of(text).expect("reads");
        assert_eq!((entries[0].x509_svid_ttl, entries[0].jwt_svid_ttl, entries[0].admin), (200, 30, true));
        assert_eq!(entries[0].parent_id.as_ref().map(|id| id.path.as_str()), Some("/spire/agent/join_token/T"));
        assert_eq!((entries[1].expires_at, entries[1].id.as_str(), entries[1].downstream), (1_552_410_266, "x", true));
        assert!(entries[1].additional_attributes.as_ref().is_some_and(|a| a.disable_x509_svid_prefetch));
    }

    #[test]
    fn says_which_entry_and_which_line_is_wrong() {
        let id = r#"{"entries": [{"spiffe_id": "spiffe://td/a", "parent_id": "x"}]}"#;
        assert_eq!(entries_of(id), Err("FILE: entry 1: parent_id \"x\": scheme is not \"spiffe://\"".to_owned()));
        let unknown = entries_of("{\"entries\": [\n{\"spife_id\": \"\"}]}").expect_err("unknown");
        assert!(unknown.starts_with("FILE: unknown field `spife_id`") && unknown.contains("line 2"), "{unknown}");
        assert!(entries_of("[]").is_err());
        let gone = entries(Path::new("/nonexistent/x.json")).expect_err("gone").message();
        assert_eq!(gone, "cannot read /nonexistent/x.json: No such file or directory (os error 2)");
    }
}
