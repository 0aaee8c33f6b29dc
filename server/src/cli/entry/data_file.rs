//! Entries and IDs in JSON files.

use std::collections::BTreeMap;
use std::path::Path;

use ironroot_api::SpiffeId;
use ironroot_api::pb::types;
use ironroot_shell::command_line::{CommandError, as_go_reads, counted, json_mistake};
use ironroot_text::HumanFile;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Largest file accepted, bytes: a batch of 10,000 entries is some MB.
const MAX_FILE_BYTES: usize = 64 * 1024 * 1024;

/// Most mistakes that are told of.
const MAX_MISTAKES: usize = 50;
/// Most unknown keys that are told of.
const MAX_UNKNOWN_KEYS: usize = 20;

/// `{"entries": [...]}`. Source: SPIRE's `spire.common.RegistrationEntries` in Go's JSON; and what `entry show -output json`
/// prints, by which entries move from one server to another. Keys count in any case. A key nobody knows is passed over
/// as there, and unlike there it is said: a misspelt key makes another entry than was meant.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with the list \"entries\"")]
struct EntriesFile {
    entries: Option<Vec<FileEntry>>,
    /// Of a printed list; there is only one page.
    #[serde(default, rename = "next_page_token")]
    _next_page_token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "an entry: an object with spiffe_id, parent_id and selectors")]
struct FileEntry {
    #[serde(alias = "id")]
    entry_id: String,
    parent_id: FileId,
    spiffe_id: FileId,
    selectors: Vec<FileSelector>,
    x509_svid_ttl: i32,
    jwt_svid_ttl: i32,
    federates_with: Vec<String>,
    admin: bool,
    downstream: bool,
    #[serde(rename = "entryExpiry", alias = "entry_expiry", alias = "expires_at")]
    entry_expiry: FileInt64,
    dns_names: Vec<String>,
    revision_number: FileInt64,
    store_svid: bool,
    hint: String,
    created_at: FileInt64,
    additional_attributes: Option<FileAttributes>,
}

/// A SPIFFE ID in one text, or in its parts as `entry show -output json` prints it.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a SPIFFE ID is a text, or an object with trust_domain and path")]
enum FileId {
    Text(String),
    Parts { trust_domain: String, path: String },
}

impl Default for FileId {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl FileId {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts { trust_domain, path } => format!("spiffe://{trust_domain}{path}"),
        }
    }
}

/// A 64-bit number, or its text as protobuf's JSON has it.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a number here is a whole one, or its text")]
enum FileInt64 {
    Number(i64),
    Text(String),
}

