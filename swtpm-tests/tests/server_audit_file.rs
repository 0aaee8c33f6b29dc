//! The audit's lines in a file of their own, and a server that goes on only while they are written.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::manufacturer::Manufacturer;
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
fn a_server_whose_lines_must_be_kept_goes_on_only_with_a_file_of_that_name() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("audit.json");
    let server = server(&file, "audit_log_required = true");
    assert!(create(&server, "/app").status.success());
    std::fs::remove_file(&file).and_then(|()| std::fs::create_dir(&file)).expect("a directory in its place");
    assert!(!create(&server, "/refused").status.success());
    let said = server.cli_output(&["healthcheck"]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("audit_log_file") && said.contains("audit.json"), "{said}");
    std::fs::remove_dir(&file).expect("removed");
    let goes_on = || create(&server, "/later").status.success();
    expect_within(DEADLINE, "it goes on", || server.log(), goes_on);
    assert!(std::fs::read_to_string(&file).expect("made anew").contains("/later") || file.is_file());
}

/// What a collector of that form refuses to be without. Source: OCSF 1.4.0, API Activity.
const OCSF_REQUIRED: [&str; 10] = [
    "activity_id",
    "actor",
    "api",
    "category_uid",
    "class_uid",
    "metadata",
    "severity_id",
    "src_endpoint",
    "time",
    "type_uid",
];

#[test]
fn every_line_is_an_event_of_ocsf_by_the_filter_that_is_shipped() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("audit.json");
    let server = server(&file, "");
    assert!(create(&server, "/app").status.success());
    assert!(!create(&server, "/app").status.success(), "it is there already");
    server.import_devices(&format!("ek_sha256,serial\n{},SN-1\n", "a".repeat(64)));
    server.cli(&["device", "ban", "SN-1"]);
    let mut device = Device::manufacture(&Manufacturer::new("Toy TPM Works").expect("maker"));
    device.provision(&server, &AgentOptions::default());
    device.start();
    device.expect_log("is not enrolled");
    let remote = r#"{"type":"audit","time":"2026-11-26T10:00:00.5Z","status":"success","method":"BatchNewX509SVID","object":"x","caller":"spiffe://td/agent at [2001:db8::1]:40"}"#;
    let audit = format!("{}{remote}\n", std::fs::read_to_string(&file).expect("readable"));
    let filter = ironroot_lab::prometheus::monitoring().join("ocsf.jq");
    let mut jq =
        Command::new("jq").arg("-c").arg("-f").arg(filter).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let jq = jq.as_mut().expect("jq: scripts/setup --tests installs it");
    jq.stdin.take().expect("piped").write_all(audit.as_bytes()).expect("written");
    let mut text = String::new();
    jq.stdout.take().expect("piped").read_to_string(&mut text).expect("read");
    assert!(jq.wait().expect("ended").success(), "{audit}");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(events.len(), audit.lines().count(), "{audit}\n{text}");
    for event in &events {
        OCSF_REQUIRED.iter().for_each(|key| assert!(!event[key].is_null(), "{key} in {event}"));
        let type_uid =
            event["class_uid"].as_i64().expect("a number") * 100 + event["activity_id"].as_i64().expect("one");
        assert_eq!(event["type_uid"], type_uid, "{event}");
        assert!(event["time"].as_i64().is_some_and(|at| at > 1_700_000_000_000), "milliseconds: {event}");
    }
    let of = |method: &str| events.iter().rev().find(|event| event["api"]["operation"] == method).expect("an event");
    assert_eq!(of("BanDevice")["actor"]["user"]["uid"], nix::unistd::geteuid().to_string());
    assert_eq!(
        (&of("BatchCreateEntry")["status"], &of("BatchCreateEntry")["activity_id"]),
        (&"Failure".into(), &1.into())
    );
    assert_eq!(of("AttestAgent")["device"]["uid"], device.ek_sha256());
    assert_eq!(of("BatchNewX509SVID")["src_endpoint"], serde_json::json!({ "ip": "2001:db8::1", "port": 40 }));
    assert_eq!(of("BatchNewX509SVID")["actor"]["user"]["uid"], "spiffe://td/agent");
}

//= FLT-S20
#[test]
fn nothing_is_changed_while_lines_that_are_required_cannot_be_written_and_everything_once_they_can() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("audit.json");
    // A disk that is full.
    std::os::unix::fs::symlink("/dev/full", &file).expect("linked");
    let server_lines = format!("audit_log_file = \"{}\"\naudit_log_required = true", file.display());
    let mut server = Server::prepare(&ServerOptions { server_lines, ..ServerOptions::default() });
    server.spawn();
    let is_unhealthy = || {
        let said = server.cli_output(&["healthcheck"]);
        !said.status.success() && String::from_utf8_lossy(&said.stderr).contains("audit_log_file")
    };
    expect_within(DEADLINE, "it is not ready, and says why", || server.log(), is_unhealthy);
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
