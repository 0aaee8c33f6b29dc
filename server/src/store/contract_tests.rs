//! What each engine promises: the change log and those who follow it, and that a token is taken once.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ironroot_api::TrustDomain;
use ironroot_api::unix_socket::PeerCredentials;
use rusqlite::Connection;
use tempfile::TempDir;

use super::feed::PAGE;
use super::sqlite::MAX_CHANGES;
use super::{Changed, Follows, News, ShownToken, Store, StoreError};
use crate::devices::{DuplicateSerials, NewDevice};
use crate::facts::agent::AgentRecord;
use crate::facts::device::DeviceState;
use crate::registry::{AgentStanding, Registry};
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
    let follower = move |_: &super::Facts<'_>, news: &News| {
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

/// One whose certificate has serial 1.
fn agent(name: &str, ek_sha256: Option<[u8; 32]>) -> AgentRecord {
    AgentRecord {
        spiffe_id: td().id_with_path(&format!("/spire/agent/{name}")).expect("legal"),
        attestation_type: "test".into(),
        serial: "1".into(),
        not_after: 9,
        new_serial: String::new(),
        new_not_after: 0,
        can_reattest: true,
        banned: false,
        selectors: Default::default(),
        agent_version: String::new(),
        ek_sha256,
    }
}

async fn journal(store: &Store) {
    store.put_ca_journal("", b"journal".to_vec()).await.expect("writes");
}

#[tokio::test]
async fn each_transaction_logs_the_facts_that_it_changed_and_tells_them_before_its_caller_goes_on() {
    for fixture in Fixture::of_each_engine() {
        let heard = listen(&fixture.store).await;
        assert_eq!(told(&heard), [None], "everything at first");
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        registry.create_entry(&administrator(), &entry("e"), 1).await.expect("creates");
        assert_eq!(told(&heard), [Some(vec![Changed::Entry("e".into())])]);
        registry.update_entry(&administrator(), &entry("e"), None).await.expect("updates");
        assert_eq!(told(&heard), [Some(vec![Changed::Entry("e".into())])]);
        registry.delete_entry(&administrator(), "e").await.expect("deletes");
        assert_eq!(told(&heard), [Some(vec![Changed::Entry("e".into())])]);
        let devices = vec![device(1), device(2)];
        registry
            .devices()
            .import(&administrator(), devices.clone(), DuplicateSerials::Refused, 1)
            .await
            .expect("imports");
        assert_eq!(told(&heard), [Some(vec![Changed::Device([1; 32]), Changed::Device([2; 32])])]);
        registry.devices().import(&administrator(), devices, DuplicateSerials::Refused, 1).await.expect("imports");
        assert_eq!(told(&heard), [], "what changes nothing is not logged");
        journal(&fixture.store).await;
        assert_eq!(told(&heard), [Some(vec![Changed::CaJournal])]);
        registry.create_join_token(&administrator(), "secret", 9, None, 1).await.expect("creates");
        fixture.store.take_join_token("secret", 1).await.expect("takes");
        assert_eq!(told(&heard), [], "tokens are secrets that nothing mirrors");
    }
}

#[tokio::test]
async fn a_change_that_fails_leaves_nothing_in_the_log() {
    for fixture in Fixture::of_each_engine() {
        let before = fixture.number("SELECT max(revision) FROM changes");
        let failing = fixture.store.change(|tx| {
            tx.put_ca_journal("", b"x")?;
            Err::<(), _>(StoreError::Closed)
        });
        assert!(failing.await.is_err());
        assert_eq!(fixture.number("SELECT max(revision) FROM changes"), before);
        assert_eq!(fixture.number("SELECT revision FROM revision"), before);
    }
}

#[tokio::test]
async fn revisions_have_no_gaps_and_one_id_for_each_commit() {
    for fixture in Fixture::of_each_engine() {
        for _ in 0..5 {
            journal(&fixture.store).await;
        }
        assert_eq!(fixture.number("SELECT count(*) FROM changes"), 6);
        assert_eq!(fixture.number("SELECT max(revision) FROM changes"), 6);
        assert_eq!(fixture.number("SELECT count(DISTINCT id) FROM changes"), 6);
    }
}

#[tokio::test]
async fn what_another_handle_wrote_is_followed_at_the_next_commit_or_probe() {
    for fixture in Fixture::of_each_engine() {
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        let another = fixture.another();
        let theirs = Registry::load(another.clone()).await.expect("loads");
        theirs.create_entry(&administrator(), &entry("theirs"), 1).await.expect("creates");
        assert!(registry.entry("theirs").is_none(), "not yet");
        fixture.store.probe().await.expect("probes");
        assert!(registry.entry("theirs").is_some());
        theirs.delete_entry(&administrator(), "theirs").await.expect("deletes");
        registry.create_entry(&administrator(), &entry("ours"), 1).await.expect("creates");
        assert!(registry.entry("theirs").is_none(), "an own commit follows what came before it, too");
        another.probe().await.expect("probes");
        assert!(theirs.entry("ours").is_some());
    }
}

