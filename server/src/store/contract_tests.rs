//! What each engine promises; how the tests get at each.

mod change_log;
mod changes;
mod federation;
mod tiers;
mod used_tokens;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ironroot_api::TrustDomain;
use ironroot_api::tls::KeyExchanges;
use ironroot_api::unix_socket::PeerCredentials;
use ironroot_postgres_cluster::Cluster;
use rusqlite::Connection;
use tempfile::TempDir;

use super::{Address, Changed, Facts, Follows, Location, News, Store};
use crate::devices::NewDevice;
use crate::rights::Administrator;

fn administrator() -> Administrator {
    Administrator::local(PeerCredentials { pid: 1, uid: 0, gid: 0 })
}

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

/// An engine of the store. Every test below runs on each of [`ENGINES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Sqlite,
    Postgres,
}

const ENGINES: [Engine; 2] = [Engine::Sqlite, Engine::Postgres];

struct Fixture {
    engine: Engine,
    /// Of SQLite's file.
    directory: TempDir,
    /// PostgreSQL's database.
    database: String,
    store: Store,
}

impl Fixture {
    fn of_each_engine() -> impl Iterator<Item = Self> {
        ENGINES.into_iter().map(|engine| {
            let directory = tempfile::tempdir().expect("temporary directory");
            let database = match engine {
                Engine::Sqlite => String::new(),
                Engine::Postgres => Cluster::shared().create_database(),
            };
            let store = location(engine, &directory, &database).open(&td()).expect("opens");
            Self { engine, directory, database, store }
        })
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("datastore.sqlite3")
    }

    /// A second handle to the same database, as another server would have it.
    fn another(&self) -> Store {
        if self.engine == Engine::Postgres {
            return location(self.engine, &self.directory, &self.database).open(&td()).expect("opens");
        }
        let link = self.directory.path().join("link.sqlite3");
        std::os::unix::fs::symlink(self.path(), &link).expect("linked");
        Store::open(&link, &td()).expect("opens")
    }

    /// Whether servers tell each other of changes, so that what another wrote may be followed at any time.
    fn is_told_by_others(&self) -> bool {
        self.engine == Engine::Postgres
    }

    fn sql(&self, text: &str) {
        match self.engine {
            Engine::Sqlite => Connection::open(self.path()).expect("opens").execute_batch(text).expect(text),
            Engine::Postgres => drop(Cluster::shared().sql(&self.database, text)),
        }
    }

    fn number(&self, query: &str) -> i64 {
        match self.engine {
            Engine::Sqlite => {
                let connection = Connection::open(self.path()).expect("opens");
                connection.query_row(query, [], |row| row.get(0)).expect(query)
            }
            Engine::Postgres => Cluster::shared().sql(&self.database, query).parse().expect(query),
        }
    }

    /// These bytes, hexadecimal, as SQL has them.
    fn bytes(&self, hex: &str) -> String {
        match self.engine {
            Engine::Sqlite => format!("x'{hex}'"),
            Engine::Postgres => format!(r"'\x{hex}'::bytea"),
        }
    }

    /// As where the disk is full whenever an agent's row is written.
    fn fill_for_agents(&self) {
        self.sql(match self.engine {
            Engine::Sqlite => "CREATE TRIGGER full BEFORE UPDATE ON agents BEGIN SELECT RAISE(ABORT, 'full'); END",
            Engine::Postgres => {
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END $$;
                 CREATE TRIGGER is_full BEFORE UPDATE ON agents FOR EACH ROW EXECUTE FUNCTION full_disk()"
            }
        });
    }

    fn free_for_agents(&self) {
        self.sql(match self.engine {
            Engine::Sqlite => "DROP TRIGGER full",
            Engine::Postgres => "DROP TRIGGER is_full ON agents",
        });
    }
}

fn location(engine: Engine, directory: &TempDir, database: &str) -> Location {
    match engine {
        Engine::Sqlite => Location::Sqlite(directory.path().join("datastore.sqlite3")),
        Engine::Postgres => {
            let text = Cluster::shared().connection_string(database);
            Location::Postgres(Box::new(Address::parse(&text, KeyExchanges::default()).expect("taken")))
        }
    }
}

/// What a follower was told, in order; None for everything anew.
type Heard = Arc<Mutex<Vec<Option<Vec<Changed>>>>>;

async fn listen(store: &Store) -> Heard {
    let heard = Heard::default();
    let ear = heard.clone();
    let follower = move |_: &Facts<'_>, news: &News| {
        ear.lock().expect("no panic").push(match news {
            News::Everything => None,
            News::Changes(changes) => Some(changes.clone()),
        });
        Ok(Follows::On)
    };
    store.follow(follower).await.expect("follows");
    heard
}

fn told(heard: &Heard) -> Vec<Option<Vec<Changed>>> {
    std::mem::take(&mut *heard.lock().expect("no panic"))
}

fn entry(id: &str) -> ironroot_api::pb::types::Entry {
    let spiffe_id =
        |path: &str| Some(ironroot_api::pb::types::Spiffeid { trust_domain: "td".into(), path: path.into() });
    let selector = ironroot_api::pb::types::Selector { r#type: "unix".into(), value: "uid:1".into() };
    ironroot_api::pb::types::Entry {
        id: id.into(),
        spiffe_id: spiffe_id(&format!("/{id}")),
        parent_id: spiffe_id("/parent"),
        selectors: vec![selector],
        ..Default::default()
    }
}

fn device(byte: u8) -> NewDevice {
    let ek_sha256 = format!("{byte:02x}").repeat(32);
    NewDevice::from_pb(&ironroot_api::pb::device::NewDevice { ek_sha256, ..Default::default() }).expect("legal")
}
