//! Entries as files: what a file says is what the server has, and what would have to be done for that is told before.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use ironroot_lab::deployment::{Server, ServerOptions, TRUST_DOMAIN, binary};
use ironroot_lab::metrics::value;
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
    let (bad, worse) = (json!({ "spiffe_id": "http://x" }), json!({ "spiffe_id": "y" }));
    write(&file, &[bad, worse, entry("/a", 1), entry("/spire/x", 3), entry("/a", 1)]);
    let refused = said(&apply(&server, &file, &[]));
    for words in [
        "entry 1: spiffe_id",
        "entry 1: parent_id",
        "entry 2: spiffe_id",
        "entry 4: ",
        "entry 5: has the SPIFFE ID, parent and selectors of entry 3",
    ] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
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

/// The commands of a pipeline's file, job by job in its order.
/// A server takes 10,000 items at once; the move from SPIRE brings more in one file, and it is one command for them.
#[test]
fn a_file_of_more_than_a_server_takes_at_once_is_created_changed_and_deleted_by_one_command_each() {
    const MANY: u32 = 10_050;
    let server = Server::start(&ServerOptions::default());
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("entries.json");
    let say = |ttl: u32| {
        let entries = (0..MANY).map(|number| {
            let mut entry = entry(&format!("/app/{number}"), number);
            entry["entry_id"] = format!("app-{number}").into();
            entry["x509_svid_ttl"] = ttl.into();
            entry
        });
        write(&file, &entries.collect::<Vec<_>>());
        file.to_str().expect("text").to_owned()
    };
    let count = |ttl: &str, told: &str| told.matches(&format!("X509-SVID TTL           : {ttl}\n")).count();
    let created = server.cli(&["entry", "create", "-data", &say(60)]);
    assert_eq!(count("60", &created), MANY as usize, "{}", &created[..200]);
    let again = server.cli_output(&["entry", "create", "-data", &say(60), "-output", "json"]);
    let results: Value = serde_json::from_slice(&again.stdout).expect("JSON");
    let results = results["results"].as_array().expect("results");
    assert_eq!(results.len(), MANY as usize, "each is answered, in one list");
    assert!(results.iter().all(|result| result["status"]["code"] == 6), "AlreadyExists");
    assert_eq!(results[10_010]["entry"]["id"], "app-10010", "in the order of the file");
    let changed = server.cli(&["entry", "update", "-data", &say(120)]);
    assert_eq!(count("120", &changed), MANY as usize);
    std::fs::write(
        &file,
        json!({ "ids": (0..MANY).map(|number| format!("app-{number}")).collect::<Vec<_>>() }).to_string(),
    )
    .expect("written");
    let deleted = server.cli(&["entry", "delete", "-file", file.to_str().expect("text")]);
    assert!(deleted.contains(&format!("Deleted {MANY} entries successfully")), "{}", &deleted[deleted.len() - 200..]);
    assert_eq!(ids(&server), Vec::<String>::new());
}

fn jobs(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ci").join(file);
    let text = std::fs::read_to_string(path).expect("shipped");
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = text.lines().collect();
    let begins = |at: &usize| lines[*at].ends_with("- |") || lines[*at].ends_with("run: |");
    let block = |at: usize| -> String {
        let begun = lines[at + 1..].iter().take_while(|line| indent(line) > indent(lines[at]));
        begun.map(|line| format!("{}\n", line.trim_start())).collect()
    };
    (0..lines.len()).filter(begins).map(block).collect()
}

/// As a runner does it: in the directory with entries.json, and `ssh` reaches the server's machine, which is this one.
fn job(server: &Server, directory: &Path, script: &str) -> Output {
    let ssh = directory.join("ssh");
    std::fs::write(&ssh, "#!/bin/sh\n[ \"$1\" = ironroot@server ] || exit 255\nshift\nexec \"$@\"\n").expect("written");
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let programs = binary("ironroot-server").parent().expect("a directory").display().to_string();
    let path = format!("{}:{programs}:/usr/bin:/bin", directory.display());
    let mut bash = Command::new("bash");
    bash.args(["-e", "-c", script]).current_dir(directory).env("PATH", path);
    bash.env("SPIRE_SERVER_PRIVATE_SOCKET", server.socket()).output().expect("bash runs")
}

#[test]
fn the_pipelines_that_are_shipped_propose_apply_and_tell_of_drift() {
    for file in ["github.yml", "gitlab.yml"] {
        let server = Server::start(&ServerOptions::default());
        let directory = tempfile::tempdir().expect("directory");
        let entries = directory.path().join("entries.json");
        let jobs = jobs(file);
        let [proposed, merged, drift] = jobs.as_slice() else { panic!("{file}: {jobs:?}") };
        let does = |script: &str| job(&server, directory.path(), script);
        write(&entries, &[entry("/a", 1)]);
        let shown = does(proposed);
        assert!(shown.status.success() && said(&shown).contains("\"/a\""), "{file}: {}", said(&shown));
        assert!(ids(&server).is_empty(), "{file}: it is only proposed");
        assert!(!does(drift).status.success(), "{file}: the server is not what the file says");
        let applied = does(merged);
        assert!(applied.status.success() && ids(&server).len() == 1, "{file}: {}", said(&applied));
        assert!(does(drift).status.success(), "{file}: now it is");
        write(&entries, &[json!({ "spiffe_id": "x" })]);
        let mistaken = does(proposed);
        assert!(!mistaken.status.success() && said(&mistaken).contains("entry 1: "), "{file}: {}", said(&mistaken));
        server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/gateway"), "/b", &["unix:uid:2"], &[]);
        write(&entries, &[entry("/a", 1), entry("/b", 2)]);
        let conflict = does(proposed);
        assert!(
            !conflict.status.success() && said(&conflict).contains("is there already"),
            "{file}: {}",
            said(&conflict)
        );
    }
}

#[test]
fn drift_is_left_as_metrics_that_prometheus_takes() {
    let server = Server::start(&ServerOptions::default());
    let directory = tempfile::tempdir().expect("directory");
    let (file, page) = (directory.path().join("entries.json"), directory.path().join("entries.prom"));
    let looked = || {
        apply(&server, &file, &["-owner", "platform", "-dryRun", "-metrics", page.to_str().expect("text")]);
        std::fs::read_to_string(&page).expect("written")
    };
    let drift = |page: &str, todo: &str| {
        value(page, "ironroot_entries_drift", &["owner=\"platform\"", &format!("todo=\"{todo}\"")])
    };
    write(&file, &[entry("/a", 1), entry("/b", 2)]);
    let before = looked();
    assert_eq!(
        ["create", "change", "delete", "resolve"].map(|todo| drift(&before, todo)),
        [2.0, 0.0, 0.0, 0.0].map(Some)
    );
    assert!(apply(&server, &file, &["-owner", "platform"]).status.success());
    write(&file, &[entry("/a", 1)]);
    let after = looked();
    assert_eq!((drift(&after, "create"), drift(&after, "delete")), (Some(0.0), Some(1.0)));
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(std::fs::File::open(&page).expect("there"));
    let checked = promtool.output().expect("promtool: scripts/setup --tests installs it");
    assert!(checked.status.success(), "{}", said(&checked));
    let other = apply(&server, &file, &["-owner", "platform", "-dryRun", "-metrics", "x.txt"]);
    assert!(!other.status.success() && said(&other).contains("end in .prom"), "{}", said(&other));
    let refused = apply(&server, &file, &["-metrics", "x.prom"]);
    assert!(!refused.status.success() && said(&refused).contains("--dryRun"), "{}", said(&refused));
}
