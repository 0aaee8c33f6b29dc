//! `device` against a live server.

use std::fs;
use std::path::Path;

use ironroot_api::TrustDomain;
use ironroot_server::store::Store;

use crate::running_server::RunningServer;

/// Agents of the purge.
const EXPIRED: u64 = 500;
/// One whose certificate ended in 1970 as well.
const BANNED: &str = "spiffe://example.org/spire/agent/tpm2/banned";

/// A store with agents whose certificates ended in 1970, and one such that is banned.
fn store_expired_agents(data: &Path) {
    let path = data.join("datastore.sqlite3");
    let store = Store::open(&path, &TrustDomain::new("example.org").expect("legal")).expect("a new store");
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(store.close());
    let mut database = rusqlite::Connection::open(&path).expect("opens");
    let rows = database.transaction().expect("begun");
    let expired = (0..EXPIRED).map(|number| (format!("spiffe://example.org/spire/agent/tpm2/{number:04}"), false));
    for (id, banned) in expired.chain([(BANNED.to_owned(), true)]) {
        let row = "INSERT INTO agents (spiffe_id, attestation_type, serial, not_after, new_serial, new_not_after, can_reattest,
                                       banned, selectors, agent_version) VALUES (?1, 'tpm2', '1', 60, '', 0, 1, ?2, '', '')";
        rows.execute(row, (id, banned)).expect("added");
    }
    rows.commit().expect("committed");
}

#[test]
fn a_purge_asks_for_many_deletions_at_once_and_they_share_commits() {
    let server = RunningServer::start_upon(store_expired_agents);
    let spared = server.ok(&["agent", "purge", "-dryRun"]);
    assert!(spared.starts_with(&format!("Found {EXPIRED} expired agents\n")), "{spared}");
    let before = server.writes();
    let purged = server.ok(&["agent", "purge"]);
    let writes = server.writes() - before;
    println!("{writes} writes for {EXPIRED} agents");
    assert_eq!(purged.matches("SPIFFE ID         : spiffe://").count() as u64, EXPIRED);
    assert!(purged.contains("Agents purged:\n") && !purged.contains("Agents not purged:"), "{purged}");
    assert_eq!(server.ok(&["agent", "purge"]), "No agents to purge.\n");
    assert!(writes < 6 * EXPIRED, "{writes} writes for {EXPIRED} agents");
}

#[test]
fn a_purge_lifts_no_ban() {
    let server = RunningServer::start_upon(store_expired_agents);
    assert!(!server.ok(&["agent", "purge", "-dryRun"]).contains(BANNED));
    assert!(!server.ok(&["agent", "purge"]).contains(BANNED));
    let listed = server.json(&["agent", "list"]);
    let left = listed["agents"].as_array().expect("a list");
    assert_eq!(left.len(), 1, "{listed}");
    assert_eq!((&left[0]["id"]["path"], &left[0]["banned"]), (&"/spire/agent/tpm2/banned".into(), &true.into()));
}

#[test]
fn a_fleet_is_imported_listed_banned_and_deleted() {
    let server = RunningServer::start();
    let (first, second) = ("1".repeat(64), "2".repeat(64));
    let file = server.path("devices.csv");
    fs::write(&file, format!("ek_sha256,serial,label:site\n{first},SN-1,berlin\n{second},SN-2,wien\n"))
        .expect("written");
    assert_eq!(server.ok(&["device", "import", &file]), "Imported 2 devices: 2 created, 0 updated, 0 unchanged\n");
    fs::write(&file, format!("ek_sha256,serial,label:site\n{first},SN-1,berlin\n{second},SN-2b,wien\n"))
        .expect("written");
    assert_eq!(
        server.ok(&["device", "import", &file]),
        format!("Imported 2 devices: 0 created, 1 updated, 1 unchanged\n  {second} (SN-2b): serial SN-2 -> SN-2b\n")
    );
    let listed = server.json(&["device", "list", "-label", "site=wien"]);
    assert_eq!(listed["devices"].as_array().map(Vec::len), Some(1));
    assert_eq!(listed["devices"][0]["serial"], "SN-2b");
    assert!(server.ok(&["device", "ban", &first]).contains("State             : banned\n"));
    assert!(server.ok(&["device", "list", "-state", "banned"]).starts_with("Found 1 device\n"));
    assert_eq!(server.json(&["device", "show", &first])["state"], "banned");
    assert_eq!(server.ok(&["device", "delete", &first]), "Device deleted successfully\n");
    assert_eq!(server.run(&["device", "show", &first]).code, 1);
    fs::write(&file, "ek_sha256,serail\nx,y\n").expect("written");
    let refused = server.run(&["device", "import", &file]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("devices.csv: line 1: unknown column \"serail\""), "{}", refused.err);
}

