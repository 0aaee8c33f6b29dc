//! `doctor` and `status`: what only this machine can say, before the daemons run and beside them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, as_uid, binary, expect_within, wait_for,
};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::small_disk::read_only;
use ironroot_lab::softhsm::{LABEL, SoftHsm};
use serde_json::Value;

const STRANGER: u32 = 60_003;

/// The server's doctor in the environment of its token.
fn doctor(server: &Server, more: &[&str]) -> Output {
    let (name, value) = server.token().environment();
    let mut command = Command::new(binary("ironroot-server"));
    command.args(["doctor", "-output", "json", "-config"]).arg(server.config_path()).args(more).env(name, value);
    command.output().expect("ironroot-server starts")
}

fn findings(output: &Output) -> Vec<Value> {
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()))
    });
    assert_eq!(answer["healthy"], output.status.success(), "{answer}");
    answer["findings"].as_array().expect("findings").clone()
}

fn about<'a>(findings: &'a [Value], what: &str) -> &'a Value {
    findings.iter().find(|finding| finding["about"] == what).unwrap_or_else(|| panic!("{what} in {findings:#?}"))
}

fn faults(findings: &[Value]) -> Vec<&Value> {
    findings.iter().filter(|finding| finding["verdict"] == "fault").collect()
}

#[test]
fn a_server_that_runs_has_no_fault_and_one_that_does_not_run_yet_neither() {
    let mut server = Server::start(&ServerOptions::default());
    let beside = findings(&doctor(&server, &[]));
    assert_eq!(faults(&beside), Vec::<&Value>::new());
    assert!(about(&beside, "server")["says"].as_str().expect("words").contains("is healthy"), "{beside:#?}");
    for what in ["token", "clock", "port of agents", "data store"] {
        assert_eq!(about(&beside, what)["verdict"], "good", "{beside:#?}");
    }
    assert_eq!(about(&findings(&doctor(&server, &["-noLogin"])), "token")["verdict"], "doubtful");
    server.process().expect("runs").terminate();
    server.kill();
    let before = findings(&doctor(&server, &[]));
    assert_eq!(faults(&before), Vec::<&Value>::new());
    assert!(about(&before, "port of agents")["says"].as_str().expect("words").contains("is free"), "{before:#?}");
    let database = server.directory().join("data/datastore.sqlite3");
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o644)).expect("set");
    let open = findings(&doctor(&server, &[]));
    assert_eq!(about(&open, "rights of the data store")["verdict"], "doubtful", "{open:#?}");
}

#[test]
fn a_wrong_pin_a_taken_port_and_a_token_that_is_gone_are_faults_with_the_next_command() {
    let mut server = Server::start(&ServerOptions { quirky_token: true, ..ServerOptions::default() });
    server.process().expect("runs").terminate();
    server.kill();
    let taken = std::net::TcpListener::bind(("127.0.0.1", server.port())).expect("the server's port");
    server.quirks().set(&["gone"]);
    let found = findings(&doctor(&server, &[]));
    let port = about(&found, "port of agents");
    assert!(port["verdict"] == "fault" && port["next"].as_str().expect("words").contains("ss -ltnp"), "{found:#?}");
    let token = about(&found, "token");
    assert!(token["verdict"] == "fault" && !token["next"].as_str().expect("words").is_empty(), "{found:#?}");
    drop(taken);
    server.quirks().set(&[]);
    assert_eq!(faults(&findings(&doctor(&server, &[]))), Vec::<&Value>::new());
}

#[test]
fn a_key_that_the_ca_has_written_down_and_the_token_has_not_is_a_fault_before_the_start() {
    let mut server = Server::start(&ServerOptions::default());
    server.process().expect("runs").terminate();
    server.kill();
    let whole = findings(&doctor(&server, &[]));
    let keys = about(&whole, "keys of the CA");
    assert!(keys["verdict"] == "good" && keys["says"].as_str().expect("words").starts_with("3 of"), "{whole:#?}");
    assert!(!findings(&doctor(&server, &["-noLogin"])).iter().any(|finding| finding["about"] == "keys of the CA"));
    // Another token of the same name, as after a device that was replaced: it takes the PIN, and has no key.
    let tokens = server.token().token_directory();
    std::fs::remove_dir_all(&tokens).and_then(|()| std::fs::create_dir(&tokens)).expect("lost");
    server.token().initialize_token(LABEL);
    let empty = findings(&doctor(&server, &[]));
    assert_eq!(about(&empty, "token")["verdict"], "good", "{empty:#?}");
    let lost = faults(&empty);
    let says = |finding: &Value| finding["says"].as_str().expect("words").to_owned();
    assert_eq!(lost.len(), 3, "root, CA and JWT key: {empty:#?}");
    assert!(lost.iter().all(|fault| says(fault).ends_with("it is not there")), "{empty:#?}");
    assert!(lost[0]["next"].as_str().expect("words").contains("previous = true"), "{empty:#?}");
}

