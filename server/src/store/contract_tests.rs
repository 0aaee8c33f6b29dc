//! What each engine promises; how the tests get at each.

mod change_log;
mod changes;
mod federation;
mod tiers;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ironroot_api::TrustDomain;
use ironroot_api::unix_socket::PeerCredentials;
use rusqlite::Connection;
use tempfile::TempDir;

use super::{Changed, Facts, Follows, News, Store};
use crate::devices::NewDevice;
use crate::rights::{Administrator, Caller};

fn administrator() -> Administrator {
    Administrator::judge(Caller::Local(PeerCredentials { pid: 1, uid: 0, gid: 0 }), |_| false, 0).expect("local")
}

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

/// An engine of the store. Every test below runs on each of [`ENGINES`].
#[derive(Clone, Copy, Debug)]
enum Engine {
    Sqlite,
}

const ENGINES: [Engine; 1] = [Engine::Sqlite];

struct Fixture {
    directory: TempDir,
    store: Store,
}

impl Fixture {
    fn of_each_engine() -> impl Iterator<Item = Self> {
        ENGINES.into_iter().map(|engine| match engine {
            Engine::Sqlite => {
                let directory = tempfile::tempdir().expect("temporary directory");
                let store = Store::open(&directory.path().join("datastore.sqlite3"), &td()).expect("opens");
                Self { directory, store }
            }
        })
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("datastore.sqlite3")
    }

    /// A second handle to the same database, as another server would have it.
    fn another(&self) -> Store {
        let link = self.directory.path().join("link.sqlite3");
        std::os::unix::fs::symlink(self.path(), &link).expect("linked");
        Store::open(&link, &td()).expect("opens")
    }

    fn sql(&self, text: &str) {
        Connection::open(self.path()).expect("opens").execute_batch(text).expect(text);
    }

    fn number(&self, query: &str) -> i64 {
        let connection = Connection::open(self.path()).expect("opens");
        connection.query_row(query, [], |row| row.get(0)).expect(query)
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
