//! Entries that name a program and nobody who runs it, from the command line to the workload.

use ironroot_lab::deployment::{AgentOptions, Device, Server, ServerOptions, TRUST_DOMAIN};

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
    for selectors in [&["unix:path:/usr/bin/app"][..], &["unix:sha256:00", "unix:path:/usr/bin/app"]] {
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