#[test]
fn a_database_on_a_read_only_disk_is_named_before_the_start_and_at_it_and_nothing_is_lost() {
    let mut server = Server::start(&ServerOptions::default());
    server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/gateway"), "/kept", &["unix:uid:1"], &[]);
    server.process().expect("runs").terminate();
    server.kill();
    let data = server.directory().join("data");
    read_only(&data, || {
        let found = findings(&doctor(&server, &[]));
        let told = |key: &str, words: &str| {
            faults(&found).iter().any(|fault| fault[key].as_str().is_some_and(|told| told.contains(words)))
        };
        assert!(told("says", "Read-only file system") && told("says", "connection_string"), "{found:#?}");
        server.spawn();
        let ended = wait_for(DEADLINE, || server.process()?.exit_code());
        assert_eq!(ended, Some(1), "{}", server.log());
        assert!(server.log().contains("cannot open the data store"), "{}", server.log());
    });
    server.restart();
    assert!(server.cli(&["entry", "show"]).contains("/kept"));
}

#[test]
fn a_pin_is_not_sent_to_a_token_that_says_few_tries_are_left() {
    let mut server = Server::start(&ServerOptions::default());
    server.process().expect("runs").terminate();
    server.kill();
    let config = std::fs::read_to_string(server.config_path()).expect("readable");
    let pin_file = config.lines().find_map(|line| line.trim().strip_prefix("pin_file = ")).expect("a PIN file");
    let pin_file = pin_file.trim_matches('"').to_owned();
    let right = std::fs::read_to_string(&pin_file).expect("readable");
    std::fs::write(&pin_file, "00000000").expect("written");
    let wrong = findings(&doctor(&server, &[]));
    let token = about(&wrong, "token");
    assert!(token["says"].as_str().expect("words").contains("refused the PIN"), "{wrong:#?}");
    // SoftHSM raises CKF_USER_PIN_COUNT_LOW after one that is wrong: the right PIN is held back, too.
    std::fs::write(&pin_file, &right).expect("written");
    let held_back = findings(&doctor(&server, &[]));
    let says = about(&held_back, "token")["says"].as_str().expect("words").to_owned();
    assert!(says.contains("PIN not sent") || about(&held_back, "token")["verdict"] == "good", "{held_back:#?}");
    drop(SoftHsm::module_path());
}

