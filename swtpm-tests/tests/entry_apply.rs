//! Entries as files: what a file says is what the server has, and what would have to be done for that is told before.

use std::path::Path;
use std::process::Output;

use ironroot_lab::deployment::{Server, ServerOptions, TRUST_DOMAIN};
use serde_json::{Value, json};

fn entry(path: &str, uid: u32) -> Value {
    json!({
        "spiffe_id": format!("spiffe://{TRUST_DOMAIN}{path}"),
        "parent_id": format!("spiffe://{TRUST_DOMAIN}/gateway"),
        "selectors": [{ "type": "unix", "value": format!("uid:{uid}") }],
    })
}

fn write(file: &Path, entries: &[Value]) {
    std::fs::write(file, json!({ "entries": entries }).to_string()).expect("written");
}

fn apply(server: &Server, file: &Path, more: &[&str]) -> Output {
    server.cli_output(&[&["entry", "apply", "-data", file.to_str().expect("text")], more].concat())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

fn ids(server: &Server) -> Vec<String> {
    let shown: Value = serde_json::from_str(&server.cli(&["entry", "show", "-output", "json"])).expect("JSON");
    let entries = shown["entries"].as_array().expect("entries").clone();
    entries.iter().map(|entry| entry["id"].as_str().expect("an ID").to_owned()).collect()
}

#[test]
fn a_file_is_applied_again_and_again_drift_is_told_and_entries_of_others_stay() {
    let server = Server::start(&ServerOptions::default());
    server.create_node_alias("/gateway", "site:berlin");
    let theirs = server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/gateway"), "/theirs", &["unix:uid:9"], &[]);
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("entries.json");
    write(&file, &[entry("/a", 1), entry("/b", 2)]);
    let owned = ["-owner", "platform", "-prune"];
    let told = apply(&server, &file, &[&owned[..], &["-dryRun"]].concat());
    assert!(!told.status.success() && said(&told).contains("2 to create, 0 to change, 0 to delete"), "{}", said(&told));
    assert_eq!(ids(&server).len(), 2, "nothing was changed");
    let done = apply(&server, &file, &owned);
    assert!(done.status.success() && said(&done).contains("Created 2, changed 0, deleted 0"), "{}", said(&done));
    let again = apply(&server, &file, &[&owned[..], &["-dryRun"]].concat());
    assert!(again.status.success() && said(&again).contains("2 as they are to be"), "{}", said(&again));

    // Somebody changes one by hand, and the file another and leaves one out.
    let mine: Vec<String> = ids(&server).into_iter().filter(|id| id.starts_with("platform.")).collect();
    assert_eq!(mine.len(), 2, "{mine:?}");
    let mut a = entry("/a", 1);
    a["x509_svid_ttl"] = 60.into();
    a["dns_names"] = json!(["a.example.org"]);
    write(&file, &[a.clone()]);
    let drift = apply(&server, &file, &["-owner", "platform", "-dryRun", "-output", "json"]);
    let drift: Value = serde_json::from_slice(&drift.stdout).expect("JSON");
    assert_eq!((&drift["differs"], &drift["applied"]), (&true.into(), &false.into()), "{drift}");
    assert_eq!(drift["change"][0]["fields"][1], json!({ "field": "x509_svid_ttl", "from": 0, "to": 60 }), "{drift}");
    assert_eq!(drift["left_over"].as_array().map(Vec::len), Some(1), "{drift}");
    let done = apply(&server, &file, &owned);
    assert!(done.status.success() && said(&done).contains("Created 0, changed 1, deleted 1"), "{}", said(&done));
    assert!(ids(&server).contains(&theirs) && ids(&server).len() == 3, "{:?}", ids(&server));
    assert!(apply(&server, &file, &[&owned[..], &["-dryRun"]].concat()).status.success());
}

#[test]
fn where_something_is_refused_nothing_is_deleted_and_a_file_without_entries_deletes_nothing() {
    let server = Server::start(&ServerOptions::default());
    server.create_node_alias("/gateway", "site:berlin");
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("entries.json");
    let owned = ["-owner", "platform", "-prune"];
    write(&file, &[entry("/a", 1), entry("/b", 2)]);
    assert!(apply(&server, &file, &owned).status.success());
    let before = ids(&server);
    // Another owner's ID, since the selectors are others: the old one is to go, and the new one is refused.
    let mut another = entry("/a", 11);
    another["federates_with"] = json!(["unknown.example"]);
    write(&file, &[another, entry("/b", 2), entry("/c", 3)]);
    let refused = apply(&server, &file, &owned);
    let words = said(&refused);
    assert!(!refused.status.success() && words.contains("Created 1, changed 0, deleted 0"), "{words}");
    assert!(words.contains("nothing was deleted, since others failed (1 to delete)"), "{words}");
    let after = ids(&server);
    assert!(before.iter().all(|id| after.contains(id)) && after.len() == before.len() + 1, "{after:?}");
    write(&file, &[]);
    let refused = apply(&server, &file, &owned);
    assert!(!refused.status.success() && said(&refused).contains("-prune would delete all 3"), "{}", said(&refused));
    assert_eq!(ids(&server), after);
}

#[test]
fn mistakes_of_a_file_are_all_named_and_nothing_is_applied() {
    let server = Server::start(&ServerOptions::default());
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("entries.json");
    let mut nothing = entry("/b", 2);
    nothing["selectors"] = json!([]);
    write(&file, &[entry("/a", 1), nothing, entry("/a", 1), entry("/spire/x", 3)]);
    let refused = apply(&server, &file, &[]);
    for words in
        ["entry 2: ", "entry 3: has the SPIFFE ID, parent and selectors of entry 1", "entry 4: ", "nothing was changed"]
    {
        assert!(!refused.status.success() && said(&refused).contains(words), "{words}: {}", said(&refused));
    }
    write(&file, &[json!({ "spiffe_id": "http://x" }), json!({ "spiffe_id": "y" })]);
    let refused = said(&apply(&server, &file, &[]));
    assert!(refused.contains("entry 1: ") && refused.contains("entry 2: "), "{refused}");
    std::fs::write(&file, "{\"entries\": [").expect("written");
    assert!(said(&apply(&server, &file, &[])).contains("line 1"), "half a file");
    assert!(ids(&server).is_empty());
}

#[test]
fn an_entry_that_somebody_else_has_already_is_a_conflict_and_a_parent_of_others_is_not_deleted() {
    let server = Server::start(&ServerOptions::default());
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("entries.json");
    let gateway = format!("spiffe://{TRUST_DOMAIN}/gateway");
    let group = json!({
        "spiffe_id": gateway, "parent_id": format!("spiffe://{TRUST_DOMAIN}/spire/server"),
        "selectors": [{ "type": "tpm2", "value": "label:site:berlin" }],
    });
    write(&file, &[group]);
    assert!(apply(&server, &file, &["-owner", "platform"]).status.success());
    let theirs = server.create_entry(&gateway, "/a", &["unix:uid:1"], &[]);
    write(&file, &[entry("/a", 1)]);
    let conflict = apply(&server, &file, &["-owner", "platform"]);
    assert!(
        !conflict.status.success() && said(&conflict).contains(&format!("there already as entry {theirs}")),
        "{}",
        said(&conflict)
    );
    write(&file, &[]);
    let orphans = apply(&server, &file, &["-owner", "platform", "-prune"]);
    assert!(!orphans.status.success() && said(&orphans).contains("-force"), "{}", said(&orphans));
    assert_eq!(ids(&server).len(), 2);
    let forced = apply(&server, &file, &["-owner", "platform", "-prune", "-force"]);
    assert!(forced.status.success(), "{}", said(&forced));
    assert_eq!(ids(&server), [theirs]);
}

#[test]
fn what_entry_show_prints_of_one_server_is_what_apply_makes_of_another() {
    let (one, other) = (Server::start(&ServerOptions::default()), Server::start(&ServerOptions::default()));
    one.create_node_alias("/gateway", "site:berlin");
    one.create_entry(
        &format!("spiffe://{TRUST_DOMAIN}/gateway"),
        "/a",
        &["unix:uid:1", "unix:gid:2"],
        &["-dns", "a.example.org"],
    );
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("entries.json");
    std::fs::write(&file, one.cli(&["entry", "show", "-output", "json"])).expect("written");
    assert!(apply(&one, &file, &["-dryRun"]).status.success(), "it is what it says");
    let done = apply(&other, &file, &[]);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(ids(&one), ids(&other));
}
