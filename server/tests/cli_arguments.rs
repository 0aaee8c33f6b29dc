//! The command line itself: SPIRE's verbs, flags and exit codes, and help that teaches.

use std::ffi::OsString;
use std::process::{Command, Output};

use clap::ArgAction;
use ironroot_server::cli::Cli;
use ironroot_shell::command_line::Program;

fn accepted(line: &str) -> Result<(), String> {
    let arguments = std::iter::once("ironroot-server").chain(line.split_whitespace()).map(OsString::from);
    Cli::parse_go(arguments).map(drop).map_err(|error| error.to_string())
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ironroot-server")).args(arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn takes_spires_lines_with_one_dash_or_two() {
    for line in [
        "run -config c -expandEnv -bindAddress 1.2.3.4 -serverPort 1 -dataDir d -logFile f -logFormat json -logLevel debug -trustDomain td -socketPath s",
        "validate -config c -expandEnv=true",
        "healthcheck -shallow -verbose -socketPath s",
        "entry create -socketPath s -parentID spiffe://td/p -spiffeID spiffe://td/w -selector unix:uid:1 -selector unix:gid:1",
        "entry create --parentID=spiffe://td/p --spiffeID=spiffe://td/w --selector=unix:uid:1 --output=json",
        "entry create -entryID e -spiffeID spiffe://td/w -selector a:b -node -x509SVIDTTL 1 -jwtSVIDTTL 1 -admin -downstream=false -storeSVID",
        "entry create -federatesWith spiffe://a -federatesWith spiffe://b -entryExpiry 1 -dns a -dns b -hint h -disableX509SVIDPrefetch -jwtSVIDIncludeJTI=false",
        "entry create -data -",
        "entry create -parentID spiffe://td/p -spiffeID spiffe://td/w -selector a:b -storeSVID true",
        "entry create -parentID spiffe://td/p -spiffeID spiffe://td/w -selector a:b -x509SVIDTTL 1h -jwtSVIDTTL 0x10",
        "token generate -ttl 24h",
        "jwt mint -spiffeID spiffe://td/w -audience a -audience b -ttl 1m -write f",
        "jwt mint -spiffeID spiffe://td/w -audience a -output json -socketPath s",
        "bundle show -format PEM -output JSON",
        "entry update -entryID e -parentID spiffe://td/p -spiffeID spiffe://td/w -selector a:b",
        "entry update -data f",
        "entry delete -entryID e",
        "entry delete -file -",
        "entry show -entryID e",
        "entry show -downstream -hint h -matchSelectorsOn exact -matchFederatesWithOn any -federatesWith td",
        "entry count -parentID spiffe://td/p -selector a:b -matchSelectorsOn subset",
        "agent list -selector a:b -matchSelectorsOn superset -attestationType tpm2 -canReattest true -banned x -expiresBefore t -output json",
        "agent count -banned=true",
        "agent show -spiffeID spiffe://td/spire/agent/x",
        "agent evict -spiffeID spiffe://td/spire/agent/x",
        "agent ban -spiffeID spiffe://td/spire/agent/x",
        "agent purge -expiredFor 720h -dryRun",
        "token generate -ttl 600 -spiffeID spiffe://td/x",
        "bundle show -format spiffe",
        "x509 mint -spiffeID spiffe://td/x -ttl 1h -dns a.b -dns c.d -write . -output pretty -socketPath s",
        "logger get -output json",
        "logger set -level DEBUG",
        "logger set -level warning",
        "logger reset -instance a",
        "debug getinfo -output json",
        "backup f -sealTo k -output json -config c -expandEnv",
        "restore f -key k -dryRun -output json -config c",
        "restore f -dry-run",
        "log verify -config c -output json",
        "log head",
        "log show -last 5",
        "log show -operators",
        "restore accept -config c -output json",
        "device import f",
        "device import -",
        "device import -allowDuplicateSerials f",
        "device ban SN-1 5f1c2a",
        "device approve 5f1c2a -serial SN-1 -label site=berlin",
        "device list -state pending -label a=b -label c=d",
    ] {
        assert_eq!(accepted(line), Ok(()), "{line}");
    }
}

#[test]
fn of_a_flag_that_is_given_twice_the_last_counts() {
    for line in [
        "entry create -hint a -hint b -spiffeID spiffe://td/w -parentID spiffe://td/p -selector a:b",
        "entry show -downstream -downstream -output json -output pretty",
        "healthcheck -socketPath a -socketPath b",
        "jwt mint -spiffeID spiffe://td/w -audience -a -ttl 5m -ttl 6m",
    ] {
        assert_eq!(accepted(line), Ok(()), "{line}");
    }
    let said = run(&["healthcheck", "-socketPath", "/first", "-socketPath", "/last"]);
    assert!(text(&said.stderr).contains("/last") && !text(&said.stderr).contains("/first"), "{said:?}");
}

