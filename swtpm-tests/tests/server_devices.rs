//! Devices from day to day: labels, serials, a new board in the place of an old one, the fleet as a manifest, tables at a terminal.

use std::process::Command;

use ironroot_lab::deployment::{Server, ServerOptions, binary};
use serde_json::Value;

fn hash(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// Three devices: SN-1 and SN-2 in Berlin, and one without a serial.
fn fleet() -> Server {
    let server = Server::start(&ServerOptions::default());
    server.import_devices(&format!(
        "ek_sha256,serial,label:site\n{},SN-1,berlin\n{},SN-2,berlin\n{},,\n",
        hash('a'),
        hash('b'),
        hash('c')
    ));
    server
}

fn show(server: &Server, name: &str) -> Value {
    serde_json::from_str(&server.cli(&["device", "show", name, "-output", "json"])).expect("JSON")
}

#[test]
fn labels_and_serials_of_several_devices_change_at_once_or_not_at_all() {
    let server = fleet();
    server.cli(&["device", "label", "SN-1", "bbbbbb", "-set", "site=rome", "-set", "ring=1"]);
    for name in ["SN-1", "SN-2"] {
        assert_eq!(show(&server, name)["labels"], serde_json::json!({ "site": "rome", "ring": "1" }));
    }
    server.cli(&["device", "label", "SN-2", "-set", "ring="]);
    assert_eq!(show(&server, "SN-2")["labels"], serde_json::json!({ "site": "rome" }));
    server.cli(&["device", "set", "cccccc", "-serial", "SN-3"]);
    assert_eq!(show(&server, "SN-3")["ek_sha256"], hash('c'));
    let taken = server.cli_output(&["device", "set", "SN-3", "-serial", "SN-1"]);
    assert!(!taken.status.success(), "two devices would have one serial");
    let unknown = server.cli_output(&["device", "label", "SN-1", "SN-9", "-set", "site=x"]);
    assert!(!unknown.status.success());
    assert_eq!(show(&server, "SN-1")["labels"]["site"], "rome", "none of them was touched");
}

#[test]
fn a_new_board_takes_the_place_of_the_old_one_which_is_banned() {
    let server = fleet();
    let said = server.cli(&["device", "replace", "SN-1", &hash('d')]);
    assert!(said.contains("is replaced, and banned") && said.contains("SN-1"), "{said}");
    let new = show(&server, "SN-1");
    assert_eq!(
        (&new["ek_sha256"], &new["labels"]["site"], &new["state"]),
        (&hash('d').into(), &"berlin".into(), &"enrolled".into())
    );
    let old = show(&server, &hash('a'));
    assert_eq!((&old["state"], &old["serial"], &old["labels"]), (&"banned".into(), &"".into(), &serde_json::json!({})));
    let itself = server.cli_output(&["device", "replace", "SN-2", &hash('b')]);
    assert!(String::from_utf8_lossy(&itself.stderr).contains("are one device"));
}

#[test]
fn the_fleet_as_a_manifest_makes_the_same_fleet_elsewhere() {
    let (server, other) = (fleet(), Server::start(&ServerOptions::default()));
    let manifest = server.cli(&["device", "export"]);
    assert!(manifest.starts_with("ek_sha256,serial,label:site\n"), "{manifest}");
    other.import_devices(&manifest);
    assert_eq!(other.cli(&["device", "export"]), manifest);
    assert_eq!(server.cli(&["device", "export", "-label", "site=berlin"]).lines().count(), 3);
}

#[test]
fn a_list_is_a_table_at_a_terminal_and_spires_lines_in_a_pipe() {
    let server = fleet();
    assert!(server.cli(&["device", "list"]).contains("EK SHA-256"));
    // script(1) gives the command a terminal.
    let command =
        format!("{} device list -socketPath {}", binary("ironroot-server").display(), server.socket().display());
    let output = Command::new("script").args(["-qec", &command, "/dev/null"]).output().expect("script, of util-linux");
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("SERIAL  STATE     HASH          LAST ATTESTED  LABELS"), "{text}");
    assert!(
        lines.iter().any(|line| line.starts_with("SN-1    enrolled  aaaaaaaaaaaa  never          site=berlin")),
        "{text}"
    );
}
