//! What only a server of its own can do to a store: refuse, vanish, freeze, come back, lose an answer.

mod commits;
mod faults;
mod places;
mod servers;

use ironroot_api::TrustDomain;
use ironroot_api::tls::KeyExchanges;
use ironroot_postgres_cluster::Cluster;

use super::Address;
use crate::facts::agent::AgentRecord;
use crate::store::{Location, Store, StoreError};

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

fn at(connection_string: &str) -> Location {
    let address = Address::parse(connection_string, KeyExchanges::default()).expect("taken");
    Location::Postgres(Box::new(address))
}

fn open(connection_string: &str) -> Store {
    at(connection_string).open(&td()).expect("opens")
}

fn agent(name: &str) -> AgentRecord {
    AgentRecord::example(name)
}

async fn add(store: &Store, name: &'static str) -> Result<(), StoreError> {
    store.change(move |tx| tx.put_agent(&agent(name)).map(drop)).await
}

/// How many agents the database has, asked behind the store's back.
fn agents_of(cluster: &Cluster, database: &str) -> String {
    cluster.sql(database, "SELECT count(*) FROM agents")
}
