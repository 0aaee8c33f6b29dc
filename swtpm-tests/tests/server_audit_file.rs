//! The audit's lines in a file of their own, and a server that goes on only while they are written.

use std::path::Path;

use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn server(file: &Path, more: &str) -> Server {
    let server_lines = format!("audit_log_file = \"{}\"\n{more}", file.display());
    Server::start(&ServerOptions { server_lines, ..ServerOptions::default() })
}

fn create(server: &Server, path: &str) -> std::process::Output {
    let (parent, id) = (format!("spiffe://{TRUST_DOMAIN}/node"), format!("spiffe://{TRUST_DOMAIN}{path}"));
    server.cli_output(&["entry", "create", "-parentID", &parent, "-spiffeID", &id, "-selector", "unix:uid:1"])
}

#[test]
fn every_change_has_its_line_of_json() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("audit.json");
    let server = server(&file, "");
    assert!(create(&server, "/app").status.success());
    server.import_devices(&format!("ek_sha256,serial\n{},SN-1\n", "a".repeat(64)));
    server.cli(&["device", "ban", "SN-1"]);
    let text = std::fs::read_to_string(&file).expect("readable");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let of =
        |method: &str| lines.iter().find(|line| line["method"] == method).unwrap_or_else(|| panic!("{method}: {text}"));
    let ban = of("BanDevice");
    assert_eq!((&ban["status"], &ban["object"]), (&"success".into(), &"a".repeat(64).into()), "{text}");
    assert_eq!(ban["caller_uid"], nix::unistd::geteuid().as_raw(), "{text}");
    assert!(of("BatchCreateEntry")["time"].as_str().is_some_and(|time| time.starts_with("20")), "{text}");
    assert_eq!(of("Start")["type"], "audit");
}

#[test]
fn nothing_is_changed_while_lines_that_are_required_cannot_be_written_and_everything_once_they_can() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("audit.json");
    // A disk that is full.
    std::os::unix::fs::symlink("/dev/full", &file).expect("linked");
    let mut server = server(&file, "audit_log_required = true");
    let refused = create(&server, "/app");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("audit_log_required"), "{said}");
    assert!(server.cli(&["entry", "show"]).contains("Found 0 entries"), "questions are answered");
    assert_eq!(server.cli(&["entry", "count"]).trim(), "0 registration entries");

    std::fs::remove_file(&file).expect("removed");
    let pid = server.process().expect("runs").pid();
    kill(Pid::from_raw(i32::try_from(pid).expect("a process number")), Signal::SIGHUP).expect("sent");
    let works = || create(&server, "/app").status.success();
    expect_within(DEADLINE, "changes are made again", String::new, works);
    assert!(std::fs::read_to_string(&file).expect("readable").contains("BatchCreateEntry"));
}

#[test]
fn a_server_that_does_not_require_them_goes_on_without() {
    let server = server(Path::new("/dev/full"), "");
    assert!(create(&server, "/app").status.success());
    assert!(server.log().contains("the audit's lines cannot be written"), "{}", server.log());
}
