//! What a server keeps over a kill, and what it refuses to start on, in words that say what to do.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::{BanAgentRequest, CreateJoinTokenRequest, ListAgentsRequest};
use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::device::{DeviceRequest, ListDevicesRequest};
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{BatchCreateEntryRequest, GetAuthorizedEntriesRequest, ListEntriesRequest};
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::pb::{agent, device, entry, types};
use ironroot_api::permission::denial_reason;
use ironroot_lab::deployment::{Admission, Server, ServerOptions, TRUST_DOMAIN, binary};
use ironroot_lab::server_client::{Agent, ServerClient};
use ironroot_lab::softhsm::{LABEL, PIN};

/// Everything that an administrator can list.
#[derive(Debug, PartialEq)]
struct Facts {
    entries: entry::ListEntriesResponse,
    agents: agent::ListAgentsResponse,
    devices: device::ListDevicesResponse,
    bundle: String,
}

async fn facts(server: &Server, client: &ServerClient) -> Facts {
    let admin = client.admin().await;
    let (mut entries, mut agents) = (EntryClient::new(admin.clone()), AgentClient::new(admin.clone()));
    Facts {
        entries: entries.list_entries(ListEntriesRequest::default()).await.expect("listed").into_inner(),
        agents: agents.list_agents(ListAgentsRequest::default()).await.expect("listed").into_inner(),
        devices: DeviceClient::new(admin)
            .list_devices(ListDevicesRequest::default())
            .await
            .expect("listed")
            .into_inner(),
        bundle: server.bundle_pem(),
    }
}

async fn reason(agent: &Agent) -> Option<Reason> {
    let status = agent.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await;
    denial_reason(&status.expect_err("denied"))
}

//= FLT-S2
#[tokio::test]
async fn a_killed_server_comes_back_with_all_that_it_had_acknowledged() {
    let mut server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let (used, unused) = (client.join_token().await, client.join_token().await);
    let good = client.agent_of(client.attest_with_token(&used).await.expect("attests")).await;
    let banned = client.agent().await;
    let ek = |digit: &str| digit.repeat(64);
    server.import_devices(&format!("ek_sha256,serial,label:site\n{},S-1,berlin\n{},S-2,\n", ek("a"), ek("b")));
    server.create_entry(good.id().as_str(), "/web", &["unix:uid:1"], &["-dns", "web.example", "-hint", "h"]);
    let doomed = server.create_entry(good.id().as_str(), "/doomed", &["unix:uid:2"], &[]);
    let mut agents = AgentClient::new(client.admin().await);
    let same_token = CreateJoinTokenRequest { ttl: 600, token: "kept".into(), agent_id: None };
    agents.create_join_token(same_token.clone()).await.expect("made");
    DeviceClient::new(client.admin().await).ban_device(DeviceRequest { ek_sha256: ek("b") }).await.expect("banned");
    agents.ban_agent(BanAgentRequest { id: Some(banned.id().to_pb()) }).await.expect("banned");
    server.cli(&["entry", "delete", "-entryID", &doomed]);
    let before = facts(&server, &client).await;
    assert_eq!((before.entries.entries.len(), before.agents.agents.len(), before.devices.devices.len()), (1, 2, 2));

    // Twice: the second start reads what the first one wrote back.
    for _ in 0..2 {
        server.kill();
        server.restart();
        assert_eq!(facts(&server, &client).await, before);
    }
    let again = client.agent_of(good.credentials.clone()).await;
    let served = again.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await;
    assert_eq!(served.expect("still an agent").into_inner().entries.len(), 1);
    assert_eq!(reason(&client.agent_of(banned.credentials.clone()).await).await, Some(Reason::AgentBanned));
    let status = client.attest_with_token(&used).await.err().expect("used before the kill");
    assert!(status.message().contains("does not exist or has already been used"), "{status}");
    client.attest_with_token(&unused).await.expect("not used before the kill");
    let status = AgentClient::new(client.admin().await).create_join_token(same_token).await.expect_err("still there");
    assert_eq!(status.code(), tonic::Code::AlreadyExists);
}

/// Configurations like the server's but for one thing, run to their end.
struct Variant<'a> {
    server: &'a Server,
    config: String,
}

impl<'a> Variant<'a> {
    fn of(server: &'a Server) -> Self {
        Self { server, config: std::fs::read_to_string(server.config_path()).expect("configuration") }
    }

    fn with(mut self, old: &str, new: &str) -> Self {
        assert!(self.config.contains(old), "{old} is not in the configuration");
        self.config = self.config.replace(old, new);
        self
    }

