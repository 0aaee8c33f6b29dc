//! Servers whose facts are in PostgreSQL: a real one, real servers, a device with a TPM.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use ironroot_api::pb::agent::CountAgentsRequest;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::entry::GetAuthorizedEntriesRequest;
use ironroot_lab::balancer::Balancer;
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, expect_within, expect_within_async,
};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::server_client::{Credentials, ServerClient, SoftwareDevice};
use ironroot_postgres_cluster::Cluster;
use ironroot_server::issuance_log::{self, Head, Record};
use tonic::Code;

const ALICE: u32 = 60_001;
const BOB: u32 = 60_002;

fn options(name: &str, connection_string: String) -> ServerOptions {
    ServerOptions {
        server_lines: format!("server_name = \"{name}\""),
        postgres: Some(connection_string),
        x509_svid_ttl: "8s",
        ..ServerOptions::default()
    }
}

fn enrolled(server: &Server) -> Device {
    let device = Device::manufacture(&Manufacturer::new("Toy").expect("a manufacturer"));
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    server.create_entry(&device.agent_id(), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    device
}

/// What a command that fails says.
fn refusal(server: &Server, arguments: &[&str]) -> String {
    let output = server.cli_output(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Status line and body of `/ready`.
fn ready(port: u16) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connects");
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").expect("asks");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers");
    answer
}

#[test]
fn a_device_enrols_and_is_served_and_while_the_database_is_gone_it_is_served_from_memory() {
    let mut cluster = Cluster::start();
    let text = cluster.connection_string_over_tls(&cluster.create_database());
    let mut server = Server::prepare(&options("north", text));
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("bound").port();
    let checks =
        format!("health_checks {{ listener_enabled = true bind_address = \"127.0.0.1\" bind_port = {port} }}\n");
    let config = std::fs::read_to_string(server.config_path()).expect("read");
    std::fs::write(server.config_path(), config + &checks).expect("written");
    server.restart();
    let mut device = enrolled(&server);
    device.provision(&server, &AgentOptions::default());
    device.start();
    device.expect_identity(ALICE);

    cluster.stop();
    let bob = ["entry", "create", "-parentID", &device.agent_id(), "-spiffeID", "spiffe://lab.example/bob"];
    let selector = format!("unix:uid:{BOB}");
    let bob = [&bob[..], &["-selector", &selector]].concat();
    let said = refusal(&server, &bob);
    assert!(said.contains("the data store does not answer; nothing was changed"), "{said}");
    assert!(refusal(&server, &["healthcheck"]).contains("data store"), "an operator is told");
    let held = device.expect_identity(ALICE).leaves[0].serial_decimal();
    let is_new = || device.expect_identity(ALICE).leaves[0].serial_decimal() != held;
    expect_within(DEADLINE, "SVIDs are signed without the database", || device.log(), is_new);
    assert!(refusal(&server, &["healthcheck"]).contains("data store"), "it is away still");
    assert!(ready(port).starts_with("HTTP/1.1 200"), "no balancer takes all servers away for what all of them lack");

    cluster.restart();
    expect_within(DEADLINE, "it recovers alone", || server.log(), || server.cli_output(&bob).status.success());
    device.expect_identity(BOB);
    // What it acknowledged is there after a kill.
    server.kill();
    server.restart();
    assert!(server.cli(&["entry", "show"]).contains("/bob"));
    assert!(!server.log().contains("pass word"), "no password in a log");
}

#[test]
fn what_a_server_does_not_do_on_postgresql_it_says() {
    let cluster = Cluster::shared();
    let text = cluster.connection_string(&cluster.create_database());
    let server = Server::prepare(&ServerOptions { server_lines: String::new(), ..options("", text.clone()) });
    let said = server.validate();
    assert!(said.contains("server_name"), "a shared database needs names: {said}");
    let unsafe_text = cluster.connection_string_over_tls("db").replace("verify-full", "require");
    server.reconfigure(&options("north", unsafe_text));
    let said = server.validate();
    assert!(said.contains("sslmode=require") && said.contains("verify-full") && !said.contains("pass word"), "{said}");
    let roots = cluster.roots().display().to_string();
    server.reconfigure(&options("north", cluster.connection_string_over_tls("db").replace(&roots, "/nowhere.pem")));
    let said = server.validate();
    assert!(said.contains("sslrootcert /nowhere.pem"), "{said}");
    let port = format!("port={}", cluster.port());
    let away = cluster.connection_string("db").replace(&port, "port=1");
    server.reconfigure(&options("north", away));
    let said = server.validate();
    assert!(said.contains("was not looked at"), "{said}");
    server.reconfigure(&options("north", text));
    let said = server.validate();
    assert!(said.contains("is valid") || !said.contains("connection_string"), "{said}");
}

#[test]
fn a_second_server_of_the_same_name_does_not_start() {
    let cluster = Cluster::shared();
    let text = cluster.connection_string(&cluster.create_database());
    let _first = Server::start(&options("north", text.clone()));
    let mut second = Server::prepare(&options("north", text));
    second.spawn();
    let said = || second.log().contains("give each its own server_name");
    expect_within(DEADLINE, "it says why", || second.log(), said);
}

#[test]
fn a_server_whose_name_was_changed_does_not_begin_as_another_one() {
    let cluster = Cluster::shared();
    let text = cluster.connection_string(&cluster.create_database());
    let mut server = Server::start(&options("north", text.clone()));
    server.kill();
    server.reconfigure(&options("south", text.clone()));
    let says_so = |said: &str| said.contains("data_dir belongs to server_name") && said.contains("remove that file");
    let said = server.validate();
    assert!(says_so(&said), "{said}");
    server.spawn();
    expect_within(DEADLINE, "it says why", || server.log(), || says_so(&server.log()));
    std::fs::remove_file(server.directory().join("data/server-name")).expect("on purpose");
    server.restart();
}

#[test]
fn a_device_goes_on_at_another_server_when_one_dies_and_no_fetch_fails() {
    let cluster = Cluster::shared();
    let text = cluster.connection_string(&cluster.create_database());
    let (mut north, south) = (Server::start(&options("north", text.clone())), Server::start(&options("south", text)));
    let same = || north.bundle_pem() == south.bundle_pem();
    expect_within(DEADLINE, "one bundle of both", || north.bundle_pem() + &south.bundle_pem(), same);
    assert_eq!(north.bundle_pem().matches("BEGIN CERTIFICATE").count(), 2, "each signs with a CA of its own");

    let mut device = enrolled(&south);
    let balancer = Balancer::start(vec![north.port(), south.port()]);
    device.provision(&north, &AgentOptions { server_port: Some(balancer.port()), ..AgentOptions::default() });
    device.start();
    let first = device.expect_identity(ALICE);
    north.kill();
    let mut serials = vec![first.leaves[0].serial_decimal()];
    let moved = || {
        let fetched = device.fetch(ALICE).expect("no fetch fails");
        serials.push(fetched.leaves[0].serial_decimal());
        serials.dedup();
        serials.len() > 2
    };
    expect_within(DEADLINE, "the other server signs", || device.log(), moved);
    south.create_entry(&device.agent_id(), "/bob", &[&format!("unix:uid:{BOB}")], &[]);
    device.expect_identity(BOB);

    // Back again, and the north knows what the south was told.
    north.restart();
    assert!(north.cli(&["entry", "show"]).contains("/bob"));
    south.cli(&["device", "ban", device.ek_sha256()]);
    let banned = || north.cli(&["device", "list"]).contains("banned");
    expect_within(DEADLINE, "a ban at one is a ban at both", || north.log(), banned);
    let withdrawn = || device.fetch(ALICE).is_err();
    expect_within(DEADLINE, "the banned device has nothing", || device.log(), withdrawn);
}

//= FLT-S3
#[tokio::test(flavor = "multi_thread")]
async fn a_token_made_at_one_server_is_good_at_the_other_once() {
    let cluster = Cluster::shared();
    let text = cluster.connection_string(&cluster.create_database());
    let (north, south) = tokio::task::block_in_place(|| {
        (Server::start(&options("north", text.clone())), Server::start(&options("south", text)))
    });
    let both = [ServerClient::new(&north).await, ServerClient::new(&south).await];
    for _ in 0..10 {
        let token = both[0].join_token().await;
        let shown = both.iter().cycle().take(8).map(|server| server.attest_with_token(&token));
        let shown = futures_util::future::join_all(shown).await;
        assert_eq!(shown.iter().filter(|shown| shown.is_ok()).count(), 1, "spent once");
        let agent = shown.into_iter().find_map(Result::ok).expect("one");
        let id = agent.id();
        let knows = |server: &Server| server.cli(&["agent", "list"]).contains(id.as_str());
        let all = || [&north, &south].into_iter().all(knows);
        tokio::task::block_in_place(|| expect_within(DEADLINE, "both know the agent", || north.log(), all));
    }
}

//= FLT-S29
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_cut_off_or_behind_tells_no_agent_of_another_that_it_is_unknown() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    cluster.sql(&database, "CREATE ROLE cut_off LOGIN IN ROLE ironroot");
    let text = cluster.connection_string(&database);
    let of_south = text.replace("user=ironroot", "user=cut_off");
    let [north, south] = tokio::task::block_in_place(|| north_and_south_on([text, of_south]));
    let clients = [ServerClient::new(&north).await, ServerClient::new(&south).await];
    let calls_south = async |agent: &Credentials| {
        let agent = clients[1].agent_of(agent.clone()).await;
        agent.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await.map(drop)
    };
    let attested = async || {
        let token = clients[0].join_token().await;
        clients[0].attest_with_token(&token).await.expect("a fresh token attests")
    };
    for _ in 0..5 {
        calls_south(&attested().await).await.expect("what north has answered is so at south");
    }

    let import = |device: &SoftwareDevice| north.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    for _ in 0..3 {
        let device = SoftwareDevice::new();
        import(&device);
        let agent = device.attest(&clients[1]).await.expect("south asks the database for the device");
        south.cli(&["agent", "ban", "-spiffeID", agent.id().as_str()]);
        device.attest(&clients[1]).await.err().expect("its agent is banned");
        let evict = || north.cli(&["agent", "evict", "-spiffeID", agent.id().as_str()]);
        evict();
        device.attest(&clients[1]).await.expect("the ban is lifted");
        south.cli(&["device", "ban", &device.ek_sha256()]);
        device.attest(&clients[1]).await.err().expect("the device is banned");
        evict();
        north.cli(&["device", "delete", &device.ek_sha256()]);
        import(&device);
        device.attest(&clients[1]).await.expect("and let in again");
    }
    let banned = attested().await;
    calls_south(&banned).await.expect("south knows it");
    south.cli(&["agent", "ban", "-spiffeID", banned.id().as_str()]);

    cluster.sql(&database, "ALTER ROLE cut_off NOLOGIN");
    cluster.sql(&database, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'cut_off'");
    let agent = attested().await;
    let refused = calls_south(&agent).await.expect_err("south cannot know it");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("cannot be looked up"), "{refused}");
    let shown = north.cli(&["localauthority", "x509", "prepare", "-output", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let next = shown["prepared_authority"]["authority_id"].as_str().expect("an ID").to_owned();
    north.cli(&["localauthority", "x509", "activate", "-authorityID", &next]);
    let refused = calls_south(&attested().await).await.expect_err("south knows neither it nor its CA");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let device = SoftwareDevice::new();
    import(&device);
    let refused = device.attest(&clients[1]).await.err().expect("south cannot know the device");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("cannot be looked up"), "{refused}");
    let refused = calls_south(&banned).await.expect_err("it is banned");
    assert_eq!(refused.code(), Code::PermissionDenied, "a ban stands while the database is away: {refused}");
    cluster.sql(&database, "ALTER ROLE cut_off LOGIN");
    let lets_in = async || match calls_south(&agent).await {
        Err(refused) if refused.code() != Code::Unavailable => panic!("told for certain: {refused}"),
        outcome => outcome.is_ok(),
    };
    expect_within_async(DEADLINE, "it asks the database", || south.log(), lets_in).await;

    north.cli(&["agent", "evict", "-spiffeID", agent.id().as_str()]);
    let is_told = async || calls_south(&agent).await.is_err_and(|refused| refused.code() == Code::PermissionDenied);
    expect_within_async(DEADLINE, "what is certain is told so", || south.log(), is_told).await;
}

/// Two servers of one data store, each of which believes the other's CA.
fn north_and_south() -> [Server; 2] {
    let cluster = Cluster::shared();
    let text = cluster.connection_string(&cluster.create_database());
    north_and_south_on([text.clone(), text])
}

/// The same, by what each connects with.
fn north_and_south_on([of_north, of_south]: [String; 2]) -> [Server; 2] {
    let both = [("north", of_north), ("south", of_south)].map(|(name, text)| Server::start(&options(name, text)));
    let same = || both[0].bundle_pem() == both[1].bundle_pem();
    expect_within(DEADLINE, "one bundle of both", || both[0].bundle_pem(), same);
    both
}

//= FLT-S25 FLT-S26
#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_of_one_server_is_one_at_the_other_until_the_agent_that_fetched_the_svid_is_banned() {
    let [north, south] = tokio::task::block_in_place(north_and_south);
    let clients = [ServerClient::new(&north).await, ServerClient::new(&south).await];
    let agent = clients[0].agent().await;
    let more = ["-admin", "-x509SVIDTTL", "600"];
    let entry_id = north.create_entry(agent.id().as_str(), "/operator", &["unix:uid:1"], &more);
    let operator = agent.fetch_svid(entry_id).await;
    let administers = async |client: &ServerClient| {
        let channel = client.with(&operator).await.expect("a good certificate");
        AgentClient::new(channel).count_agents(CountAgentsRequest::default()).await.is_ok()
    };
    for client in &clients {
        let lets_in = async || administers(client).await;
        expect_within_async(DEADLINE, "a CA of the same data store signed it", || south.log(), lets_in).await;
    }
    south.cli(&["agent", "ban", "-spiffeID", agent.id().as_str()]);
    for client in &clients {
        let refuses = async || !administers(client).await;
        expect_within_async(DEADLINE, "its agent is banned", || north.log(), refuses).await;
    }
    assert!(north.log().contains("fetched through an agent that is banned"), "{}", north.log());
}