impl Default for FileInt64 {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl FileInt64 {
    fn value(&self, key: &str) -> Result<i64, String> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Text(text) => text.parse().map_err(|_| format!("{key} {text:?}: not a whole number")),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a selector: an object with type and value")]
struct FileSelector {
    r#type: String,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "an object of attributes")]
struct FileAttributes {
    disable_x509_svid_prefetch: bool,
    jwt_svid_include_jti: bool,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with the list \"ids\"")]
struct IdsFile {
    ids: Vec<String>,
}

/// The keys of all of these, as they are written here.
const KEYS: [&str; 29] = [
    "additional_attributes",
    "admin",
    "created_at",
    "disable_x509_svid_prefetch",
    "dns_names",
    "downstream",
    "entries",
    "entryExpiry",
    "entry_expiry",
    "entry_id",
    "expires_at",
    "federates_with",
    "hint",
    "id",
    "ids",
    "jwt_svid_include_jti",
    "jwt_svid_ttl",
    "next_page_token",
    "parent_id",
    "path",
    "revision_number",
    "selectors",
    "spiffe_id",
    "store_svid",
    "trust_domain",
    "ttl",
    "type",
    "value",
    "x509_svid_ttl",
];

/// What a file holds, and what to say of it on standard error, with line ends.
pub(super) struct Read<T> {
    pub content: T,
    pub notes: String,
}

/// An entry of a file, or what makes it none, a sentence each.
pub(super) type EntryOrMistakes = Result<types::Entry, Vec<String>>;

/// The entries of the file at `path`, which may hold none as at SPIRE's; `-` is standard input.
pub(super) fn entries(path: &Path) -> Result<Read<Vec<types::Entry>>, CommandError> {
    let Read { content, notes } = listed(path)?;
    let (mut read, mut mistakes) = (Vec::new(), Vec::new());
    for (index, entry) in content.unwrap_or_default().into_iter().enumerate() {
        match entry {
            Ok(entry) => read.push(entry),
            Err(why) => mistakes.extend(why.into_iter().map(|why| format!("entry {}: {why}", index + 1))),
        }
    }
    if mistakes.is_empty() { Ok(Read { content: read, notes }) } else { Err(all_of(path, mistakes)) }
}

/// What is wrong with the file at `path`: as many of the mistakes as anybody reads, a line each.
pub(super) fn all_of(path: &Path, mut mistakes: Vec<String>) -> CommandError {
    let more = mistakes.len().saturating_sub(MAX_MISTAKES);
    mistakes.truncate(MAX_MISTAKES);
    let file = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    let mut lines: Vec<String> = mistakes.iter().map(|told| format!("{file}: {told}")).collect();
    lines.extend((more > 0).then(|| format!("and {} more", counted(more, "mistake", "mistakes"))));
    CommandError::Malformed(lines.join("\n"))
}

/// The entries of the file at `path`, each by itself; `-` is standard input. The list must be there: without it the registry would
/// become empty.
pub(super) fn entries_or_mistakes(path: &Path) -> Result<Read<Vec<EntryOrMistakes>>, CommandError> {
    let Read { content, notes } = listed(path)?;
    let missing = || CommandError::Malformed(format!("{}: it has no list \"entries\"", path.display()));
    Ok(Read { content: content.ok_or_else(missing)?, notes })
}

fn listed(path: &Path) -> Result<Read<Option<Vec<EntryOrMistakes>>>, CommandError> {
    let Read { content, notes } = parse::<EntriesFile>(&HumanFile::argument(path, MAX_FILE_BYTES)?)?;
    Ok(Read { content: content.entries.map(|entries| entries.into_iter().map(FileEntry::into_pb).collect()), notes })
}

/// The entry IDs of the file at `path`; `-` is standard input.
pub(super) fn ids(path: &Path) -> Result<Read<Vec<String>>, CommandError> {
    let Read { content, notes } = parse::<IdsFile>(&HumanFile::argument(path, MAX_FILE_BYTES)?)?;
    Ok(Read { content: content.ids, notes })
}

impl FileEntry {
    fn into_pb(self) -> EntryOrMistakes {
        let mut mistakes = Vec::new();
        let mut id = |key: &str, id: FileId| {
            let text = id.into_text();
            let parsed = SpiffeId::parse(&text).map_err(|why| mistakes.push(format!("{key} {text:?}: {why}")));
            parsed.ok().map(|id| id.to_pb())
        };
        let (spiffe_id, parent_id) = (id("spiffe_id", self.spiffe_id), id("parent_id", self.parent_id));
        let mut number =
            |key: &str, number: FileInt64| number.value(key).map_err(|why| mistakes.push(why)).unwrap_or(0);
        let expires_at = number("entryExpiry", self.entry_expiry);
        let revision_number = number("revision_number", self.revision_number);
        let created_at = number("created_at", self.created_at);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let selector = |selector: FileSelector| types::Selector { r#type: selector.r#type, value: selector.value };
        Ok(types::Entry {
            spiffe_id,
            parent_id,
            id: self.entry_id,
            selectors: self.selectors.into_iter().map(selector).collect(),
            x509_svid_ttl: self.x509_svid_ttl,
            federates_with: self.federates_with,
            admin: self.admin,
            downstream: self.downstream,
            expires_at,
            dns_names: self.dns_names,
            revision_number,
            store_svid: self.store_svid,
            jwt_svid_ttl: self.jwt_svid_ttl,
            hint: self.hint,
            created_at,
            additional_attributes: self.additional_attributes.map(|attributes| types::entry::AdditionalAttributes {
                disable_x509_svid_prefetch: attributes.disable_x509_svid_prefetch,
                jwt_svid_include_jti: attributes.jwt_svid_include_jti,
            }),
        })
    }
}

fn parse<T: DeserializeOwned>(file: &HumanFile) -> Result<Read<T>, CommandError> {
    let wrong = |error| CommandError::Malformed(format!("{}: {}", file.name(), json_mistake(&error)));
    let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
    let text = as_go_reads(file.text(), &KEYS);
    let mut reader = serde_json::Deserializer::from_str(&text);
    let note = |path: serde_ignored::Path<'_>| {
        let key = path.to_string().rsplit('.').next().unwrap_or_default().chars().take(64).collect();
        if unknown.len() < MAX_UNKNOWN_KEYS || unknown.contains_key(&key) {
            *unknown.entry(key).or_default() += 1;
        }
    };
    let content = serde_ignored::deserialize(&mut reader, note).map_err(wrong)?;
    reader.end().map_err(wrong)?;
    let notes = unknown.iter().map(|(key, times)| unknown_key(file.name(), key, *times)).collect();
    Ok(Read { content, notes })
}

fn unknown_key(file: &str, key: &str, times: usize) -> String {
    let advice = match key {
        "ttl" => ": write x509_svid_ttl",
        _ => "",
    };
    format!("Warning: {file}: key {key:?} is not known and passed over ({}){advice}\n", counted(times, "time", "times"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries_of(text: &str) -> Result<Vec<types::Entry>, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("entries.json");
        std::fs::write(&path, text).expect("written");
        entries(&path)
            .map(|read| read.content)
            .map_err(|error| error.message().replace(&path.display().to_string(), "FILE"))
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
    fn keys_count_in_any_case_null_is_as_not_given_and_a_file_may_hold_nothing_as_at_spires() {
        let text = r#"{"Entries": [{"SPIFFE_ID": "spiffe://td/a", "Parent_Id": "spiffe://td/p", "EntryExpiry": 5, "Hint": null,
            "selectors": [{"Type": "unix", "VALUE": "uid:1"}], "dns_names": null, "X509_SVID_TTL": 60, "downstream": null}]}"#;
        let entry = entries_of(text).expect("reads").remove(0);
        assert_eq!((entry.expires_at, entry.x509_svid_ttl, entry.hint.as_str()), (5, 60, ""));
        assert_eq!(entry.selectors, [types::Selector { r#type: "unix".into(), value: "uid:1".into() }]);
        for nothing in ["{}", r#"{"entries": null}"#, r#"{"entries": []}"#] {
            assert_eq!(entries_of(nothing), Ok(Vec::new()), "{nothing}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("entries.json");
        std::fs::write(&path, "{\"entires\": []}").expect("written");
        let refused = entries_or_mistakes(&path).map(drop).expect_err("apply needs the list").message();
        assert!(refused.ends_with("it has no list \"entries\""), "{refused}");
    }

    #[test]
    fn reads_what_entry_show_prints() {
        // Printed by spire-server 1.16.0-dev.
        let text = r#"{"entries":[{"admin":false,"created_at":"1795661680","dns_names":["_srv._tcp.td"],"downstream":true,
            "expires_at":"1552410266","federates_with":[],"hint":"","id":"e1","jwt_svid_ttl":0,
            "parent_id":{"path":"/p","trust_domain":"td"},"revision_number":"3","selectors":[{"type":"unix","value":"uid:2"}],
            "spiffe_id":{"path":"/b","trust_domain":"td"},"store_svid":false,"x509_svid_ttl":16}],"next_page_token":""}"#;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("entries.json");
        std::fs::write(&path, text).expect("written");
        let read = entries(&path).expect("reads");
        assert_eq!(read.notes, "", "it knows every key");
        let entry = &read.content[0];
        let ids =
            [&entry.spiffe_id, &entry.parent_id].map(|id| SpiffeId::from_pb(id.as_ref()).expect("an ID").to_string());
        assert_eq!(ids, ["spiffe://td/b", "spiffe://td/p"]);
        assert_eq!((entry.id.as_str(), entry.expires_at, entry.x509_svid_ttl), ("e1", 1_552_410_266, 16));
        assert!(entries_of(&text.replace("\"1552410266\"", "\"soon\"")).is_err_and(|said| said.contains("soon")));
    }

    #[test]
    fn of_many_mistakes_as_many_are_told_as_anybody_reads() {
        let told = all_of(Path::new("FILE"), vec!["entry 1: x".to_owned(); MAX_MISTAKES + 1]).message();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            (lines.len(), lines[0], lines[MAX_MISTAKES]),
            (MAX_MISTAKES + 1, "FILE: entry 1: x", "and 1 mistake more")
        );
    }

    #[test]
    fn all_that_is_wrong_with_an_entry_is_told() {
        let text = r#"{"entries": [{"spiffe_id": "a", "parent_id": "b", "entryExpiry": "soon", "created_at": "x"}]}"#;
        let told = entries_of(text).expect_err("four mistakes");
        let keys: Vec<&str> =
            told.lines().filter_map(|line| line.strip_prefix("FILE: entry 1: ")?.split(' ').next()).collect();
        assert_eq!(keys, ["spiffe_id", "parent_id", "entryExpiry", "created_at"], "{told}");
    }

    #[test]
    fn says_which_entry_and_which_line_is_wrong() {
        let id = r#"{"entries": [{"spiffe_id": "spiffe://td/a", "parent_id": "x"}]}"#;
        assert_eq!(entries_of(id), Err("FILE: entry 1: parent_id \"x\": scheme is not \"spiffe://\"".to_owned()));
        for (text, wanted) in [
            ("[]", "invalid length 0, expected an object with the list \"entries\" at line 1 column 2"),
            ("{\"entries\": [", "the JSON ends before it is whole, at line 1 column 13"),
            (
                r#"{"entries": [{"selectors": ["unix:uid:1"]}]}"#,
                "invalid type: string \"unix:uid:1\", expected a selector: an object with type and value at line 1 column 40",
            ),
            (
                r#"{"entries": [{"spiffe_id": 5}]}"#,
                "a SPIFFE ID is a text, or an object with trust_domain and path at line 1 column 29",
            ),
            (
                r#"{"entries": [{"x509_svid_ttl": "1h"}]}"#,
                "invalid type: string \"1h\", expected a whole number at line 1 column 35",
            ),
        ] {
            assert_eq!(entries_of(text), Err(format!("FILE: {wanted}")));
        }
        let gone = entries(Path::new("/nonexistent/x.json")).map(|_| ()).expect_err("gone").message();
        assert_eq!(gone, "cannot read /nonexistent/x.json: No such file or directory (os error 2)");
    }

    #[test]
    fn keys_that_nobody_knows_are_passed_over_and_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("entries.json");
        let entry = r#"{"spiffe_id": "spiffe://td/a", "parent_id": "spiffe://td/p", "ttl": 30, "selectors": []}"#;
        std::fs::write(&path, format!("{{\"version\": 1, \"entries\": [{entry}, {entry}]}}")).expect("written");
        let read = entries(&path).expect("reads");
        assert_eq!(read.content.len(), 2);
        assert!(read.notes.contains("key \"ttl\" is not known and passed over (2 times): write x509_svid_ttl\n"));
        assert!(read.notes.contains("key \"version\" is not known"), "{}", read.notes);
    }

    #[test]
    fn entry_files_survive_damage() {
        let entry = r#"{"selectors": [{"type": "unix", "value": "uid:1"}], "spiffe_id": "spiffe://td/a", "parent_id": "spiffe://td/p", "dns_names": ["a"], "additional_attributes": {"jwt_svid_include_jti": true}}"#;
        let seeds = [format!("{{\"entries\": [{entry}]}}"), r#"{"ids": ["a", "b"]}"#.to_owned()];
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("entries.json");
        let [one, two] = seeds;
        ironroot_fuzz::Target::new("entry files").seed(one).seed(two).survives(|bytes| {
            std::fs::write(&path, bytes).expect("written");
            let _ = (entries(&path).map(|read| read.content), ids(&path).map(|read| read.content));
        });
    }
}