    /// What the server said as it refused to start.
    fn refused(self) -> String {
        self.refused_with(1)
    }

    fn refused_with(self, code: i32) -> String {
        let path = self.server.directory().join("variant.conf");
        std::fs::write(&path, &self.config).expect("written");
        let (variable, value) = self.server.token().environment();
        // One that did start would run for ever.
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "30"]).arg(binary("ironroot-server"));
        let output = command.args(["run", "-config"]).arg(&path).env(variable, value).output().expect("starts");
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

#[tokio::test]
async fn a_second_server_is_refused_by_whatever_it_shares_with_the_first() {
    let server = Server::start(&ServerOptions::default());
    let said = Variant::of(&server).refused();
    assert_says(&said, &["cannot listen on 127.0.0.1", "Address already in use"]);
    let port = format!("bind_port = \"{}\"", server.port());
    let elsewhere = || Variant::of(&server).with(&port, "bind_port = \"0\"");
    let said = elsewhere().refused();
    assert_says(&said, &["cannot open the admin socket", "another process is already serving"]);
    let other_socket = server.directory().join("other.sock").display().to_string();
    let socket = server.socket().display().to_string();
    let elsewhere = || elsewhere().with(&socket, &other_socket);
    let said = elsewhere().refused();
    assert_says(&said, &["datastore.sqlite3 is in use by another server process"]);
    // Another data store, but the CA's keys are the first server's.
    let data = format!("{}/data", server.directory().display());
    let other = format!("{}/other", server.directory().display());
    let said = elsewhere().with(&data, &other).refused();
    assert_says(&said, &["CA journal", "restore the data store"]);
    let client = ServerClient::new(&server).await;
    client.agent().await;
    assert!(server.cli_output(&["healthcheck"]).status.success(), "the first server is not disturbed");
}

/// As the log quotes it.
const CA_OF_NORTH: &str = r#"the CA of server_name \"north\""#;

