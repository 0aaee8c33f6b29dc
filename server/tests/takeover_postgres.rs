//! SPIRE's tables on a database server: what is read from there is what its file would have held, and what is none of SPIRE's is refused.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

#[path = "support/spire_files.rs"]
#[allow(dead_code, reason = "made for the tests of files")]
mod spire_files;

use ironroot_api::tls::KeyExchanges;
use ironroot_postgres_cluster::Cluster;
use ironroot_server::store::spire::{self, SpireFacts, SpireStoreError};
use ironroot_server::store::{Address, Location};
use rusqlite::Connection;
use rusqlite::types::Value;
use spire_files::{NOW, SCHEMA, SpireFiles, add_agent, add_entry, add_selector, datetime};
use tokio_postgres::NoTls;

const TABLES: [&str; 11] = [
    "migrations",
    "bundles",
    "attested_node_entries",
    "node_resolver_map_entries",
    "registered_entries",
    "selectors",
    "dns_names",
    "federated_registration_entries",
    "join_tokens",
    "federated_trust_domains",
    "ca_journals",
];

fn place(cluster: &Cluster, database: &str) -> Location {
    let text = cluster.connection_string(database);
    Location::Postgres(Box::new(Address::parse(&text, KeyExchanges::default()).unwrap()))
}

fn read(cluster: &Cluster, database: &str) -> Result<SpireFacts, SpireStoreError> {
    spire::read(&place(cluster, database), true)
}

/// Tables and columns as SPIRE's object mapper makes them there, with the rows of a file; others may read them and no more.
fn copied(cluster: &Cluster, file: &Connection) -> String {
    let database = cluster.create_database();
    let schema = SCHEMA
        .replace("integer primary key autoincrement", "serial primary key")
        .replace("datetime", "timestamp with time zone")
        .replace("blob", "bytea")
        .replace("bool", "boolean");
    cluster.sql(&database, &schema);
    for table in TABLES {
        copy(cluster, &database, file, table);
    }
    cluster.sql(&database, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO ironroot");
    database
}

fn copy(cluster: &Cluster, database: &str, file: &Connection, table: &str) {
    let mut declared = file.prepare(&format!("SELECT name, lower(type) FROM pragma_table_info('{table}')")).unwrap();
    let columns = declared.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let columns: Vec<(String, String)> = columns.collect::<Result<_, _>>().unwrap();
    let names = columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let mut statement = file.prepare(&format!("SELECT {names} FROM {table}")).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let values = columns.iter().enumerate().map(|(at, (_, kind))| literal(row.get(at).unwrap(), kind));
        let values = values.collect::<Vec<_>>().join(", ");
        cluster.sql(database, &format!("INSERT INTO {table} ({names}) VALUES ({values})"));
    }
}

fn literal(value: Value, kind: &str) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) if kind == "bool" => (number != 0).to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Blob(bytes) => format!("'\\x{}'", ironroot_text::hex::hex(&bytes)),
        Value::Real(_) => panic!("SPIRE writes none"),
    }
}

fn written() -> (SpireFiles, Connection) {
    let files = SpireFiles::new();
    let file = files.write();
    (files, file)
}