#[test]
fn a_manifest_comes_from_standard_input_in_any_line_end_and_encoding() {
    let server = RunningServer::start();
    let (first, second) = ("1".repeat(64), "2".repeat(64));
    let text = format!("ek_sha256;serial;label:site\r{first}; SN-1 ;berlin\r{second};SN-2;wien\r");
    let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let answer = server.run_with_input(&["device", "import", "-"], &utf16);
    assert_eq!(answer.out, "Imported 2 devices: 2 created, 0 updated, 0 unchanged\n", "{}", answer.err);
    let answer = server.run_with_input(&["device", "import", "-"], text.as_bytes());
    assert_eq!(answer.out, "Imported 2 devices: 0 created, 0 updated, 2 unchanged\n", "{}", answer.err);
    assert_eq!(server.json(&["device", "show", "SN-1"])["serial"], "SN-1");
    let refused = server.run_with_input(&["device", "import", "-"], &utf16[2..]);
    assert_eq!(refused.err, "Error: cannot read standard input: it is UTF-16 without a mark: save it as UTF-8\n");
}

#[test]
fn an_import_refuses_a_serial_twice_and_says_that_a_banned_device_stays_banned() {
    let server = RunningServer::start();
    let (first, second) = ("1".repeat(64), "2".repeat(64));
    let both = format!("ek_sha256,serial\n{first},SN-1\n{second},SN-1\n");
    let refused = server.run_with_input(&["device", "import", "-"], both.as_bytes());
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains(&format!("\"SN-1\" of {first} and {second}")), "{}", refused.err);
    let taken = server.run_with_input(&["device", "import", "-allowDuplicateSerials", "-"], both.as_bytes());
    assert_eq!(taken.code, 0, "{}", taken.err);
    let ambiguous = server.run(&["device", "ban", "SN-1"]);
    assert!(ambiguous.err.starts_with("Error: \"SN-1\" names 2 devices: "), "{}", ambiguous.err);
    server.ok(&["device", "ban", "111111"]);
    let banned = server.run_with_input(&["device", "import", "-"], format!("ek_sha256\n{first}\n").as_bytes());
    assert!(banned.out.contains("banned, and stays so: delete it"), "{}", banned.out);
}

#[test]
fn devices_are_named_by_serial_or_by_digits_of_their_hash_and_several_at_once() {
    let server = RunningServer::start();
    let hashes = ["aaaaaa1", "aaaaaa2", "b"].map(|begin| format!("{begin}{}", "0".repeat(64 - begin.len())));
    let [a, b, c] = &hashes;
    let manifest = format!("ek_sha256,serial\n{a},SN-1\n{b},SN-2\n{c},SN-3\n");
    assert_eq!(server.run_with_input(&["device", "import", "-"], manifest.as_bytes()).code, 0);
    assert_eq!(server.json(&["device", "show", "AAAAAA2"])["serial"], "SN-2");
    let several = server.json(&["device", "ban", "SN-1", "aaaaaa2", a]);
    let states: Vec<_> = several["devices"].as_array().expect("a list").iter().map(|d| d["state"].clone()).collect();
    assert_eq!(states, ["banned", "banned"], "each once");
    for (name, reason) in [
        ("aaaaaa", "\"aaaaaa\" names 2 devices: give more digits"),
        ("b0000", "\"b0000\" names no device"),
        ("SN-9", "\"SN-9\" names no device"),
    ] {
        let refused = server.run(&["device", "delete", "SN-3", name]);
        assert!(refused.code == 1 && refused.err.contains(reason), "{name}: {}", refused.err);
    }
    assert_eq!(server.json(&["device", "show", c]).get("ban"), None);
    assert_eq!(server.ok(&["device", "delete", "SN-3", "SN-2"]), "Deleted 2 devices successfully\n");
    assert_eq!(server.json(&["device", "list"])["devices"].as_array().map(Vec::len), Some(1));
    let described = server.ok(&["device", "show", a]);
    assert!(described.contains("Serial            : SN-1\n"), "{described}");
    assert!(described.contains("Banned by         : local\n") && described.contains("Banned at "), "{described}");
    let ban = server.json(&["device", "show", a])["ban"].clone();
    assert_eq!((ban["reason"].as_str(), ban["by"].as_str()), (Some("administrator"), Some("local")), "{ban}");
}

#[test]
fn a_file_that_is_no_manifest_is_not_printed() {
    let server = RunningServer::start();
    for arguments in [&["device", "import"][..], &["entry", "create", "-data"], &["entry", "delete", "-file"]] {
        let refused = server.run(&[arguments, &[&server.path("pin")]].concat());
        let said = format!("{}{}", refused.out, refused.err);
        assert!(refused.code == 1 && !said.contains("user-pin"), "{said}");
    }
    let refused = server.run(&["validate", "-config", &server.path("pin")]);
    assert!(!refused.err.contains("user-pin"), "{}", refused.err);
}
