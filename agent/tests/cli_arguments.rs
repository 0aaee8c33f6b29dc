//! The command line itself: SPIRE's verbs, flags and exit codes, and help that teaches.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use clap::ArgAction;
use ironroot_agent::cli::Cli;
use ironroot_shell::command_line::Program;

fn accepted(line: &str) -> Result<(), String> {
    let arguments = std::iter::once("ironroot-agent").chain(line.split_whitespace()).map(OsString::from);
    Cli::parse_go(arguments).map(drop).map_err(|error| error.to_string())
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ironroot-agent")).args(arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn takes_spires_lines_with_one_dash_or_two() {
    for line in [
        "run -config c -expandEnv -serverAddress h -serverPort 1 -trustDomain td -dataDir d -socketPath s -joinToken t",
        "run --config=c --joinTokenFile=f --trustBundle b --trustBundleFormat spiffe --insecureBootstrap=false",
        "run -logFile f -logFormat json -logLevel debug -insecureBootstrap",
        "validate -config c",
        "healthcheck -socketPath s -shallow -verbose",
        "api fetch -socketPath s -write d",
        "api fetch x509 -silent -timeout 10s -write=d -output json",
        "api fetch -timeout 5",
        "api fetch jwt -audience a,b -spiffeID spiffe://td/w -socketPath s -timeout 1s -output json",
        "api fetch jwt -audience a -audience b -format json",
        "api validate jwt -audience a -svid x -socketPath s -timeout 1s -output json",
        "api watch -socketPath s",
    ] {
        assert_eq!(accepted(line), Ok(()), "{line}");
    }
    for (line, reason) in [
        ("api fetch wit", "unrecognized subcommand"),
        ("api fetch x509 -timeout soon", "not a duration"),
        ("api fetch x509 -output yaml", "use pretty or json"),
        ("run -joinTokn x", "a similar argument exists"),
    ] {
        let error = accepted(line).expect_err(line);
        assert!(error.contains(reason), "{line}: {error}");
    }
}