#[test]
fn what_is_read_from_postgresql_is_what_the_file_would_have_held() {
    let (files, file) = written();
    let row = add_entry(&file, "e-1", "spiffe://example.org/web", "spiffe://example.org/node", ("unix", "uid:1"));
    add_selector(&file, row, ("unix", "path:/it's:b"));
    let agent = "spiffe://example.org/spire/agent/join_token/t";
    add_agent(&file, agent, "join_token", "12345678901234567890", true, NOW + 60);
    add_agent(&file, "spiffe://example.org/spire/agent/x509pop/banned", "x509pop", "", false, NOW);
    let half = datetime(NOW + 90).replace(".204657828", ".5");
    let more = format!(
        "UPDATE registered_entries SET admin = 1, downstream = 1, expiry = {NOW}, jwt_svid_ttl = NULL, additional_attributes = x'0801';
         UPDATE attested_node_entries SET new_serial_number = '9', new_expires_at = '{half}' WHERE spiffe_id = '{agent}';
         INSERT INTO dns_names (registered_entry_id, value) VALUES ({row}, 'b'), ({row}, 'a');
         INSERT INTO node_resolver_map_entries (spiffe_id, type, value) VALUES ('{agent}', 'a', 'b:c');
         INSERT INTO join_tokens (token, expiry) VALUES ('fresh', {NOW});
         INSERT INTO bundles (trust_domain, data) VALUES ('spiffe://other.org', x'00');
         INSERT INTO federated_registration_entries (bundle_id, registered_entry_id) VALUES (2, {row});
         INSERT INTO federated_trust_domains (trust_domain, bundle_endpoint_url, bundle_endpoint_profile) VALUES ('o', 'https://o', 'https_web');"
    );
    file.execute_batch(&more).unwrap();
    let cluster = Cluster::shared();
    let database = copied(cluster, &file);
    drop(file);
    let of_file = spire::read(&Location::Sqlite(files.database()), true).unwrap();
    assert_eq!(of_file.agents[0].new_expires_at, NOW + 91, "rounded as SPIRE rounds");
    assert_eq!(of_file.entries[0].federates_with, ["spiffe://other.org"]);
    assert_eq!(read(cluster, &database).unwrap(), of_file);
    // Of a server before additional attributes, and before agents told their version.
    cluster.sql(
        &database,
        "UPDATE migrations SET version = 23; ALTER TABLE registered_entries DROP COLUMN additional_attributes",
    );
    cluster.sql(&database, "ALTER TABLE attested_node_entries DROP COLUMN agent_version");
    let older = read(cluster, &database).unwrap();
    assert_eq!((older.version, older.entries[0].additional_attributes.len()), (23, 0));
    assert_eq!((older.agents[0].agent_version.as_str(), older.tokens.len()), ("", 1));
}

#[test]
fn a_server_that_may_be_running_keeps_its_tables_and_may_be_looked_at() {
    let (_files, file) = written();
    let cluster = Cluster::shared();
    let database = copied(cluster, &file);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let text = format!("{} application_name=spire-server", cluster.connection_string(&database));
    let (client, connection) = runtime.block_on(tokio_postgres::connect(&text, NoTls)).unwrap();
    let connected = runtime.spawn(connection);
    let refused = read(cluster, &database).unwrap_err();
    let SpireStoreError::Connected(who) = &refused else { panic!("{refused:?}") };
    assert!(who.contains("ironroot with \"spire-server\""), "{who}");
    spire::read(&place(cluster, &database), false).unwrap();
    drop(client);
    runtime.block_on(connected).unwrap().unwrap();
    // One that was stopped just now is waited for.
    read(cluster, &database).unwrap();
}

#[test]
fn what_is_no_database_of_spires_or_does_not_answer_is_refused_by_name() {
    let cluster = Cluster::shared();
    assert!(matches!(read(cluster, &cluster.create_database()), Err(SpireStoreError::NotSpires)));
    type Expected = fn(&SpireStoreError) -> bool;
    let cases: [(&str, Expected); 5] = [
        ("UPDATE migrations SET version = 22", |error| matches!(error, SpireStoreError::Version { found: 22, .. })),
        ("DELETE FROM migrations", |error| matches!(error, SpireStoreError::VersionRows(0))),
        ("ALTER TABLE registered_entries DROP COLUMN hint", |error| matches!(error, SpireStoreError::Sql(_))),
        ("ALTER TABLE join_tokens ALTER COLUMN token TYPE bytea USING 'a'", |error| {
            matches!(error, SpireStoreError::Row { table: "join_tokens", row: 1, .. })
        }),
        (
            "ALTER TABLE join_tokens ALTER COLUMN token TYPE text; UPDATE join_tokens SET token = repeat('a', 70000)",
            |error| matches!(error, SpireStoreError::TooLong { table: "join_tokens", bytes: 70_000, .. }),
        ),
    ];
    for (change, expected) in cases {
        let (_files, file) = written();
        file.execute("INSERT INTO join_tokens (token, expiry) VALUES ('t', 1)", []).unwrap();
        let database = copied(cluster, &file);
        cluster.sql(&database, change);
        let error = read(cluster, &database).unwrap_err();
        assert!(expected(&error), "{change}: {error:?}");
    }
    let text = "host=/nowhere user=spire dbname=spire";
    let nowhere = Location::Postgres(Box::new(Address::parse(text, KeyExchanges::default()).unwrap()));
    assert!(matches!(spire::read(&nowhere, true), Err(SpireStoreError::Unreachable(_))));
}
