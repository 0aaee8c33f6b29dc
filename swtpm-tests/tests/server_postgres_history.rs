//! A standby without the last commits takes over under servers that had followed them.

use ironroot_lab::deployment::{DEADLINE, Device, Server, ServerOptions, expect_within};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_postgres_cluster::Cluster;

fn options(name: &str, connection_string: String) -> ServerOptions {
    ServerOptions {
        server_lines: format!("server_name = \"{name}\""),
        postgres: Some(connection_string),
        ..ServerOptions::default()
    }
}

/// What such a failover does: the newest commits are gone, and every connection.
fn lose_all_after(cluster: &Cluster, database: &str, revision: &str) {
    let lost = format!(
        "DELETE FROM entries; UPDATE devices SET state = 'enrolled', ban = NULL;
         DELETE FROM changes WHERE revision > {revision}; UPDATE revision SET revision = {revision};
         SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()"
    );
    cluster.sql(database, &lost);
}

fn waits(server: &Server) -> bool {
    let output = server.cli_output(&["healthcheck"]);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).contains("is not in it")
}

//= FLT-S28
#[test]
fn every_server_waits_for_the_operators_word_and_one_word_is_enough() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let text = cluster.connection_string(&database);
    let mut servers = ["north", "south"].map(|name| Server::start(&options(name, text.clone())));
    let device = Device::manufacture(&Manufacturer::new("Toy").expect("a manufacturer"));
    servers[0].import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    let follows = || servers[1].cli(&["device", "list"]).contains("enrolled");
    expect_within(DEADLINE, "the south knows it", || servers[1].log(), follows);
    let revision = cluster.sql(&database, "SELECT revision FROM revision");
    servers[1].cli(&["device", "ban", device.ek_sha256()]);
    servers[1].create_entry(&device.agent_id(), "/app", &["unix:uid:1"], &[]);
    let follows = || servers[0].cli(&["device", "list"]).contains("banned");
    expect_within(DEADLINE, "the north knows of the ban", || servers[0].log(), follows);

    lose_all_after(cluster, &database, &revision);
    for server in &mut servers {
        expect_within(DEADLINE, "it ends", String::new, || server.process().is_some_and(|process| !process.runs()));
        assert!(server.log().contains("the server ends"), "{}", server.log());
    }
    for server in &mut servers {
        server.spawn();
    }
    for server in &servers {
        expect_within(DEADLINE, "it waits", || server.log(), || waits(server));
        assert!(!server.cli_output(&["entry", "show"]).status.success(), "nothing of the older state is served");
    }
    servers[0].cli(&["restore", "accept", "-config", servers[0].config_path().to_str().expect("UTF-8")]);
    for server in &servers {
        let well = || server.cli_output(&["healthcheck"]).status.success();
        expect_within(DEADLINE, "it goes on", || server.log(), well);
    }
    let banned = || servers[0].cli(&["device", "list"]).contains("banned");
    expect_within(DEADLINE, "the south's log had the ban", || servers[1].log(), banned);
    servers[0].create_entry(&device.agent_id(), "/app", &["unix:uid:1"], &[]);
}

//= FLT-S28
#[test]
fn a_server_that_was_away_goes_on_with_what_was_accepted_and_no_other_waits_once_more() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let text = cluster.connection_string(&database);
    let [mut north, mut west] = ["north", "west"].map(|name| Server::start(&options(name, text.clone())));
    let device = Device::manufacture(&Manufacturer::new("Toy").expect("a manufacturer"));
    north.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    let follows = || west.cli(&["device", "list"]).contains("enrolled");
    expect_within(DEADLINE, "the west knows it", || west.log(), follows);
    let revision = cluster.sql(&database, "SELECT revision FROM revision");
    west.cli(&["device", "ban", device.ek_sha256()]);
    // More than the others will have written by the time that it is back: its log is ahead of the database.
    for number in 0..20 {
        west.create_entry(&device.agent_id(), &format!("/app{number}"), &["unix:uid:1"], &[]);
    }
    let logged = || west.cli(&["log", "show", "-config", &text_of(&west)]).contains("BatchCreateEntry");
    expect_within(DEADLINE, "its log has it", || west.log(), logged);
    west.kill();

    lose_all_after(cluster, &database, &revision);
    expect_within(DEADLINE, "it ends", String::new, || north.process().is_some_and(|process| !process.runs()));
    north.spawn();
    expect_within(DEADLINE, "it waits", || north.log(), || waits(&north));
    north.cli(&["restore", "accept", "-config", &text_of(&north)]);
    let is_well = |server: &Server| server.cli_output(&["healthcheck"]).status.success();
    expect_within(DEADLINE, "it goes on", || north.log(), || is_well(&north));
    // As if the west alone had heard of the ban.
    cluster.sql(&database, "UPDATE devices SET state = 'enrolled', ban = NULL");

    west.spawn();
    expect_within(DEADLINE, "it needs no word of its own", || west.log(), || is_well(&west));
    assert!(west.log().contains("accepted while this server was away"), "{}", west.log());
    assert!(west.cli(&["device", "list"]).contains("banned"), "its log had the ban");
    let banned = || north.cli(&["device", "list"]).contains("banned");
    expect_within(DEADLINE, "the north hears of it", || north.log(), banned);
    assert!(north.process().is_some_and(|process| process.runs()) && is_well(&north), "{}", north.log());
}

fn text_of(server: &Server) -> String {
    server.config_path().to_str().expect("UTF-8").to_owned()
}
