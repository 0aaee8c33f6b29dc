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

//= FLT-S26
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
