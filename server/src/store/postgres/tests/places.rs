//! What there is where a connection string leads, and how its server proves itself.

use super::*;
use crate::store::postgres::database::open_with;
use crate::store::postgres::schema::MIGRATIONS;

fn refusal(database: &str) -> StoreError {
    let place = at(&Cluster::shared().connection_string(database));
    let refused = place.open(&td()).map(drop).expect_err("not ours");
    let recognised = place.recognise(&td()).expect_err("not ours");
    assert_eq!(refused.to_string(), recognised.to_string(), "told before it is opened, too");
    refused
}

#[test]
fn a_database_of_spires_or_of_another_program_is_left_as_it_is() {
    let cluster = Cluster::shared();
    let (spires, others) = (cluster.create_database(), cluster.create_database());
    cluster.sql(&spires, "CREATE TABLE migrations (id INT, version INT, code_version TEXT)");
    cluster.sql(&others, "CREATE TABLE invoices (id INT)");
    assert!(matches!(refusal(&spires), StoreError::Spire));
    assert!(matches!(refusal(&others), StoreError::NotOurs));
    for database in [spires, others] {
        let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
        assert_eq!(cluster.sql(&database, tables), "1", "nothing was added");
    }
}

#[test]
fn a_database_of_another_trust_domain_is_refused() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let place = at(&cluster.connection_string(&database));
    place.open(&TrustDomain::new("other").expect("legal")).expect("founded");
    let refused = refusal(&database);
    let StoreError::OtherTrustDomain { found, expected } = refused else { panic!("{refused}") };
    assert_eq!((&found[..], &expected[..]), ("other", "td"));
}

//= FLT-S22
#[test]
fn older_tables_are_migrated_and_newer_ones_refused() {
    const NEXT: &str = "ALTER TABLE about ADD COLUMN extra TEXT";
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let text = cluster.connection_string(&database);
    let address = Address::parse(&text, KeyExchanges::default()).expect("taken");
    open_with(&address, &td(), MIGRATIONS).expect("founded");
    let newer = [MIGRATIONS, &[NEXT]].concat();
    let broken = [MIGRATIONS, &[NEXT, "CREATE TABLE about (x INT)"]].concat();
    assert!(matches!(open_with(&address, &td(), &broken), Err(StoreError::Sql(_))));
    assert_eq!(cluster.sql(&database, "SELECT version FROM ironroot_schema"), MIGRATIONS.len().to_string());
    open_with(&address, &td(), &newer).expect("migrates");
    let known = MIGRATIONS.len() as i64;
    let refused = refusal(&database);
    assert!(matches!(refused, StoreError::NewerSchema { found, known: k, .. } if found == known + 1 && k == known));
    let text = refused.to_string();
    assert!(text.contains("pg_restore") && !text.contains("copy"), "an upgrade leaves no copy here: {text}");
}

#[tokio::test]
async fn two_that_found_the_same_database_at_once_find_one() {
    let cluster = Cluster::shared();
    let text = cluster.connection_string(&cluster.create_database());
    let opening = (0..4).map(|_| {
        let text = text.clone();
        tokio::task::spawn_blocking(move || open(&text))
    });
    for opened in futures_util::future::join_all(opening).await {
        let store = opened.expect("no panic");
        assert_eq!(store.change(|tx| tx.revision()).await.expect("reads"), 1);
    }
}

#[tokio::test]
async fn over_tls_the_server_proves_its_name_or_is_not_spoken_to() {
    let cluster = Cluster::shared();
    let text = cluster.connection_string_over_tls(&cluster.create_database());
    add(&open(&text), "a").await.expect("writes");
    let other_authority = Cluster::start();
    let wrong =
        text.replace(cluster.roots().to_str().expect("UTF-8"), other_authority.roots().to_str().expect("UTF-8"));
    for (wrong, why) in [
        (wrong, "UnknownIssuer"),
        (text.replace("localhost", "127.0.0.1"), "not valid for name"),
        (text.replace("pass word", "guess"), "password authentication failed"),
        (text.replace("dbname=db", "dbname=none"), "does not exist"),
        (text.replace(cluster.roots().to_str().expect("UTF-8"), "/none.pem"), "/none.pem"),
    ] {
        let refused = at(&wrong).open(&td()).map(drop).expect_err("refused");
        let told = ironroot_shell::describe(&refused);
        assert!(matches!(refused, StoreError::Unreachable(_)) && told.contains(why), "{told}");
        assert!(!told.contains("pass word"), "{told}");
    }
}

#[tokio::test]
async fn the_next_host_is_asked_if_one_is_silent_or_not_there() {
    let cluster = Cluster::shared();
    let text = cluster.connection_string_over_tls(&cluster.create_database());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    let ports = [&silent, &closed].map(|listener| listener.local_addr().expect("bound").port());
    drop(closed);
    let hosts = format!("host=localhost,localhost,localhost port={},{},{}", ports[0], ports[1], cluster.port());
    let text = text.replace(&format!("host=localhost port={}", cluster.port()), &hosts);
    add(&open(&text), "a").await.expect("writes");
}
