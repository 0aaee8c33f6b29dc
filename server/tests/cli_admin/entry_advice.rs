//! What `entry create`, `update` and `delete` say beside SPIRE's words.

use std::fs;

use crate::running_server::RunningServer;

const GROUP: &str = "spiffe://example.org/gateway";
const WEB: &str = "spiffe://example.org/web";

fn id(created: &str) -> String {
    created.lines().find_map(|line| line.strip_prefix("Entry ID                : ")).expect("an ID").to_owned()
}

#[test]
fn entry_create_says_what_it_matches_and_json_stays_json() {
    let server = RunningServer::start();
    let file = server.path("devices.csv");
    fs::write(&file, format!("ek_sha256,label:site\n{},wien\n", "1".repeat(64))).expect("written");
    server.ok(&["device", "import", &file]);
    let node = ["entry", "create", "-node", "-spiffeID", GROUP, "-selector"];
    let created = server.run(&[&node[..], &["tpm2:label:site:berlln"]].concat());
    assert_eq!(
        (created.code, created.err.as_str()),
        (0, format!("Warning: {GROUP}: matches 0 of 1 device\n").as_str())
    );
    let similar = server.run(&[&node[..], &["tpm2:label:site:berlln"]].concat());
    assert!(similar.err.contains(&id(&created.out)), "the entry that is there is shown: {}", similar.err);
    let created = server.run(&[&node[..], &["tpm2:label:site:wien", "-output", "json"]].concat());
    assert_eq!(created.err, format!("Note: {GROUP}: matches 1 of 1 device\n"));
    let answer: serde_json::Value = serde_json::from_str(&created.out).expect("JSON and nothing else");
    assert_eq!(answer["results"][0]["status"]["message"], "OK");
    let workload = server.run(&[
        "entry",
        "create",
        "-parentID",
        "spiffe://example.org/no",
        "-spiffeID",
        WEB,
        "-selector",
        "uid:1",
    ]);
    assert!(workload.err.contains("did you mean unix:uid:1?") && workload.err.contains("no entry gives the parent ID"));
}

#[test]
fn a_group_that_others_hang_on_is_not_renamed_or_deleted_without_force() {
    let server = RunningServer::start();
    let group = server.run(&["entry", "create", "-node", "-spiffeID", GROUP, "-selector", "tpm2:label:a:b"]);
    let group = id(&group.out);
    server.ok(&["entry", "create", "-parentID", GROUP, "-spiffeID", WEB, "-selector", "unix:uid:1"]);
    let rename = ["entry", "update", "-entryID", &group, "-parentID", "spiffe://example.org/spire/server", "-selector"];
    let rename = [&rename[..], &["tpm2:label:a:b", "-spiffeID", "spiffe://example.org/gw"]].concat();
    let told = format!("1 entry names {GROUP} as parent and ends with it: nothing was changed; give -force");
    for arguments in [&rename[..], &["entry", "delete", "-entryID", &group]] {
        let refused = server.run(arguments);
        assert!(refused.code == 1 && refused.err.contains(&told), "{arguments:?}: {}", refused.err);
    }
    assert_eq!(server.json(&["entry", "show", "-entryID", &group])["entries"][0]["spiffe_id"]["path"], "/gateway");
    assert_eq!(server.run(&[&rename[..], &["-force"]].concat()).code, 0);
    server.ok(&["entry", "delete", "-entryID", &group]);
}
