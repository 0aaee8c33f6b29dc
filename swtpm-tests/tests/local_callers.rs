//! Local callers of a real agent: entries that name a program only, programs that are upgraded, and what the log says.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Process, Server, ServerOptions, TRUST_DOMAIN, as_uid, expect_within,
};

const USER: u32 = 61_001;

fn node_id() -> String {
    format!("spiffe://{TRUST_DOMAIN}/node")
}

/// A device that attested with a token.
fn device(server: &Server) -> (Device, AgentOptions) {
    let token = server.cli(&["token", "generate", "-ttl", "600", "-spiffeID", &node_id()]);
    let token = token.lines().find_map(|line| line.strip_prefix("Token: ")).expect("a token").trim().to_owned();
    let options = AgentOptions {
        join_token: Some(token),
        key_manager: "disk",
        discover_workload_path: true,
        ..AgentOptions::default()
    };
    (Device::without_tpm(), options)
}

#[test]
fn an_entry_that_names_a_program_and_nobody_who_runs_it_is_refused_whether_new_or_updated() {
    let server = Server::start(&ServerOptions::default());
    let spiffe_id = format!("spiffe://{TRUST_DOMAIN}/app");
    for selectors in
        [&["unix:path:/usr/bin/app"][..], &["unix:sha256:00", "unix:path:/usr/bin/app"], &["unix:fs_verity:sha256:00"]]
    {
        let node = node_id();
        let mut arguments = vec!["entry", "create", "-parentID", &node, "-spiffeID", &spiffe_id];
        selectors.iter().for_each(|selector| arguments.extend(["-selector", selector]));
        let output = server.cli_output(&arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("nobody who runs it") && said.contains("allow_executable_only = true"), "{said}");
    }
    let id = server.create_entry(&node_id(), "/app", &["unix:uid:61001", "unix:path:/usr/bin/app"], &[]);
    server.create_entry(&node_id(), "/unit", &["systemd:id:app.service", "unix:path:/usr/bin/app"], &[]);
    let node = node_id();
    let mut update = vec!["entry", "update", "-entryID", &id, "-parentID", &node, "-spiffeID", &spiffe_id];
    update.extend(["-selector", "unix:path:/usr/bin/app"]);
    let output = server.cli_output(&update);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let shown = server.cli(&["entry", "show", "-entryID", &id]);
    assert!(shown.contains("unix:uid:61001"), "{shown}");
}

#[test]
fn such_an_entry_of_another_server_matches_nobody_and_is_warned_of_once_unless_the_agent_is_told_to_allow_it() {
    let lenient = ServerOptions { server_lines: "allow_executable_only = true".to_owned(), ..ServerOptions::default() };
    let server = Server::start(&lenient);
    let (mut device, options) = device(&server);
    let _installed = device.command_as(USER, "ironroot-agent");
    let program = device.config_path().with_file_name("ironroot-agent").display().to_string();
    server.create_entry(&node_id(), "/user", &[&format!("unix:uid:{USER}")], &[]);
    server.create_entry(&node_id(), "/program", &[&format!("unix:path:{program}")], &[]);
    device.provision(&server, &options);
    device.start();
    device.expect_log("entry matches nobody");
    let user = format!("spiffe://{TRUST_DOMAIN}/user");
    assert_eq!(device.expect_identity(USER).ids, [user.as_str()]);
    // Two more looks at the server's entries.
    server.create_entry(&node_id(), "/other", &[&format!("unix:uid:{}", USER + 1)], &[]);
    device.expect_identity(USER + 1);
    assert_eq!(device.log().matches("entry matches nobody").count(), 1, "{}", device.log());

    let allowing = AgentOptions { attestor_lines: "allow_executable_only = true".to_owned(), ..options };
    device.provision(&server, &allowing);
    device.start();
    let mut ids = device.expect_identity(USER).ids;
    ids.sort();
    assert_eq!(ids, [format!("spiffe://{TRUST_DOMAIN}/program"), user]);
}

#[test]
fn a_workload_whose_program_is_upgraded_under_it_is_renewed_and_the_log_says_what_to_do() {
    let server = Server::start(&ServerOptions::default());
    let (mut device, options) = device(&server);
    let _installed = device.command_as(USER, "ironroot-agent");
    let installed = device.config_path().with_file_name("ironroot-agent");
    let program = device.config_path().with_file_name("app");
    fs::copy(&installed, &program).expect("copies");
    let (uid, path) = (format!("unix:uid:{USER}"), format!("unix:path:{}", program.display()));
    server.create_entry(&node_id(), "/app", &[&uid, &path], &["-x509SVIDTTL", "6"]);
    device.provision(&server, &options);
    device.start();
    device.expect_log("SVID rotated");

    let setpriv = [&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups"].map(str::to_owned);
    let watch = [program.to_str().expect("UTF-8"), "api", "watch", "-socketPath"].map(str::to_owned);
    let socket = device.socket().to_str().expect("UTF-8").to_owned();
    let arguments: Vec<String> = setpriv.into_iter().chain(watch).chain([socket]).collect();
    let log = device.config_path().with_file_name("watch.log");
    let workload = Process::start(Path::new("setpriv"), &arguments, &[], &log);
    let updates = || workload.log().matches(&format!("spiffe://{TRUST_DOMAIN}/app")).count();
    let both = || workload.log() + &device.log();
    expect_within(DEADLINE, "a first SVID", both, || updates() == 1);

    let new = program.with_extension("new");
    fs::copy(&installed, &new).expect("copies");
    fs::rename(&new, &program).expect("installs");
    expect_within(DEADLINE, "two renewals after the upgrade", both, || updates() == 3);
    assert!(device.log().contains("the executable was replaced on disk"), "{}", device.log());
}

#[test]
fn strangers_on_a_connection_are_one_line_with_both_pids_and_forgeable_executables_are_one_at_the_start() {
    let server = Server::start(&ServerOptions::default());
    let (mut device, options) = device(&server);
    server.create_entry(&node_id(), "/user", &[&format!("unix:uid:{USER}")], &[]);
    device.provision(&server, &options);
    device.start();
    device.expect_identity(USER);

    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/tests/callers/fork.c");
    let program = device.config_path().with_file_name("fork");
    let compiled = Command::new("cc").arg("-o").arg(&program).arg(source).status();
    assert!(compiled.expect("cc (package build-essential) runs").success());
    let mut parents = Vec::new();
    for _ in 0..10 {
        let mut command = as_uid(USER, &program);
        command.arg(device.socket()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut caller = command.spawn().expect("starts");
        let mut said = BufReader::new(caller.stdout.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("says so");
        assert_eq!(line, "connected\n");
        caller.stdin.take().expect("piped").write_all(b"\n").expect("goes on");
        line.clear();
        said.read_to_string(&mut line).expect("says what came");
        assert_eq!(line, "ended\n");
        parents.push(caller.id());
        caller.wait().expect("ends");
    }
    let log = device.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(" wrote")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    let expected = format!("pid {} connected, pid ", parents[0]);
    assert!(lines[0].contains(&expected) && lines[0].contains(&format!("(uid {USER}) wrote")), "{}", lines[0]);
    let warned = log.matches("any local user can make a process look like any program").count();
    assert!(warned <= 1, "{log}");
}