#[tokio::test]
async fn a_journal_that_any_server_writes_is_told() {
    for fixture in Fixture::of_each_engine() {
        let mut changes = fixture.store.ca_journal_changes().await.expect("follows");
        changes.mark_unchanged();
        journal(&fixture.store).await;
        assert!(changes.has_changed().expect("open"), "marked when its writer goes on");
        changes.mark_unchanged();
        let another = fixture.another();
        another.put_ca_journal("another", b"journal".to_vec()).await.expect("writes");
        Registry::load(another)
            .await
            .expect("loads")
            .create_entry(&administrator(), &entry("e"), 1)
            .await
            .expect("creates");
        assert!(!changes.has_changed().expect("open"), "not followed yet");
        fixture.store.probe().await.expect("probes");
        assert!(changes.has_changed().expect("open"));
        changes.mark_unchanged();
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        registry.delete_entry(&administrator(), "e").await.expect("deletes");
        assert!(!changes.has_changed().expect("open"), "an entry is no journal");
    }
}

#[tokio::test]
async fn the_log_is_bounded_and_a_follower_that_missed_what_was_pruned_reads_everything() {
    for fixture in Fixture::of_each_engine() {
        let heard = listen(&fixture.store).await;
        let another = fixture.another();
        let many = MAX_CHANGES + 5;
        let note_many = another.change(move |tx| (0..many).try_for_each(|_| tx.put_ca_journal("", b"x")));
        note_many.await.expect("writes");
        assert_eq!(fixture.number("SELECT count(*) FROM changes"), MAX_CHANGES);
        assert_eq!(fixture.number("SELECT max(revision) FROM changes"), many + 1);
        told(&heard);
        fixture.store.probe().await.expect("probes");
        assert_eq!(told(&heard), [None]);
        journal(&fixture.store).await;
        assert_eq!(told(&heard), [Some(vec![Changed::CaJournal])], "and goes on from there");
    }
}

#[tokio::test]
async fn a_long_log_is_taken_in_page_by_page_and_each_fact_once() {
    for fixture in Fixture::of_each_engine() {
        let heard = listen(&fixture.store).await;
        let another = fixture.another();
        let many = PAGE as i64 * 2 + 1;
        another.change(move |tx| (0..many).try_for_each(|_| tx.put_ca_journal("", b"x"))).await.expect("writes");
        told(&heard);
        fixture.store.probe().await.expect("probes");
        assert_eq!(told(&heard), vec![Some(vec![Changed::CaJournal]); 3]);
        fixture.store.probe().await.expect("probes");
        assert_eq!(told(&heard), []);
    }
}

#[tokio::test]
async fn a_database_that_was_put_back_is_read_anew_even_if_its_revisions_were_issued_again() {
    for fixture in Fixture::of_each_engine() {
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        registry.create_entry(&administrator(), &entry("lost"), 1).await.expect("creates");
        let heard = listen(&fixture.store).await;
        told(&heard);
        // As after a failover that lost the last commit: the same number, another change.
        fixture.sql(
            "DELETE FROM entries; UPDATE changes SET id = randomblob(16), kind = 'ca', key = x''
         WHERE revision = (SELECT max(revision) FROM changes)",
        );
        fixture.store.probe().await.expect("probes");
        assert_eq!(told(&heard), [None]);
        assert!(registry.entry("lost").is_none());
        // And as after one that lost several: the numbers end before our place.
        registry.create_entry(&administrator(), &entry("again"), 1).await.expect("creates");
        told(&heard);
        fixture.sql("DELETE FROM entries; DELETE FROM changes WHERE revision > 1; UPDATE revision SET revision = 1");
        fixture.store.probe().await.expect("probes");
        assert_eq!(told(&heard), [None]);
        assert_eq!(registry.count_entries(&Default::default()), 0);
    }
}