#[test]
fn every_command_teaches_by_an_example_and_explains_every_flag() {
    fn visit(mut command: clap::Command, path: &str) {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Example"), "{path}: no example\n{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{path}: too wide\n{help}");
        for argument in
            command.get_arguments().filter(|a| !matches!(a.get_action(), ArgAction::Help | ArgAction::Version))
        {
            assert!(argument.get_help().is_some(), "{path}: {} is not explained", argument.get_id());
        }
        for subcommand in command.get_subcommands() {
            assert!(subcommand.get_about().is_some(), "{path}: {} is not explained", subcommand.get_name());
            visit(subcommand.clone(), &format!("{path} {}", subcommand.get_name()));
        }
    }
    let mut command = Cli::description().term_width(100);
    command.build();
    visit(command, "ironroot-agent");
}

#[test]
fn exit_codes_are_spires_and_a_wrong_configuration_is_told_line_by_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("agent.conf");
    std::fs::write(&file, "agent {\n  server_port = 99999\n  colour = \"red\"\n}\n").expect("written");
    let file = file.to_str().expect("text");
    for verb in ["run", "validate"] {
        let output = run(&[verb, "-config", file]);
        assert_eq!(output.status.code(), Some(1), "{verb}");
        for mistake in
            [":1: agent.trust_domain: missing", ":2: agent.server_port: \"99999\"", ":3: agent.colour: unknown key"]
        {
            assert!(text(&output.stderr).contains(mistake), "{verb}: {}", text(&output.stderr));
        }
    }
    let flag = run(&["run", "-config", file, "-serverPort", "many"]);
    assert!(text(&flag.stderr).contains("command line, -serverPort: agent.server_port: \"many\""));
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/agent.conf");
    assert_eq!(run(&["validate", "-syntaxOnly", "-config", example]).status.code(), Some(0));
    for (arguments, code) in [(&["api"][..], 1), (&["nonsense"], 127), (&[], 127), (&["-help"], 0), (&["-version"], 0)]
    {
        assert_eq!(run(arguments).status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn what_the_file_names_is_read_on_its_own_machine_only_and_a_host_by_its_form() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("agent.conf");
    let file = file.to_str().expect("text");
    let said = |lines: &str, flags: &[&str]| {
        let agent = "trust_domain = \"td\"\n server_address = \"s\"\n server_port = 1\n insecure_bootstrap = true";
        let plugins = "NodeAttestor \"tpm2\" { plugin_data { } }\n KeyManager \"tpm\" { plugin_data { } }";
        let more = if lines.contains("join_token") {
            "NodeAttestor \"join_token\" { plugin_data { } }\n KeyManager \"memory\" { plugin_data { } }"
        } else {
            plugins
        };
        let (inside, outside) = if lines.starts_with("health") { ("", lines) } else { (lines, "") };
        let workloads = "WorkloadAttestor \"unix\" { plugin_data { } }";
        let plugins = format!("plugins {{\n {more}\n {workloads}\n}}");
        std::fs::write(file, format!("agent {{\n {agent}\n {inside}\n}}\n{plugins}\n{outside}\n")).expect("written");
        let output = run(&[&["validate", "-config", file], flags].concat());
        (output.status.code(), text(&output.stderr).to_owned())
    };
    for (lines, key) in [
        ("join_token_file = \"/no/such/token\"", "join_token_file"),
        (
            "offline_cache {\n policy_key_path = \"/no/such/key\"\n policy_directory = \"/no/such\"\n }",
            "policy_key_path",
        ),
    ] {
        let (code, told) = said(lines, &["-syntaxOnly"]);
        assert_eq!(code, Some(0), "{lines}: {told}");
        let (code, told) = said(lines, &[]);
        assert!(code == Some(1) && told.contains(key), "{lines}: {told}");
    }
    let host = |host: &str| format!("health_checks {{\n listener_enabled = true\n bind_address = \"{host}\"\n}}");
    let (code, told) = said(&host("http://localhost"), &["-syntaxOnly"]);
    assert!(
        code == Some(1) && told.contains("health_checks.bind_address: \"http://localhost\": neither an IP"),
        "{told}"
    );
    assert_eq!(said(&host("no-such-host.invalid"), &["-syntaxOnly"]).0, Some(0));
}

/// The file's reader judges what its flag stands for: done, told in a warning, or refused by the flag's name.
#[test]
fn no_flag_of_spires_is_passed_over_in_silence() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/agent.conf");
    let validate = |flags: &[&str]| {
        let output = run(&[&["validate", "-syntaxOnly", "-config", example], flags].concat());
        (output.status.code(), text(&output.stderr).to_owned())
    };
    for done in
        [&["-disableSDSAPI"][..], &["-disableWorkloadAPI"], &["-rebootstrapMode", "auto", "-rebootstrapDelay", "10m"]]
    {
        assert_eq!(validate(done), (Some(0), String::new()), "{done:?}");
    }
    let (code, said) = validate(&["-logSourceLocation"]);
    assert_eq!(code, Some(0));
    let told = "command line, -logSourceLocation: agent.log_source_location: has no meaning in ironroot-agent";
    assert!(said.contains(told), "{said}");
    let (code, said) = validate(&["-trustBundleUrl", "https://server/bundle"]);
    assert_eq!(code, Some(1), "the file has trust_bundle_path");
    let told = "command line, -trustBundleUrl: agent.trust_bundle_url: give either trust_bundle_path or trust_bundle_url, not both";
    assert!(said.contains(told), "{said}");
}

#[test]
fn what_a_jwt_svid_is_for_must_be_said_in_spires_words() {
    for (arguments, wrong) in [
        (&["api", "fetch", "jwt"][..], "audience must be specified"),
        (&["api", "validate", "jwt", "-svid", "x"], "audience must be specified"),
        (&["api", "validate", "jwt", "-audience", "x"], "svid must be specified"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output.stderr).contains(wrong), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn an_absent_agent_is_named_by_its_socket() {
    for arguments in [
        &["api", "fetch", "-socketPath", "/nonexistent/s"][..],
        &["api", "fetch", "x509", "-socketPath=/nonexistent/s", "-silent"],
        &["healthcheck", "-socketPath", "/nonexistent/s"],
        &["healthcheck", "-shallow", "-socketPath", "/nonexistent/s"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let error = text(&output.stderr);
        let unhealthy =
            if arguments[0] == "healthcheck" { "agent is unhealthy: unable to determine health: " } else { "" };
        let wanted = format!("Error: {unhealthy}cannot connect to \"/nonexistent/s\": No such file");
        assert!(error.starts_with(&wanted), "{arguments:?}: {error}");
    }
    let with_variable = |value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ironroot-agent"));
        command.args(["api", "fetch"]).env("SPIFFE_ENDPOINT_SOCKET", value).output().expect("it runs")
    };
    assert!(text(&with_variable("unix:///nonexistent/env").stderr).contains("\"/nonexistent/env\""));
    assert!(
        text(&with_variable("tcp://127.0.0.1:1").stderr)
            .contains("SPIFFE_ENDPOINT_SOCKET is \"tcp://127.0.0.1:1\": give unix:/path")
    );
}

const ALICE: u32 = 60_001;

/// A directory that is Alice's, with a copy of the program that she may run.
fn at_alices() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("set");
    std::fs::copy(env!("CARGO_BIN_EXE_ironroot-agent"), directory.path().join("ironroot-agent")).expect("copied");
    chown(directory.path(), Some(ALICE), Some(ALICE)).expect("root gives files away");
    directory
}

fn run_as_alice(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(directory.join("ironroot-agent"));
    let output = command.args(arguments).uid(ALICE).gid(ALICE).current_dir(directory).output().expect("it runs");
    (output.status.code(), text(&output.stderr).to_owned())
}

#[test]
fn a_socket_that_is_somebody_elses_is_told_as_that_and_not_as_an_agent_that_does_not_run() {
    let directory = at_alices();
    let socket = directory.path().join("api.sock");
    let _listens = UnixListener::bind(&socket).expect("bound");
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660)).expect("set");
    let (code, told) = run_as_alice(directory.path(), &["api", "fetch", "-socketPath", socket.to_str().expect("text")]);
    let whose = format!("the socket is user 0's and group 0's (mode 0660), and this is user {ALICE}");
    assert!(code == Some(1) && told.contains(&whose) && !told.contains("is it running"), "{told}");
}

#[test]
fn who_may_not_give_files_away_is_told_so_at_once() {
    let directory = at_alices();
    for (flag, whose) in [("-owner", "0"), ("-group", "root")] {
        let place = directory.path().join(flag);
        let flags = ["deliver", "-directory", place.to_str().expect("text"), "-once", "-timeout", "1ms", flag, whose];
        let (code, told) = run_as_alice(directory.path(), &flags);
        assert!(code == Some(1) && told.contains("only root may to any user"), "{flag}: {code:?} {told}");
    }
}

#[test]
fn a_question_about_a_process_goes_to_the_admin_socket_and_its_flag_is_named() {
    let output = run(&["api", "explain", "-pid", "1", "-socketPath", "/nonexistent/admin.sock"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("name that with -adminSocketPath"), "{}", text(&output.stderr));
}