/// Whether the server's issuance log has this agent for a banned one: what it says of it last.
fn log_has_a_ban(server: &Server, id: &str) -> bool {
    let mut is_banned = false;
    let note = |record: &Record, _: &Head| match record.body.method.as_str() {
        "Bans" => is_banned = false,
        "BanAgent" if record.body.object == id => is_banned = true,
        "DeleteAgent" if record.body.object == id => is_banned = false,
        _ => {}
    };
    issuance_log::read(&server.directory().join("data").join(issuance_log::DIRECTORY), note).expect("whole");
    is_banned
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_that_is_given_or_lifted_at_one_server_stands_so_in_the_log_of_each_also_of_one_that_was_off() {
    let [mut north, south] = tokio::task::block_in_place(north_and_south);
    let client = ServerClient::new(&south).await;
    let [first, second] = [client.agent().await.id().to_string(), client.agent().await.id().to_string()];
    tokio::task::block_in_place(|| {
        let knows = || [&first, &second].iter().all(|id| north.cli(&["agent", "list"]).contains(*id));
        expect_within(DEADLINE, "north knows both", || north.log(), knows);
        for id in [&first, &second] {
            north.cli(&["agent", "ban", "-spiffeID", id]);
            for server in [&north, &south] {
                expect_within(DEADLINE, "both logs have it", || server.log(), || log_has_a_ban(server, id));
            }
        }
        south.cli(&["agent", "evict", "-spiffeID", &first]);
        for server in [&north, &south] {
            expect_within(DEADLINE, "lifted in both logs", || server.log(), || !log_has_a_ban(server, &first));
        }
        assert!(log_has_a_ban(&north, &second));
        north.kill();
        south.cli(&["agent", "evict", "-spiffeID", &second]);
        assert!(log_has_a_ban(&north, &second), "it is off");
        north.restart();
        expect_within(DEADLINE, "it has heard", || north.log(), || !log_has_a_ban(&north, &second));
    });
}