#[tokio::test]
async fn a_follower_that_fails_is_trouble_and_is_told_the_same_again() {
    for fixture in Fixture::of_each_engine() {
        let works = Arc::new(Mutex::new(true));
        let (heard, switch) = (Arc::new(Mutex::new(0)), works.clone());
        let count = heard.clone();
        let follower = move |_: &super::Facts<'_>, _: &News| {
            *count.lock().expect("no panic") += 1;
            if *switch.lock().expect("no panic") { Ok(Follows::On) } else { Err(StoreError::Locked) }
        };
        fixture.store.follow(follower).await.expect("follows");
        let sound = listen(&fixture.store).await;
        told(&sound);
        *works.lock().expect("no panic") = false;
        let refused = fixture.store.put_ca_journal("", b"journal".to_vec()).await;
        assert!(matches!(refused, Err(StoreError::Locked)), "whoever asked is not told that it is in force");
        assert!(fixture.store.trouble().is_some());
        assert_eq!(told(&sound), [Some(vec![Changed::CaJournal])], "the others go on");
        *works.lock().expect("no panic") = true;
        fixture.store.probe().await.expect("probes");
        assert_eq!(*heard.lock().expect("no panic"), 3, "at first, in vain, and again");
        assert!(fixture.store.trouble().is_none());
    }
}

#[tokio::test]
async fn a_follower_whose_memory_is_gone_is_let_go() {
    for fixture in Fixture::of_each_engine() {
        let kept = Arc::new(());
        let guest = Arc::downgrade(&kept);
        let follower = {
            let held = kept.clone();
            move |_: &super::Facts<'_>, news: &News| {
                let _ = &held;
                Ok(if matches!(news, News::Everything) { Follows::On } else { Follows::Ended })
            }
        };
        fixture.store.follow(follower).await.expect("follows");
        drop(kept);
        journal(&fixture.store).await;
        assert!(guest.upgrade().is_none(), "it was dropped with what it held");
    }
}

#[test]
fn a_log_without_its_newest_row_is_no_log() {
    for fixture in Fixture::of_each_engine() {
        fixture.sql("DELETE FROM changes");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let refused = runtime.block_on(fixture.store.follow(|_, _| Ok(Follows::On)));
        assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_device_is_banned_with_all_its_agents_or_not_at_all() {
    for fixture in Fixture::of_each_engine() {
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        let agents = [agent("a", Some([1; 32])), agent("b", Some([1; 32])), agent("c", Some([2; 32]))];
        let devices = registry.devices();
        devices.import(&administrator(), vec![device(1)], DuplicateSerials::Refused, 1).await.expect("imports");
        let all = agents.clone();
        let add = fixture.store.change(move |tx| all.iter().try_for_each(|agent| tx.put_agent(agent).map(drop)));
        add.await.expect("adds");
        let heard = listen(&fixture.store).await;
        told(&heard);
        let standing = |of: &AgentRecord| registry.agent_standing(&of.spiffe_id, "1");
        // As where the disk is full just then.
        fixture.sql("CREATE TRIGGER full BEFORE UPDATE ON agents BEGIN SELECT RAISE(ABORT, 'full'); END");
        devices.ban(&administrator(), &[1; 32], 5).await.expect_err("no room");
        assert_eq!(devices.device(&[1; 32]).expect("known").state, DeviceState::Enrolled);
        assert_eq!(agents.each_ref().map(standing), [AgentStanding::Active; 3]);
        assert_eq!(told(&heard), []);
        fixture.sql("DROP TRIGGER full");
        let banned = devices.ban(&administrator(), &[1; 32], 5).await.expect("bans");
        let ids = agents.each_ref().map(|agent| agent.spiffe_id.clone());
        assert_eq!((banned.device.state, &banned.agents[..]), (DeviceState::Banned, &ids[..2]));
        let (banned, active) = (AgentStanding::Banned, AgentStanding::Active);
        assert_eq!(agents.each_ref().map(standing), [banned, banned, active], "another chip's agent goes on");
        let [a, b, _] = ids.map(Changed::Agent);
        assert_eq!(told(&heard), [Some(vec![Changed::Device([1; 32]), a, b])], "one commit");
    }
}

//= FLT-S3
#[tokio::test]
async fn of_a_hundred_redemptions_of_one_token_exactly_one_wins() {
    for fixture in Fixture::of_each_engine() {
        let registry = Registry::load(fixture.store.clone()).await.expect("loads");
        registry.create_join_token(&administrator(), "once", 100, None, 0).await.expect("adds");
        let takes = (0..100).map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.take_join_token("once", 99).await.expect("store works") })
        });
        let taken = futures_util::future::join_all(takes.collect::<Vec<_>>()).await;
        let (won, lost): (Vec<_>, Vec<_>) =
            taken.into_iter().map(|taken| taken.expect("no panic")).partition(|shown| *shown == ShownToken::Taken);
        assert_eq!((won.len(), lost), (1, vec![ShownToken::Unknown; 99]));
        assert_eq!(fixture.store.take_join_token("once", 99).await.expect("store works"), ShownToken::Unknown);
    }
}