#[test]
fn an_agents_doctor_finds_the_chip_the_server_and_the_clock() {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let mut server = Server::start(&ServerOptions::default());
    let mut device = Device::manufacture(&maker);
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    let agent_lines = format!("admin_socket_path = \"{}\"", device.admin_socket().display());
    device.provision(&server, &AgentOptions { agent_lines, ..AgentOptions::default() });
    let config = device.config_path().to_path_buf();
    let ask_with = |config: &Path| {
        let mut command = Command::new(binary("ironroot-agent"));
        command.args(["doctor", "-output", "json", "-config"]).arg(config);
        findings(&command.output().expect("ironroot-agent starts"))
    };
    let ask = || ask_with(&config);
    let good = ask();
    assert_eq!(faults(&good), Vec::<&Value>::new());
    for what in ["TPM", "server", "clock", "trust bundle", "name of the server"] {
        assert_eq!(about(&good, what)["verdict"], "good", "{good:#?}");
    }
    let wrong = config.with_file_name("wrong.conf");
    let text = std::fs::read_to_string(&config).expect("readable").replace(TRUST_DOMAIN, "other.example");
    let health = "health_checks {\n listener_enabled = true\n bind_address = \"no-such-host.invalid\"\n}\n";
    std::fs::write(&wrong, text + health).expect("written");
    let found = ask_with(&wrong);
    let next = about(&found, "server")["next"].as_str().expect("words");
    assert!(next.starts_with(&format!("trust_domain = \"{TRUST_DOMAIN}\"")), "{found:#?}");
    assert_eq!(about(&found, "port of health")["verdict"], "fault", "{found:#?}");
    // A place that cannot be used keeps nobody from looking at the rest.
    let text = std::fs::read_to_string(&config).expect("readable");
    let log = "agent {\n log_file = \"/no/such/directory/log\"\n";
    std::fs::write(&wrong, text.replacen("agent {\n", log, 1)).expect("written");
    let found = ask_with(&wrong);
    assert!(about(&found, "configuration")["says"].as_str().expect("words").contains("log_file"), "{found:#?}");
    assert_eq!((faults(&found).len(), &about(&found, "TPM")["verdict"]), (1, &"good".into()), "{found:#?}");
    device.start();
    device.expect_log("identities sealed");
    assert_eq!(about(&ask(), "agent")["verdict"], "good");
    let status = || {
        let mut command = Command::new(binary("ironroot-agent"));
        let output = command.args(["status", "-socketPath"]).arg(device.admin_socket()).output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let alone = status();
    assert!(alone.contains("Kept on disk  : identities, sealed to the chip"), "{alone}");
    assert!(alone.contains("Serves        : 0 streams on 0 connections of 0 users"), "{alone}");
    server.cli(&["device", "ban", device.ek_sha256()]);
    device.expect_log("this agent is banned");
    // It is told once all is wiped.
    expect_within(DEADLINE, "its doctor knows", || device.log(), || about(&ask(), "agent")["verdict"] == "fault");
    let banned = ask();
    let told = status();
    assert!(told.contains("Kept on disk  : nothing: it is wiped"), "{told}");
    let fault = about(&banned, "agent");
    assert!(fault["verdict"] == "fault" && fault["says"].as_str().expect("words").contains("banned"), "{banned:#?}");
    device.kill_agent();
    server.kill();
    device.start();
    expect_within(
        DEADLINE,
        "its doctor says what fails",
        || device.log(),
        || {
            let says = about(&ask(), "agent")["says"].as_str().unwrap_or_default().to_owned();
            says.starts_with("it runs, and has nothing to serve: cannot reach the server")
        },
    );
    assert_eq!(about(&ask(), "TPM")["verdict"], "doubtful", "the agent has the software chip");
    device.kill_agent();
    let alone = ask();
    let fault = about(&alone, "server");
    assert!(fault["verdict"] == "fault" && fault["next"].as_str().expect("words").contains("firewall"), "{alone:#?}");
}

#[test]
fn without_a_configuration_and_as_another_user_both_doctors_say_what_to_do() {
    for name in ["ironroot-server", "ironroot-agent"] {
        let directory = tempfile::tempdir().expect("directory");
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("mode set");
        let here = directory.path().join(name);
        std::fs::copy(binary(name), &here).expect("copied");
        let output = as_uid(STRANGER, &here).arg("doctor").current_dir(directory.path()).output().expect("starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let packaged = format!("nor /etc/ironroot/{}.conf: name the file with -config", &name[9..]);
        assert!(said.contains("FAULT") && said.contains(&packaged), "{said}");
    }
}

#[test]
fn the_servers_status_is_one_screen_and_says_what_is_wrong() {
    let server = Server::start(&ServerOptions { quirky_token: true, ..ServerOptions::default() });
    server.import_devices(&format!("ek_sha256,serial\n{},SN-1\n", "a".repeat(64)));
    let text = server.cli(&["status"]);
    for line in [
        "Health        : able to do its work",
        "CA            : ",
        "Devices       : 1 enrolled, 0 pending",
        "Entries       : 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(text.lines().count() <= 24, "one screen: {text}");
    let json: Value = serde_json::from_str(&server.cli(&["status", "-output", "json"])).expect("JSON");
    assert_eq!((&json["healthy"], &json["devices"]["enrolled"]), (&true.into(), &1.into()), "{json}");
    server.quirks().set(&["gone"]);
    let told = || {
        let output = server.cli_output(&["status"]);
        !output.status.success() && String::from_utf8_lossy(&output.stdout).contains("TROUBLE       : token: ")
    };
    expect_within(ironroot_lab::deployment::DEADLINE, "the token's trouble is told", || server.log(), told);
}
