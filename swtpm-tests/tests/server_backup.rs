//! Backup and restore of a whole server: its token stays, its clients notice nothing that they should not.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ironroot_api::pb::agent::BanAgentRequest;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::entry::GetAuthorizedEntriesRequest;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::denial_reason;
use ironroot_lab::deployment::{DEADLINE, Keys, Server, ServerOptions, TRUST_DOMAIN, binary, expect_within};
use ironroot_lab::server_client::{Agent, ServerClient};
use ironroot_lab::small_disk::SmallDisk;

fn text(path: &Path) -> &str {
    path.to_str().expect("the lab's paths are UTF-8")
}

/// `ironroot-server backup` or `restore` with this server's configuration.
fn run(server: &Server, arguments: &[&str]) -> String {
    let config = server.config_path();
    server.cli(&[arguments, &["-config", text(&config)]].concat())
}

async fn reason(agent: &Agent) -> Option<Reason> {
    let status = agent.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await;
    denial_reason(&status.expect_err("denied"))
}

fn ids(server: &Server) -> Vec<String> {
    let shown: serde_json::Value =
        serde_json::from_str(&server.cli(&["entry", "show", "-output", "json"])).expect("JSON");
    let entries = shown["entries"].as_array().expect("entries");
    entries.iter().map(|entry| entry["id"].as_str().expect("an ID").to_owned()).collect()
}