#[test]
fn a_number_that_is_none_is_told_in_plain_words() {
    for (line, wanted) in [
        (&["log", "show", "-last", "x"][..], "not a whole number"),
        (&["log", "show", "-last", ""][..], "not a whole number"),
        (&["console", "-port", "99999"][..], "99999"),
        (&["jwt", "mint", "-ttl", "-5m"][..], "a time cannot be negative"),
        (&["token", "generate", "-ttl", "99999999999"][..], "more than 2147483647 seconds"),
        (&["device", "label", "SN-1", "-set", "=x"][..], "label name \"\" must be"),
        (&["device", "set", "SN-1", "-serial", "a\u{1b}"][..], "no control characters"),
    ] {
        let told = run(line);
        assert_eq!(told.status.code(), Some(1), "{line:?}");
        assert!(text(&told.stderr).contains(wanted), "{line:?}: {}", text(&told.stderr));
        assert!(!text(&told.stderr).contains("in string"), "{line:?}: {}", text(&told.stderr));
    }
}

#[test]
fn says_what_is_wrong_with_a_line() {
    for (line, reason) in [
        ("entry create -spiffeID td/w", "scheme is not \"spiffe://\""),
        ("entry create -selector uid", "is not of the form type:value"),
        ("entry create -x509SVIDTTL -1", "a time cannot be negative"),
        ("entry create -x509SVIDTTL soon", "seconds, or a duration such as 1h"),
        ("entry create -spifeID x", "a similar argument exists: '--spiffeID'"),
        ("entry show -output yaml", "use pretty or json"),
        ("entry delete", "--entryID"),
        ("agent evict", "--spiffeID"),
        ("agent purge -expiredFor soon", "not a duration"),
        ("token generate -ttl 0", "must be at least one second"),
        ("bundle show -format der", "use pem or spiffe"),
        ("device show", "<DEVICE>..."),
        ("device list -state new", "use pending, enrolled or banned"),
        ("frobnicate", "unrecognized subcommand"),
    ] {
        let error = accepted(line).expect_err(line);
        assert!(error.contains(reason), "{line}: {error}");
    }
}

#[test]
fn who_asks_for_json_is_told_of_wrong_flags_in_json() {
    for (line, wanted) in [
        ("entry show -output json -nothing", "unexpected argument '--nothing' found"),
        ("entry create -spiffeID td/w -output=JSON", "scheme is not \"spiffe://\""),
        ("token generate -output json -ttl x1", "seconds, or a duration such as 1h"),
        ("device show -output json", "required arguments were not provided: <DEVICE>..."),
        ("-output json frobnicate", "unexpected argument '--output' found"),
    ] {
        let told = run(&line.split(' ').collect::<Vec<_>>());
        let json: serde_json::Value =
            serde_json::from_slice(&told.stderr).unwrap_or_else(|_| panic!("{line}: {told:?}"));
        let error = json["error"].as_str().expect("text");
        assert!(error.contains(wanted) && !error.contains("Usage") && !error.contains('\n'), "{line}: {error}");
        assert_eq!((told.status.code(), told.stdout.len()), (Some(1), 0), "{line}");
    }
    let pretty = run(&["entry", "show", "-output", "pretty", "-nothing"]);
    assert!(text(&pretty.stderr).starts_with("error: unexpected argument"), "{pretty:?}");
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
    visit(command, "ironroot-server");
}

#[test]
fn exit_codes_are_spires_and_a_wrong_configuration_is_told_line_by_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("server.conf");
    std::fs::write(&file, "server {\n  trust_domain = \"$TD\"\n  colour = \"red\"\n}\n").expect("written");
    let file = file.to_str().expect("text");
    for verb in ["run", "validate"] {
        let output = run(&[verb, "-config", file]);
        assert_eq!(output.status.code(), Some(1), "{verb}");
        assert_eq!(text(&output.stdout), "");
        for mistake in
            [":1: server.data_dir: missing", ":2: server.trust_domain: \"$TD\"", ":3: server.colour: unknown key"]
        {
            assert!(text(&output.stderr).contains(mistake), "{verb}: {}", text(&output.stderr));
        }
    }
    let unset = run(&["validate", "-expandEnv", "-config", file]);
    assert_eq!(unset.status.code(), Some(1));
    assert!(text(&unset.stderr).contains(":2: environment variable TD is not set"), "{}", text(&unset.stderr));
    assert_eq!(run(&["validate", "-config", "/nonexistent"]).status.code(), Some(1));
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/server.conf");
    let valid = run(&["validate", "-syntaxOnly", "-config", example]);
    assert_eq!(
        (valid.status.code(), text(&valid.stdout)),
        (Some(0), format!("{example}: SPIRE server configuration file is valid.\n").as_str())
    );
    let elsewhere = run(&["validate", "-config", example]);
    assert_eq!(elsewhere.status.code(), Some(1), "this machine does not have what the example names");
    assert!(text(&elsewhere.stderr).contains("pin_file: cannot read PIN file"), "{}", text(&elsewhere.stderr));
    assert_eq!(run(&["entry"]).status.code(), Some(1));
    assert_eq!(run(&["nonsense"]).status.code(), Some(127));
    assert_eq!(run(&[]).status.code(), Some(127));
    assert_eq!(run(&["-help"]).status.code(), Some(0));
    for version in ["-version", "--version"] {
        let output = run(&[version]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), ""));
        assert_eq!(text(&output.stderr), concat!(env!("CARGO_PKG_VERSION"), "\n"), "where SPIRE's is, and as it is");
    }
}

