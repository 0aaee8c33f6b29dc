//! A live server of SPIRE's is taken over by ours: same address, same port, agents that notice nothing. And the way back.

use std::path::Path;
use std::process::{Command, Output};

use ironroot_api::certificate::Certificate;
use ironroot_lab::deployment::{DEADLINE, Keys, Server, ServerOptions, TRUST_DOMAIN, binary, expect_within, wait_for};
use ironroot_lab::devid_pki::DevIdPki;
use ironroot_lab::spire::{SpireServer, Times};
use ironroot_lab::workload_client::{fetch_jwt, validate_jwt};
use ironroot_postgres_cluster::Cluster;
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

/// SVIDs live for seconds, so that they are renewed while we look; the CA does not rotate by itself.
const TIMES: Times = Times { ca: "24h", agent: "30s", x509_svid: "10s" };

fn options(keys: Keys) -> ServerOptions {
    ServerOptions { ca_ttl: "24h", agent_ttl: "30s", x509_svid_ttl: "10s", keys, ..ServerOptions::default() }
}

/// `ironroot-server import spire` into what the configuration of `ours` names.
fn import(theirs: &SpireServer, ours: &Server, more: &[&str]) -> Output {
    import_from(&theirs.database().display().to_string(), theirs, ours, more)
}

fn import_from(datastore: &str, theirs: &SpireServer, ours: &Server, more: &[&str]) -> Output {
    let mut command = Command::new(binary("ironroot-server"));
    let (name, value) = ours.token().environment();
    command.args(["import", "spire", "-datastore", datastore, "-keys"]).arg(theirs.key_file());
    command.arg("-config").arg(ours.config_path()).args(more).env(name, value);
    command.output().expect("ironroot-server starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// The leaf that an agent serves now, and its authority's key ID.
fn served(agent: &AnyAgent, runtime: &Runtime) -> Option<(String, Vec<u8>)> {
    let svid = agent.fetch(runtime).ok()?.svids.pop()?;
    let leaf = Certificate::parse_concatenated(&svid.x509_svid).ok()?.into_iter().next()?;
    Some((leaf.serial_decimal(), leaf.authority_key_id()?))
}

fn token(agent: &AnyAgent, runtime: &Runtime) -> String {
    let fetch = || runtime.block_on(fetch_jwt(&agent.socket(), &["audience"], "")).ok()?.into_iter().next();
    wait_for(DEADLINE, fetch).unwrap_or_else(|| panic!("no JWT-SVID\n{}", agent.log())).svid
}

fn validate(agent: &AnyAgent, token: &str, runtime: &Runtime) {
    let valid = runtime.block_on(validate_jwt(&agent.socket(), "audience", token));
    valid.unwrap_or_else(|status| panic!("{status}\n{}", agent.log()));
}

/// The workloads of `agents` get new SVIDs, twice.
fn expect_rotations(agents: &[AnyAgent], runtime: &Runtime) {
    for agent in agents {
        for _ in 0..2 {
            let before = served(agent, runtime).map(|(serial, _)| serial);
            let is_new = || served(agent, runtime).is_some_and(|(serial, _)| Some(serial) != before);
            expect_within(DEADLINE, "workloads get new SVIDs", || agent.log(), is_new);
        }
    }
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn a_live_server_of_spires_is_taken_over_into_a_key_file_and_agents_notice_nothing() {
    take_over(Keys::File);
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn a_live_server_of_spires_is_taken_over_into_a_token_and_agents_notice_nothing() {
    take_over(Keys::FromFileToToken);
}

fn take_over(keys: Keys) {
    let runtime = Runtime::new().expect("runtime");
    let theirs = AnyServer::start(Maker::Spire, TIMES);
    let mut agents = [AnyAgent::new(Maker::Spire), AnyAgent::new(Maker::Ironroot)];
    theirs.create_own_entry(Maker::Spire, "/app", &["-hint", "first", "-dns", "app.example.org"]);
    for agent in &mut agents {
        let token = theirs.token(Maker::Spire);
        agent.start(&theirs, Some(&token));
        agent.expect_identity(&runtime);
    }
    let unused = theirs.token(Maker::Spire);
    let tokens = agents.each_ref().map(|agent| token(agent, &runtime));
    let entries = theirs.cli(Maker::Spire, &["entry", "show", "-output", "json"]);
    let issuers = agents.each_ref().map(|agent| served(agent, &runtime).expect("served").1);

    let AnyServer::Spires(mut theirs) = theirs else { panic!("it is SPIRE's") };
    let ours = Server::prepare_at(theirs.port(), &options(keys));
    // While it runs it may be looked at, and is not taken over.
    let looked = import(&theirs, &ours, &["-dryRun"]);
    assert!(looked.status.success() && said(&looked).contains("Would take over from SPIRE"), "{}", said(&looked));
    let refused = import(&theirs, &ours, &[]);
    assert!(!refused.status.success() && said(&refused).contains("stop spire-server first"), "{}", said(&refused));
    assert!(theirs.process().expect("runs").terminate(), "SPIRE's server ends well");
    let left = files_of(&theirs);

    let imported = import(&theirs, &ours, &["-output", "json"]);
    assert!(imported.status.success(), "{}", said(&imported));
    let report: serde_json::Value = serde_json::from_slice(&imported.stdout).expect("JSON");
    assert_eq!((&report["agents"], &report["keys"]["status"]), (&2.into(), &"imported".into()), "{report}");
    assert_eq!(files_of(&theirs), left, "SPIRE's files are only read");

    let mut ours = ours;
    ours.restart();
    let server = AnyServer::Ours(ours);
    assert_eq!(by_id(&server.cli(Maker::Spire, &["entry", "show", "-output", "json"])), by_id(&entries));
    expect_rotations(&agents, &runtime);
    for (agent, token) in agents.iter().zip(&tokens) {
        validate(agent, token, &runtime);
        // By another audience it is another token, and signed now.
        let fresh =
            || runtime.block_on(fetch_jwt(&agent.socket(), &["audience", "another"], "")).ok()?.into_iter().next();
        let fresh = wait_for(DEADLINE, fresh).unwrap_or_else(|| panic!("no JWT-SVID\n{}", agent.log()));
        validate(agent, &fresh.svid, &runtime);
    }
    if keys == Keys::FromFileToToken {
        for (agent, before) in agents.iter().zip(&issuers) {
            let has_moved = || served(agent, &runtime).is_some_and(|(_, issuer)| issuer != *before);
            expect_within(DEADLINE * 3, "SVIDs are signed with keys of the token", || server.log(), has_moved);
        }
        expect_rotations(&agents, &runtime);
    }
    for agent in &agents {
        for sign in ["needs to re-attest", "certificate signed by unknown authority", "UnknownIssuer"] {
            let log = agent.log();
            assert!(!log.contains(sign), "{sign}\n{log}");
        }
    }
    // What SPIRE's server gave out is good here, once.
    let mut newcomer = AnyAgent::new(Maker::Spire);
    newcomer.start(&server, Some(&unused));
    newcomer.expect_identity(&runtime);
    assert_eq!(server.cli(Maker::Spire, &["agent", "count"]), "3 attested agents\n");

    // The way back: SPIRE's files are as they were, so its server starts with what it had.
    let AnyServer::Ours(mut ours) = server else { panic!("it is ours") };
    ours.kill();
    theirs.restart();
    let shown = theirs.cli_output(&["entry", "show", "-output", "json"]);
    assert_eq!(by_id(&String::from_utf8_lossy(&shown.stdout)), by_id(&entries));
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn a_live_server_of_spires_on_postgresql_is_taken_over_and_agents_notice_nothing() {
    let (runtime, cluster) = (Runtime::new().expect("runtime"), Cluster::shared());
    let database = cluster.connection_string(&cluster.create_database());
    let theirs = AnyServer::Spires(SpireServer::start_on_postgres(TIMES, &format!("{database} sslmode=disable")));
    let other = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(other.path(), DevIdPki::new().maker.authorities_pem()).expect("written");
    let of_others = ["bundle", "set", "-id", "spiffe://other.org", "-path", &other.path().display().to_string()];
    theirs.cli(Maker::Spire, &of_others);
    theirs.create_own_entry(Maker::Spire, "/app", &["-dns", "app.example.org", "-federatesWith", "spiffe://other.org"]);
    let mut agents = [AnyAgent::new(Maker::Spire), AnyAgent::new(Maker::Ironroot)];
    for agent in &mut agents {
        let token = theirs.token(Maker::Spire);
        agent.start(&theirs, Some(&token));
        agent.expect_identity(&runtime);
    }
    let tokens = agents.each_ref().map(|agent| token(agent, &runtime));
    let entries = theirs.cli(Maker::Spire, &["entry", "show", "-output", "json"]);
    let bundles = theirs.cli(Maker::Spire, &["bundle", "list"]);

    let AnyServer::Spires(mut theirs) = theirs else { panic!("it is SPIRE's") };
    let ours = Server::prepare_at(theirs.port(), &options(Keys::File));
    let looked = import_from(&database, &theirs, &ours, &["-dryRun"]);
    assert!(looked.status.success() && said(&looked).contains("Would take over from SPIRE"), "{}", said(&looked));
    let refused = import_from(&database, &theirs, &ours, &[]);
    assert!(!refused.status.success() && said(&refused).contains("others are connected to it"), "{}", said(&refused));
    assert!(theirs.process().expect("runs").terminate(), "SPIRE's server ends well");
    let imported = import_from(&database, &theirs, &ours, &["-output", "json"]);
    assert!(imported.status.success(), "{}", said(&imported));
    let report: serde_json::Value = serde_json::from_slice(&imported.stdout).expect("JSON");
    assert_eq!((&report["agents"], &report["federated_bundles"]), (&2.into(), &1.into()), "{report}");

    let mut ours = ours;
    ours.restart();
    let server = AnyServer::Ours(ours);
    assert_eq!(by_id(&server.cli(Maker::Spire, &["entry", "show", "-output", "json"])), by_id(&entries));
    assert_eq!(server.cli(Maker::Spire, &["bundle", "list"]), bundles);
    expect_rotations(&agents, &runtime);
    for (agent, token) in agents.iter().zip(&tokens) {
        validate(agent, token, &runtime);
        for sign in ["needs to re-attest", "certificate signed by unknown authority", "UnknownIssuer"] {
            assert!(!agent.log().contains(sign), "{sign}\n{}", agent.log());
        }
    }
    // The way back: its tables are as they were.
    let AnyServer::Ours(mut ours) = server else { panic!("it is ours") };
    ours.kill();
    theirs.restart();
    let shown = theirs.cli_output(&["entry", "show", "-output", "json"]);
    assert_eq!(by_id(&String::from_utf8_lossy(&shown.stdout)), by_id(&entries));
}

/// Names and bytes of what SPIRE's server leaves, but for its log.
fn files_of(server: &SpireServer) -> Vec<(String, Vec<u8>)> {
    let directory = server.database();
    let directory = directory.parent().unwrap_or(Path::new("/"));
    let files = std::fs::read_dir(directory).expect("listed").map(|file| {
        let file = file.expect("a file");
        (file.file_name().to_string_lossy().into_owned(), std::fs::read(file.path()).expect("read"))
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

fn by_id(shown: &str) -> Vec<serde_json::Value> {
    let mut json: serde_json::Value = serde_json::from_str(shown).expect("JSON");
    let mut entries = std::mem::take(json["entries"].as_array_mut().expect("entries"));
    entries.sort_by_key(|entry| entry["id"].to_string());
    entries
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn a_ban_of_spires_holds_and_a_server_that_was_killed_is_taken_over_with_all_it_knew() {
    let runtime = Runtime::new().expect("runtime");
    let theirs = AnyServer::start(Maker::Spire, TIMES);
    let mut agent = AnyAgent::new(Maker::Spire);
    theirs.create_own_entry(Maker::Spire, "/app", &[]);
    let token = theirs.token(Maker::Spire);
    agent.start(&theirs, Some(&token));
    agent.expect_identity(&runtime);
    let id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/{token}");
    theirs.cli(Maker::Spire, &["agent", "ban", "-spiffeID", &id]);
    let AnyServer::Spires(mut theirs) = theirs else { panic!("it is SPIRE's") };
    theirs.kill();
    let mut ours = Server::prepare_at(theirs.port(), &options(Keys::File));
    let imported = import(&theirs, &ours, &[]);
    assert!(said(&imported).contains("of the agents 1 banned"), "{}", said(&imported));
    ours.restart();
    let shown = ours.cli(&["agent", "show", "-spiffeID", &id]);
    assert!(shown.contains("Banned"), "{shown}");
    agent.expect_nothing(&runtime, "a banned agent serves nothing");
}