//= FLT-S5
#[tokio::test]
async fn a_backup_of_a_running_server_is_put_back_and_neither_a_ban_nor_a_used_token_is_undone() {
    let mut server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let good = client.agent().await;
    let kept = server.create_entry(good.id().as_str(), "/kept", &["unix:uid:1"], &[]);
    let (token, unused) = (client.join_token().await, client.join_token().await);
    let file = server.directory().join("b");
    let told = run(&server, &["backup", text(&file)]);
    assert!(told.contains("Backed up into") && told.contains("1 entry, 1 agent "), "{told}");

    let late = client.agent_of(client.attest_with_token(&token).await.expect("attests")).await;
    let later = server.create_entry(late.id().as_str(), "/later", &["unix:uid:2"], &[]);
    let mut agents = AgentClient::new(client.admin().await);
    agents.ban_agent(BanAgentRequest { id: Some(late.id().to_pb()) }).await.expect("banned");
    let bundle = server.bundle_pem();

    let looked = run(&server, &["restore", text(&file), "-dryRun"]);
    assert!(looked.contains("Would restore") && looked.contains("2 entries, 2 agents (1 banned)"), "{looked}");
    let refused = server.cli_output(&["restore", text(&file), "-config", text(&server.config_path())]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the server is running: stop it first"), "{refused:?}");
    assert_eq!(ids(&server), [kept.clone(), later]);

    server.kill();
    let told = run(&server, &["restore", text(&file)]);
    assert!(told.contains("Banned since the backup, and banned still"), "{told}");
    accept_once_it_waits(&mut server, "a backup of");
    assert_eq!((ids(&server), server.bundle_pem()), (vec![kept], bundle));
    let again = client.agent_of(good.credentials.clone()).await;
    let served = again.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await;
    assert_eq!(served.expect("still an agent").into_inner().entries.len(), 1);
    assert_eq!(reason(&client.agent_of(late.credentials.clone()).await).await, Some(Reason::AgentBanned));
    for burnt in [token, unused] {
        let status = client.attest_with_token(&burnt).await.err().expect("burnt");
        assert!(status.message().contains("does not exist or has already been used"), "{status}");
    }
}

#[tokio::test]
async fn a_backup_of_another_server_is_put_back_at_an_operators_word_alone_and_its_administrators_are_named() {
    let [server, other] = [(); 2].map(|()| Server::start(&ServerOptions::default()));
    let mut server = server;
    let parent = format!("spiffe://{TRUST_DOMAIN}/host");
    other.create_entry(&parent, "/intruder", &["unix:uid:1"], &["-admin"]);
    let [own, file] = ["own", "other"].map(|name| server.directory().join(name));
    run(&server, &["backup", text(&own)]);
    run(&other, &["backup", text(&file)]);
    let looked = run(&server, &["restore", text(&own), "-dryRun"]);
    assert!(looked.contains(", which is here too") && !looked.contains("ATTENTION"), "{looked}");
    let looked = run(&server, &["restore", text(&file), "-dryRun"]);
    assert!(looked.contains("another server's backup") && looked.contains("/intruder"), "{looked}");
    server.kill();
    let refused = server.cli_output(&["restore", text(&file), "-config", text(&server.config_path())]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("say -otherServer"), "{refused:?}");
    server.restart();
    assert_eq!(ids(&server), Vec::<String>::new(), "nothing has changed");
    server.kill();
    let told = run(&server, &["restore", text(&file), "-otherServer"]);
    assert!(told.contains("which is not here") && told.contains("another server's backup"), "{told}");
}

/// A CA that has rotated since the backup has its keys in the token, and the backup's journal names others.
#[tokio::test]
async fn a_ca_that_has_rotated_since_the_backup_goes_on_after_it_is_put_back() {
    let mut server = Server::start(&ServerOptions::default());
    let file = server.directory().join("b");
    run(&server, &["backup", text(&file)]);
    (0..2).for_each(|_| rotate(&server));
    let before = active_ca(&server);
    server.kill();
    let told = run(&server, &["restore", text(&file)]);
    assert!(told.contains("The CA that was here goes on"), "{told}");
    run(&server, &["restore", "accept"]);
    server.restart();
    assert_eq!(active_ca(&server), before);
    assert!(!server.log().contains("another X509 CA is made"), "{}", server.log());
}

/// What a virtual machine's snapshot, or a copy that somebody puts there, does to a database.
fn copy_database(server: &Server, to: &Path) {
    fs::create_dir_all(to).expect("directory");
    for name in ["datastore.sqlite3", "datastore.sqlite3-wal"] {
        let from = server.directory().join("data").join(name);
        let _ = fs::remove_file(to.join(name));
        if from.exists() {
            fs::copy(from, to.join(name)).expect("copied");
        }
    }
}

fn put_database_back(server: &Server, from: &Path) {
    for name in ["datastore.sqlite3", "datastore.sqlite3-wal", "datastore.sqlite3-shm"] {
        let place = server.directory().join("data").join(name);
        let _ = fs::remove_file(&place);
        if from.join(name).exists() {
            fs::copy(from.join(name), place).expect("copied");
        }
    }
}

fn active_ca(server: &Server) -> String {
    let shown = server.cli(&["localauthority", "x509", "show", "-output", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    shown["active"]["authority_id"].as_str().expect("an active CA").to_owned()
}

fn rotate(server: &Server) {
    let prepared = server.cli(&["localauthority", "x509", "prepare", "-output", "json"]);
    let prepared: serde_json::Value = serde_json::from_str(&prepared).expect("JSON");
    let id = prepared["prepared_authority"]["authority_id"].as_str().expect("an ID").to_owned();
    server.cli(&["localauthority", "x509", "activate", "-authorityID", &id]);
}

/// One verb of each service on the admin socket.
const VERBS: [&[&str]; 12] = [
    &["bundle", "show"],
    &["bundle", "count"],
    &["entry", "show"],
    &["entry", "count"],
    &["agent", "list"],
    &["device", "list"],
    &["token", "generate"],
    &["localauthority", "x509", "show"],
    &["policy", "list"],
    &["federation", "list"],
    &["jwt", "mint", "-spiffeID", "spiffe://example.org/x", "-audience", "a"],
    &["logger", "get"],
];

/// Starts a server whose state is older: it says why it waits, serves nobody, and goes on once that is accepted.
fn accept_once_it_waits(server: &mut Server, why: &str) {
    server.spawn();
    let unhealthy = || {
        let output = server.cli_output(&["healthcheck"]);
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("restore accept")
    };
    expect_within(DEADLINE, "the server waits", || server.log(), unhealthy);
    let told = String::from_utf8_lossy(&server.cli_output(&["healthcheck"]).stderr).into_owned();
    assert!(told.contains("nothing is issued until") && told.contains(why), "{told}");
    assert!(std::net::TcpStream::connect(("127.0.0.1", server.port())).is_err(), "agents find nobody");
    for verb in VERBS {
        let output = server.cli_output(verb);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && !told.contains("Unimplemented"), "{verb:?}: {told}");
        assert!(told.contains("nothing is issued until") && told.contains("restore accept"), "{verb:?}: {told}");
    }
    assert!(server.log().contains("server waits for the operator's word"), "{}", server.log());
    // A restart changes nothing about it.
    server.kill();
    server.spawn();
    expect_within(
        DEADLINE,
        "the server waits still",
        || server.log(),
        || String::from_utf8_lossy(&server.cli_output(&["healthcheck"]).stderr).contains("restore accept"),
    );
    let told = run(server, &["restore", "accept"]);
    assert!(told.contains("Accepted: the database") && told.contains(why), "{told}");
    let healthy = || server.cli_output(&["healthcheck"]).status.success();
    expect_within(DEADLINE, "the server goes on", || server.log(), healthy);
}

//= FLT-S5
#[tokio::test]
async fn a_database_that_was_put_back_is_noticed_by_a_newer_key_in_the_token_and_waits_for_the_operators_word() {
    let mut server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let good = client.agent().await;
    let token = client.join_token().await;
    let (bundle, before) = (server.bundle_pem(), active_ca(&server));
    server.kill();
    let copy = server.directory().join("copy");
    copy_database(&server, &copy);
    server.restart();
    client.attest_with_token(&token).await.expect("attests");
    (0..2).for_each(|_| rotate(&server));
    server.kill();
    put_database_back(&server, &copy);
    // The log beside it would tell too: it has gone back with it, as in a snapshot of the whole directory.
    fs::remove_dir_all(server.directory().join("data").join("issuance")).expect("removed");
    accept_once_it_waits(&mut server, "is older than key");
    assert_eq!(server.bundle_pem(), bundle, "the root is the same");
    assert_ne!(active_ca(&server), before);
    let again = client.agent_of(good.credentials.clone()).await;
    let served = again.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await;
    served.expect("what was signed below the root is good");
    let status = client.attest_with_token(&token).await.err().expect("used before");
    assert!(status.message().contains("does not exist or has already been used"), "{status}");
    // It is settled: the next start waits for nothing.
    server.kill();
    server.restart();
}

//= FLT-S5
#[tokio::test]
async fn a_database_that_was_put_back_is_noticed_by_the_mark_on_another_path() {
    let marks = tempfile::tempdir().expect("directory");
    let mark = marks.path().join("mark.json");
    let server_lines = format!("rollback_mark_path = \"{}\"", text(&mark));
    let mut server = Server::start(&ServerOptions { server_lines, ..ServerOptions::default() });
    let client = ServerClient::new(&server).await;
    let good = client.agent().await;
    let token = client.join_token().await;
    server.kill();
    let copy = server.directory().join("copy");
    copy_database(&server, &copy);
    server.restart();
    let written = || fs::read(&mark).unwrap_or_default();
    let moved_from = |before: Vec<u8>| {
        expect_within(DEADLINE, "the mark is moved", || server.log(), || written() != before);
        written()
    };
    let before = written();
    client.attest_with_token(&token).await.expect("attests");
    // The first may be that of the start, which is the copy's; the second is beyond it.
    let first = moved_from(before);
    client.join_token().await;
    moved_from(first);
    server.kill();
    put_database_back(&server, &copy);
    accept_once_it_waits(&mut server, "the mark");
    let again = client.agent_of(good.credentials.clone()).await;
    again
        .entries()
        .get_authorized_entries(GetAuthorizedEntriesRequest::default())
        .await
        .expect("known before, and still");
    let status = client.attest_with_token(&token).await.err().expect("used before");
    assert!(status.message().contains("does not exist or has already been used"), "{status}");
    server.kill();
    server.restart();
}

//= FLT-S5
#[tokio::test]
async fn a_plain_copy_of_an_older_database_is_noticed_by_the_log_beside_it_and_no_ban_is_undone() {
    let mut server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let (banned, evicted, good) = (client.agent().await, client.agent().await, client.agent().await);
    let device = "ab".repeat(32);
    server.import_devices(&format!("ek_sha256\n{device}\n"));
    server.kill();
    let copy = server.directory().join("copy");
    copy_database(&server, &copy);
    server.restart();
    let later = client.agent().await;
    for id in [banned.id(), evicted.id(), later.id()] {
        server.cli(&["agent", "ban", "-spiffeID", id.as_str()]);
    }
    server.cli(&["agent", "evict", "-spiffeID", evicted.id().as_str()]);
    server.cli(&["device", "ban", &device]);
    expect_logged(&server, "BanDevice");
    server.kill();
    put_database_back(&server, &copy);
    accept_once_it_waits(&mut server, "the issuance log beside it");
    let shown = |id: &str| server.cli(&["agent", "show", "-spiffeID", id]);
    for id in [banned.id(), later.id()] {
        assert!(shown(id.as_str()).contains("Banned            : true"), "{}", shown(id.as_str()));
    }
    assert!(!shown(evicted.id().as_str()).contains("Banned            : true"), "its ban was lifted");
    assert!(!shown(good.id().as_str()).contains("Banned            : true"));
    assert!(
        server.cli(&["device", "show", &device]).contains("banned"),
        "{}",
        server.cli(&["device", "show", &device])
    );
    // It is settled: the next start waits for nothing.
    server.kill();
    server.restart();
}

/// Waits until the log of what was issued has a record of that method, on the disk.
fn expect_logged(server: &Server, method: &str) {
    let logged = || run(server, &["log", "show", "-last", "20"]).contains(method);
    expect_within(DEADLINE, "it is logged", || server.log(), logged);
}

#[test]
fn a_database_that_is_not_there_beside_a_token_with_keys_is_no_older_state() {
    let mut server = Server::start(&ServerOptions::default());
    server.kill();
    fs::remove_dir_all(server.directory().join("data")).expect("lost");
    server.spawn();
    let ended = || server.log().contains("KeyWithoutJournal") || server.log().contains("does not know");
    expect_within(DEADLINE, "the server ends", || server.log(), ended);
    let refused = server.cli_output(&["restore", "accept", "-config", text(&server.config_path())]);
    assert!(!refused.status.success(), "{refused:?}");
}

/// The handbook's commands, in its order.
#[test]
fn the_handbooks_procedure_of_backup_and_restore_works_as_it_is_written() {
    let mut server = Server::start(&ServerOptions { keys: Keys::File, ..ServerOptions::default() });
    let handbook =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/handbook.md")).expect("there");
    let section = handbook.split("\n## ").find(|section| section.starts_with("Backup and restore\n")).expect("section");
    let section = section.split("\n### ").next().expect("its beginning");
    let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
    let ours = ["openssl", "ironroot-server", "systemctl"];
    let commands: Vec<&str> = lines.filter(|line| ours.iter().any(|program| line.starts_with(program))).collect();
    assert!(commands.len() >= 7, "{commands:?}");
    fs::create_dir(server.directory().join("backups")).expect("directory");
    let keys = fs::read(server.key_file()).expect("keys");
    for command in commands {
        match command {
            "systemctl stop ironroot-server" => {
                server.kill();
                fs::remove_file(server.key_file()).expect("a disk that was lost");
            }
            "systemctl start ironroot-server" => server.spawn(),
            command => shell(&server, command),
        }
    }
    assert_eq!(fs::read(server.key_file()).expect("they are back"), keys);
    expect_within(
        DEADLINE,
        "the server goes on",
        || server.log(),
        || server.cli_output(&["healthcheck"]).status.success(),
    );
}

/// Runs a line of the handbook, with this server's files and programs for those that it names.
fn shell(server: &Server, line: &str) {
    let program = binary("ironroot-server");
    let waits = line.starts_with("ironroot-server healthcheck");
    let line = line
        .replace("/mnt/backups", text(&server.directory().join("backups")))
        .replace("/etc/ironroot/server.conf", text(&server.config_path()))
        .replace(
            "ironroot-server healthcheck",
            &format!("ironroot-server healthcheck -socketPath {}", text(&server.socket())),
        )
        .replace("ironroot-server ", &format!("{} ", text(&program)));
    let run = || {
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("umask 077; {line}")])
            .current_dir(server.directory())
            .output()
            .expect("bash is there")
    };
    if waits {
        let is_told = || String::from_utf8_lossy(&run().stderr).contains("restore accept");
        return expect_within(DEADLINE, "the server waits", || server.log(), is_told);
    }
    let output = run();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_backup_that_is_killed_leaves_no_half_file_under_its_name() {
    let server = Server::start(&ServerOptions::default());
    let whole = server.directory().join("whole");
    run(&server, &["backup", text(&whole)]);
    let mut made = 0;
    for step in 0..40 {
        let file = server.directory().join(format!("b{step}"));
        let config = server.config_path();
        let mut command = Command::new(binary("ironroot-server"));
        command.args(["backup", text(&file), "-config", text(&config)]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut backup = command.spawn().expect("starts");
        // A delay is the point here: the moment of the kill.
        std::thread::sleep(Duration::from_millis(step * 3));
        backup.kill().expect("killed");
        backup.wait().expect("ended");
        if file.exists() {
            made += 1;
            run(&server, &["restore", text(&file), "-dryRun"]);
        }
    }
    assert!(made < 40, "none was killed in time");
}

#[test]
fn a_backup_onto_a_full_disk_says_so_and_leaves_nothing_there() {
    let server = Server::start(&ServerOptions::default());
    let disk = server.directory().join("disk");
    SmallDisk::at(&disk, |small| {
        small.fill_but(64 * 1024);
        let file = disk.join("b");
        let output = server.cli_output(&["backup", text(&file), "-config", text(&server.config_path())]);
        assert!(!output.status.success());
        let told = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(told.contains("no space left"), "{told}");
        let left: Vec<_> =
            fs::read_dir(&disk).expect("listed").map(|entry| entry.expect("entry").file_name()).collect();
        assert_eq!(left.len(), 1, "the filler alone: {left:?}");
    });
}