#[test]
fn a_credential_that_only_the_service_has_is_not_missed_outside_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("server.conf");
    let data = dir.path().display();
    let conf = format!(
        "server {{\n trust_domain = \"example.org\"\n data_dir = \"{data}\"\n socket_path = \"{data}/api.sock\"\n}}\n\
         plugins {{ KeyManager \"pkcs11\" {{ plugin_data {{\n module_path = \"/usr/lib/softhsm/libsofthsm2.so\"\n\
         token_label = \"ironroot\"\n pin_credential = \"hsm.pin\"\n}} }} }}\n"
    );
    std::fs::write(&file, conf).expect("written");
    let mut validate = Command::new(env!("CARGO_BIN_EXE_ironroot-server"));
    validate.args(["validate", "-config"]).arg(&file);
    let outside = validate.env_remove("CREDENTIALS_DIRECTORY").output().expect("it runs");
    let said = text(&outside.stderr);
    assert_eq!(outside.status.code(), Some(0), "{said}");
    assert!(said.contains("server.conf:9: ") && said.contains("\"hsm.pin\" is there for the service alone"), "{said}");
    let without = validate.env("CREDENTIALS_DIRECTORY", dir.path()).output().expect("it runs");
    assert_eq!(without.status.code(), Some(1), "in the service it is missed: {}", text(&without.stderr));
}

#[test]
fn validate_takes_every_flag_of_run_and_none_is_passed_over_in_silence() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/server.conf");
    let validate = |flags: &[&str]| {
        let output = run(&[&["validate", "-syntaxOnly", "-config", example], flags].concat());
        (output.status.code(), text(&output.stderr).to_owned())
    };
    let (code, said) = validate(&["-logSourceLocation"]);
    assert_eq!(code, Some(0));
    let told = "command line, -logSourceLocation: server.log_source_location: has no meaning in ironroot-server";
    assert!(said.contains(told), "{said}");
    let all = "-bindAddress 127.0.0.1 -serverPort 1 -dataDir d -socketPath s -trustDomain td -logFile f -logFormat json -logLevel warn";
    assert_eq!(validate(&all.split(' ').collect::<Vec<_>>()), (Some(0), String::new()));
    let (code, said) = validate(&["-trustDomain", "A_B!"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("command line, -trustDomain: server.trust_domain"), "{said}");
}

#[test]
fn a_wrong_request_is_told_without_a_server() {
    for (arguments, reason) in [
        (&["entry", "create", "-spiffeID", "spiffe://td/a", "-node"][..], "at least one selector is required"),
        (
            &["entry", "create", "-spiffeID", "spiffe://td/a", "-selector", "a:b"],
            "a parent ID is required if the node flag is not set",
        ),
        (&["entry", "create", "-node", "-selector", "a:b"], "a parent ID is required"),
        (&["entry", "create", "-node", "-federatesWith", "x"], "node entries can not federate"),
        (
            &["entry", "show", "-entryID", "e", "-parentID", "spiffe://td/a"],
            "the -entryID flag can't be combined with others",
        ),
        (&["entry", "create", "-data", "/nonexistent"], "cannot read /nonexistent"),
        (&["device", "import", "/nonexistent"], "cannot read /nonexistent"),
        (&["agent", "list", "-instance", "a"], "-instance needs the environment variable"),
        (&["agent", "list", "-socketPath", "/nonexistent/s"], "cannot connect to \"/nonexistent/s\": No such file"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let error = text(&output.stderr);
        assert!(error.starts_with("Error: ") && error.contains(reason), "{arguments:?}: {error}");
    }
}

#[test]
fn a_second_entry_that_is_to_be_deleted_is_not_passed_over() {
    let output = run(&["entry", "delete", "-entryID", "a", "-entryID", "b", "-socketPath", "/nowhere"]);
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && said.contains("given 2 times") && said.contains("nothing was deleted"),
        "{said}"
    );
}
