//! What one make has left on disk, the other takes over: an agent's data directory both ways, entries, a database.

use std::path::Path;
use std::process::{Command, Output};

use ironroot_lab::deployment::{DEADLINE, TRUST_DOMAIN, binary, expect_within};
use ironroot_lab::spire::{SpireServer, Times};
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "24h", agent: "1h", x509_svid: "1h" };
/// An agent's own SVID that is renewed while we look.
const SHORT: Times = Times { agent: "10s", ..TIMES };

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn spires_agent_takes_over_the_directory_of_ours() {
    take_over(Maker::Ironroot, Maker::Spire);
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_agent_takes_over_the_directory_of_spires() {
    take_over(Maker::Spire, Maker::Ironroot);
}

/// An agent goes; another's make starts with its directory, without a token, is the same agent, and renews itself. Then it goes back.
fn take_over(first: Maker, second: Maker) {
    let runtime = Runtime::new().expect("runtime");
    for server in [Maker::Ironroot, Maker::Spire] {
        let server = AnyServer::start(server, SHORT);
        let token = server.token(Maker::Spire);
        server.create_own_entry(Maker::Spire, "/app", &[]);
        let (mut one, mut two) = (AnyAgent::new(first), AnyAgent::new(second));
        one.start(&server, Some(&token));
        one.expect_identity(&runtime);
        one.kill();
        copy_directory(&one.data_directory(), &two.data_directory());
        two.start(&server, None);
        two.expect_identity(&runtime);
        expect_renewal(&server, &two);
        two.kill();
        copy_directory(&two.data_directory(), &one.data_directory());
        one.start(&server, None);
        one.expect_identity(&runtime);
        expect_renewal(&server, &one);
        let agents = server.cli(Maker::Spire, &["agent", "count"]);
        assert_eq!(agents, "1 attested agent\n", "it is the same agent: none has attested again");
    }
}

/// Waits until the agent shows another certificate than now: what it took over is good for going on.
fn expect_renewal(server: &AnyServer, agent: &AnyAgent) {
    let serial = || {
        let text = server.cli(Maker::Spire, &["agent", "list", "-output", "json"]);
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json["agents"][0]["x509svid_serial_number"].as_str().expect("a serial").to_owned()
    };
    let before = serial();
    expect_within(DEADLINE, "it renews its certificate", || agent.log(), || serial() != before);
}

/// `agent-data.json` and `keys.json`, as an operator would copy them.
fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("directory");
    for name in ["agent-data.json", "keys.json"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn entries_move_from_spires_server_to_ours_as_they_are() {
    let (theirs, ours) = (AnyServer::start(Maker::Spire, TIMES), AnyServer::start(Maker::Ironroot, TIMES));
    let rich =
        ["-dns", "_srv._tcp.example.org", "-dns", "a.example.org", "-hint", "h", "-x509SVIDTTL", "77", "-downstream"];
    theirs.create_own_entry(Maker::Spire, "/rich", &rich);
    theirs.create_own_entry(Maker::Spire, "/plain", &["-entryExpiry", "4102444800", "-disableX509SVIDPrefetch"]);
    let shown = theirs.cli(Maker::Spire, &["entry", "show", "-output", "json"]);
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("entries.json");
    std::fs::write(&file, &shown).expect("written");
    let file = file.to_str().expect("text");
    ours.cli(Maker::Ironroot, &["entry", "create", "-data", file]);
    let moved = ours.cli(Maker::Spire, &["entry", "show", "-output", "json"]);
    assert_eq!(without_history(&moved), without_history(&shown));
}

/// The entries without when they were made and how often they were changed, in the order of their IDs.
fn without_history(shown: &str) -> Vec<serde_json::Value> {
    let mut json: serde_json::Value = serde_json::from_str(shown).expect("JSON");
    let entries = json["entries"].as_array_mut().expect("entries");
    for entry in entries.iter_mut().filter_map(serde_json::Value::as_object_mut) {
        entry.remove("created_at");
        entry.remove("revision_number");
    }
    entries.sort_by_key(|entry| entry["id"].to_string());
    std::mem::take(entries)
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn our_server_knows_the_database_of_spires_running_killed_or_stopped_and_leaves_it_alone() {
    let mut theirs = SpireServer::start(TIMES);
    let directory = tempfile::tempdir().expect("directory");
    let config = directory.path().join("server.conf");
    let text = format!(
        "server {{\n trust_domain = \"{TRUST_DOMAIN}\"\n data_dir = \"{0}\"\n socket_path = \"{0}/api.sock\"\n bind_port = 0\n}}\nplugins {{\n \
         DataStore \"sql\" {{ plugin_data {{ connection_string = \"{1}\" }} }}\n \
         KeyManager \"pkcs11\" {{ plugin_data {{ module_path = \"/none\" token_label = \"t\" login = \"none\" }} }}\n}}\n",
        directory.path().display(),
        theirs.database().display()
    );
    std::fs::write(&config, text).expect("written");
    let ask = |verb: &str| {
        let output = Command::new(binary("ironroot-server")).arg(verb).arg("-config").arg(&config).output();
        let Output { status, stderr, .. } = output.expect("ironroot-server starts");
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert!(!status.success() && said.contains("this is a SPIRE database"), "{verb}: {said}");
    };
    let both_know = || ["validate", "run"].into_iter().for_each(ask);
    both_know();
    theirs.kill();
    both_know();
    theirs.restart();
    assert!(theirs.process().expect("runs").terminate(), "SPIRE's server ends well");
    both_know();
    theirs.restart();
}