#[tokio::test]
async fn a_server_whose_name_is_changed_refuses_to_start_and_goes_on_under_the_one_that_it_had() {
    let mut server = Server::start(&ServerOptions::default());
    let domain = format!("trust_domain = \"{TRUST_DOMAIN}\"");
    let named = |name: &str| format!("{domain}\n    server_name = \"{name}\"");
    let unnamed = std::fs::read_to_string(server.config_path()).expect("configuration");
    let bundle = server.bundle_pem();
    server.kill();
    std::fs::write(server.config_path(), unnamed.replace(&domain, &named("north"))).expect("written");
    server.restart();
    assert_eq!(server.bundle_pem(), bundle, "a name may be added");
    server.kill();
    let said = Variant::of(&server).with("north", "south").refused();
    assert_says(&said, &[CA_OF_NORTH, r#"this server is \"south\""#, "set server_name to that"]);
    let said = Variant::of(&server).with(&named("north"), &domain).refused();
    assert_says(&said, &[CA_OF_NORTH, "without a server_name"]);
    server.restart();
    assert_eq!(server.bundle_pem(), bundle);
}

//= FLT-H1
#[tokio::test]
async fn a_server_that_cannot_use_its_token_says_what_to_do_and_sends_a_wrong_pin_once() {
    let mut server = Server::start(&ServerOptions::default());
    server.kill();
    let prefix = "module_path = \"";
    let said = Variant::of(&server).with(prefix, "module_path = \"/nonexistent").refused();
    assert_says(&said, &["cannot load PKCS#11 module /nonexistent", "check the module's path"]);
    let module = first_module(&server.config_path());
    let said = Variant::of(&server).with(&module, "/bin/true").refused();
    assert_says(&said, &["cannot load PKCS#11 module /bin/true"]);
    let said = Variant::of(&server).with(LABEL, "no-such-token").refused();
    assert_says(&said, &["no token matches", "no-such-token", LABEL]);

    let pin_file = server.token().pin_file();
    let said = Variant::of(&server).with(pin_file.to_str().expect("UTF-8"), "/nonexistent/pin").refused();
    assert_says(&said, &["PIN", "/nonexistent/pin"]);
    std::fs::write(&pin_file, "wrong-pin").expect("written");
    let said = Variant::of(&server).refused_with(77);
    assert_says(&said, &["refused the PIN", "CKR_PIN_INCORRECT", "it was tried once", "correct the PIN and restart"]);
    assert!(!said.contains("wrong-pin"), "the PIN is in the log: {said}");
    // The token remembers; neither the wrong PIN nor the right one is sent until someone has looked.
    for pin in ["wrong-pin", PIN] {
        std::fs::write(&pin_file, pin).expect("written");
        let said = Variant::of(&server).refused_with(77);
        assert_says(&said, &["PIN not sent", "log in once by hand"]);
    }
    server
        .token()
        .run("pkcs11-tool", &["--module", &module, "--token-label", LABEL, "--login", "--pin", PIN, "--list-objects"]);
    server.restart();
}

#[test]
fn a_server_that_cannot_use_a_makers_file_or_its_health_port_has_left_the_token_as_it_was() {
    let admission = Admission::Manufacturer("no certificate".to_owned());
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let checks = format!(
        "health_checks {{ listener_enabled = true bind_address = \"127.0.0.1\" bind_port = {port} }}\nplugins {{"
    );
    for (admission, checks, words) in [
        (admission, "plugins {", ["cannot take the TPM makers' CAs", "manufacturers.pem"]),
        (Admission::Enrolled, &checks, ["cannot open the health listener", "in use"]),
    ] {
        let server = Server::prepare(&ServerOptions { admission, ..Default::default() });
        assert_says(&Variant::of(&server).with("plugins {", checks).refused(), &words);
        let module = first_module(&server.config_path());
        let arguments = ["--module", &module, "--token-label", LABEL, "--login", "--pin", PIN, "--list-objects"];
        let objects = server.token().run("pkcs11-tool", &arguments);
        assert!(!objects.contains("Key Object"), "{objects}");
    }
}

/// The module's path in a configuration.
fn first_module(config: &Path) -> String {
    let config = std::fs::read_to_string(config).expect("configuration");
    let after = config.split_once("module_path = \"").expect("a module").1;
    after.split_once('"').expect("its end").0.to_owned()
}

//= FLT-S6 REG-13
#[tokio::test]
async fn a_database_that_is_not_this_servers_or_not_whole_is_refused_and_left_alone() {
    let mut server = Server::start(&ServerOptions::default());
    fill(&ServerClient::new(&server).await).await;
    server.kill();
    let domain = format!("trust_domain = \"{TRUST_DOMAIN}\"");
    let said = Variant::of(&server).with(&domain, "trust_domain = \"other.example\"").refused();
    assert_says(&said, &["belongs to trust domain", TRUST_DOMAIN, "other.example"]);

    let database = server.directory().join("data/datastore.sqlite3");
    server.restart();
    assert!(server.process().expect("runs").terminate(), "a clean end folds the log into the file");
    let whole = std::fs::read(&database).expect("the database");
    let spoil = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        bytes
    };
    for (what, bytes) in [
        ("emptied", Vec::new()),
        ("cut short", whole[..whole.len() / 2].to_vec()),
        ("its head overwritten", spoil(&|bytes| bytes[..100].fill(0xaa))),
        (
            "a page overwritten",
            spoil(&|bytes| {
                let half = bytes.len() / 2 / 4096 * 4096;
                bytes[half..half + 4096].fill(0xaa)
            }),
        ),
        ("text", b"this is no database; ".repeat(100)),
    ] {
        replace(&database, &bytes);
        let said = Variant::of(&server).refused();
        assert_says(&said, &["database is damaged", "restore it from a backup"]);
        assert_eq!(std::fs::read(&database).expect("there"), bytes, "{what}: the file was changed");
    }
    replace(&database, &whole);
    std::fs::remove_file(&database).expect("removed");
    let said = Variant::of(&server).refused();
    assert_says(&said, &["that the CA journal in the data store does not know", "restore the data store"]);
    replace(&database, &whole);
    server.restart();
}

/// Enough entries that the middle of the file is theirs.
async fn fill(client: &ServerClient) {
    let id = |path: String| Some(types::Spiffeid { trust_domain: TRUST_DOMAIN.into(), path });
    let entry = |number: i32| types::Entry {
        spiffe_id: id(format!("/w/{number}")),
        parent_id: id("/parent".into()),
        selectors: vec![types::Selector { r#type: "unix".into(), value: format!("uid:{number}") }],
        hint: "h".repeat(500),
        ..Default::default()
    };
    let request = BatchCreateEntryRequest { entries: (0..500).map(entry).collect(), output_mask: None };
    EntryClient::new(client.admin().await).batch_create_entry(request).await.expect("created");
}

/// The file without what SQLite keeps beside it.
fn replace(database: &Path, bytes: &[u8]) {
    for suffix in ["-wal", "-shm", ".new"] {
        let beside = PathBuf::from(format!("{}{suffix}", database.display()));
        let _ = std::fs::remove_file(beside);
    }
    std::fs::write(database, bytes).expect("written");
}
