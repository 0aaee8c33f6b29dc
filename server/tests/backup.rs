//! A backup is whole or not there, opens for whom it is sealed to, and is put back as a whole or not at all.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_fuzz::Target as FuzzTarget;
use ironroot_server::backup::{
    Authorities, BackupError, CHUNK_BYTES, FORMAT, MAX_MANIFEST_BYTES, OpenBackup, OperatorKey, OperatorPublicKey,
    RestoreReport, Source, Target, make,
};
use ironroot_server::ca::{Journal, ServerName};
use ironroot_server::facts::agent::AgentRecord;
use ironroot_server::store::{Location, ShownToken, Store, StoreError};
use tempfile::TempDir;

const NOW: i64 = 1_800_000_000;

/// A directory with a database, a key file and the operator's keys.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("directory"));
        for operator in ["operator", "other"] {
            let key = place.at(&format!("{operator}.key"));
            openssl(&["genpkey", "-algorithm", "X25519", "-out", key.to_str().expect("UTF-8")]);
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("mode");
            let public = place.at(&format!("{operator}.pub"));
            let [key, public] = [&key, &public].map(|path| path.to_str().expect("UTF-8"));
            openssl(&["pkey", "-in", key, "-pubout", "-out", public]);
        }
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn database(&self) -> PathBuf {
        self.at("datastore.sqlite3")
    }

    fn store(&self) -> Store {
        Store::open(&self.database(), &trust_domain()).expect("opened")
    }

    /// Has the database say so.
    async fn change(&self, token: &str, banned: &[&str]) {
        let store = self.store();
        let (token, banned) = (token.to_owned(), banned.iter().map(|name| agent(name)).collect::<Vec<_>>());
        let change = move |tx: &ironroot_server::store::Transaction<'_>| {
            tx.add_join_token(&token, i64::MAX)?;
            banned.iter().try_for_each(|agent| tx.put_agent(agent).map(drop))
        };
        store.change::<_, StoreError>(change).await.expect("changed");
        store.close().await;
    }

    fn source(&self) -> Source {
        Source {
            trust_domain: trust_domain(),
            server_name: ServerName::default(),
            data_store: Location::Sqlite(self.database()),
            key_file: Some(self.at("keys.json")),
        }
    }

    fn target(&self) -> Target {
        let (data_store, key_file) = (Location::Sqlite(self.database()), Some(self.at("keys.json")));
        Target { trust_domain: trust_domain(), data_store, key_file }
    }

    fn public(&self) -> OperatorPublicKey {
        OperatorPublicKey::read(&self.at("operator.pub")).expect("key")
    }

    fn key(&self, of: &str) -> OperatorKey {
        OperatorKey::read(&self.at(&format!("{of}.key"))).expect("key")
    }

    fn backup(&self, name: &str, seal: bool) -> PathBuf {
        let file = self.at(name);
        make(&self.source(), &file, seal.then(|| self.public()).as_ref(), NOW).expect("made");
        file
    }

    /// What reading all of `file` says against it.
    fn refusal(&self, file: &Path, key: Option<&OperatorKey>) -> BackupError {
        let looked = OpenBackup::open(file, key, self.target()).and_then(looked);
        looked.map(|report| report.to_string()).expect_err("refused")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("listed");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }
}

/// What a look at it says, also beside another runtime.
fn looked(backup: OpenBackup<'_>) -> Result<RestoreReport, BackupError> {
    let look = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(backup.look())
    };
    std::thread::scope(|scope| scope.spawn(look).join().expect("no panic"))
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("example.org").expect("legal")
}

fn agent(name: &str) -> AgentRecord {
    AgentRecord {
        spiffe_id: SpiffeId::parse(&format!("spiffe://example.org/spire/agent/{name}")).expect("legal"),
        attestation_type: "x".into(),
        serial: String::new(),
        not_after: 0,
        new_serial: String::new(),
        new_not_after: 0,
        can_reattest: false,
        banned: true,
        selectors: Default::default(),
        agent_version: String::new(),
        ek_sha256: None,
        certificate_sha256: None,
    }
}

async fn banned(store: &Store) -> Vec<String> {
    let agents = store.change::<_, StoreError>(|tx| tx.agents()).await.expect("read");
    agents.into_iter().filter(|(_, agent)| agent.banned).map(|(_, agent)| agent.spiffe_id.to_string()).collect()
}

#[test]
fn looks_at_the_same_time_do_not_take_each_others_copies_away() {
    let place = Place::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(place.change("before", &["a"]));
    let file = place.backup("b", false);
    let open = || OpenBackup::open(&file, None, place.target()).expect("opens");
    let look = || looked(open()).map(|report| (report.backup, report.origin)).expect("whole");
    let expected = look();
    let before = place.names();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..8).for_each(|_| assert_eq!(look(), expected)));
        }
    });
    assert_eq!(place.names(), before, "nothing is left");
}

//= FLT-S5
#[tokio::test]
async fn what_is_put_back_is_what_there_was_but_bans_stay_and_join_tokens_are_burnt() {
    for seal in [false, true] {
        let place = Place::new();
        fs::write(place.at("keys.json"), "{\"keys\":{}}").expect("written");
        fs::set_permissions(place.at("keys.json"), fs::Permissions::from_mode(0o600)).expect("mode");
        place.change("before", &["a"]).await;
        let file = place.backup("b", seal);
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        place.change("after", &["b"]).await;
        let key = seal.then(|| place.key("operator"));
        let open = || OpenBackup::open(&file, key.as_ref(), place.target()).expect("opens");

        let looked = open().look().await.expect("whole");
        assert_eq!((looked.backup.datastore.join_tokens, looked.backup.made_at, looked.sealed), (1, NOW, seal));
        assert_eq!(looked.replaced.as_ref().map(|there| there.join_tokens), Some(2));
        let nowhere = Target { data_store: Location::Sqlite(place.at("none/yet")), ..place.target() };
        let elsewhere = OpenBackup::open(&file, key.as_ref(), nowhere).expect("opens").look().await.expect("whole");
        assert_eq!((elsewhere.backup, elsewhere.replaced), (looked.backup, None));
        let before = place.names();
        let report = open().restore(NOW, false).await.expect("restored");
        let carried = report.carried.as_ref().expect("carried over");
        assert_eq!(carried.banned_agents, ["spiffe://example.org/spire/agent/b"]);
        assert_eq!(carried.burnt_join_tokens, 1);
        let added: Vec<_> = place.names().into_iter().filter(|name| !before.contains(name)).collect();
        let keys_aside = seal.then_some("keys.json.replaced");
        let wanted: Vec<_> = ["datastore.sqlite3.replaced"].into_iter().chain(keys_aside).collect();
        assert_eq!(added, wanted, "nothing else is left");

        let store = place.store();
        let banned = banned(&store).await;
        assert_eq!(banned.len(), 2, "{banned:?}");
        for token in ["before", "after"] {
            assert_eq!(store.join_token(token, NOW).await.expect("read"), ShownToken::Unknown, "{token}");
        }
        store.close().await;
    }
}

#[tokio::test]
async fn the_ban_of_a_certificate_that_has_another_id_in_the_backup_comes_along_and_holds_for_both() {
    let place = Place::new();
    let put = async |agent: AgentRecord| {
        let store = place.store();
        store.change::<_, StoreError>(move |tx| tx.put_agent(&agent).map(drop)).await.expect("put");
        store.close().await;
    };
    let of = |name: &str| AgentRecord { certificate_sha256: Some([7; 32]), ..agent(name) };
    put(AgentRecord { banned: false, serial: "1".into(), ..of("first") }).await;
    let file = place.backup("b", false);
    // Evicted since, back under another ID, and banned there.
    put(AgentRecord { certificate_sha256: None, banned: false, ..of("first") }).await;
    put(of("second")).await;
    let open = OpenBackup::open(&file, None, place.target()).expect("opens");
    let report = open.restore(NOW, false).await.expect("restored");
    assert_eq!(report.carried.expect("carried over").banned_agents, ["spiffe://example.org/spire/agent/second"]);
    let store = place.store();
    assert_eq!(banned(&store).await.len(), 2);
    let who = store.change::<_, StoreError>(|tx| tx.agent_with_certificate(&[7; 32])).await.expect("read");
    assert!(who.expect("known by its certificate").banned);
    store.close().await;
}

#[tokio::test]
async fn a_key_file_is_in_a_sealed_backup_alone_and_goes_where_the_configuration_says() {
    let place = Place::new();
    fs::write(place.at("keys.json"), "secret").expect("written");
    fs::set_permissions(place.at("keys.json"), fs::Permissions::from_mode(0o600)).expect("mode");
    place.change("t", &[]).await;
    let (plain, sealed) = (place.backup("plain", false), place.backup("sealed", true));
    let holds = |file: &Path| fs::read(file).expect("read").windows(6).any(|bytes| bytes == b"secret");
    assert!(!holds(&plain) && !holds(&sealed));
    fs::remove_file(place.at("keys.json")).expect("lost");
    let key = place.key("operator");
    let nowhere = Target { key_file: None, ..place.target() };
    let refused = OpenBackup::open(&sealed, Some(&key), nowhere).err().expect("refused");
    assert!(matches!(refused, BackupError::NoPlaceForKeys), "{refused}");
    OpenBackup::open(&sealed, Some(&key), place.target()).expect("opens").restore(NOW, false).await.expect("restored");
    assert_eq!(fs::read(place.at("keys.json")).expect("there"), b"secret");
    assert_eq!(fs::metadata(place.at("keys.json")).expect("there").permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_is_no_whole_backup_of_ours_is_refused_by_name() {
    let place = Place::new();
    place.change("t", &[]).await;
    let (plain, sealed) = (place.backup("plain", false), place.backup("sealed", true));
    let (key, other) = (place.key("operator"), place.key("other"));
    assert!(matches!(place.refusal(&sealed, None), BackupError::Sealed { .. }));
    assert!(matches!(place.refusal(&sealed, Some(&other)), BackupError::OtherKey { .. }));
    assert!(matches!(make(&place.source(), &plain, None, NOW), Err(BackupError::Exists(_))));
    assert!(matches!(place.refusal(&place.database(), None), BackupError::NotABackup(_)));
    assert!(matches!(place.refusal(place.0.path(), None), BackupError::NotABackup(_)));
    assert!(matches!(place.refusal(&place.at("absent"), None), BackupError::Io { .. }));
    let elsewhere = Target { trust_domain: TrustDomain::new("other.org").expect("legal"), ..place.target() };
    let refused = OpenBackup::open(&plain, None, elsewhere).err().expect("refused");
    assert!(matches!(refused, BackupError::OtherTrustDomain { .. }), "{refused}");

    let bytes = fs::read(&plain).expect("read");
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    let refusal_of = |bytes: &[u8]| {
        fs::write(place.at("broken"), bytes).expect("written");
        place.refusal(&place.at("broken"), None)
    };
    let newer = refusal_of(&with(16, &(FORMAT + 1).to_be_bytes()));
    assert!(matches!(newer, BackupError::NewerFormat { found, .. } if found == FORMAT + 1), "{newer}");
    assert!(matches!(refusal_of(&with(16, &0_u32.to_be_bytes())), BackupError::Damaged { .. }));
    assert!(matches!(refusal_of(&with(20, &(MAX_MANIFEST_BYTES + 1).to_be_bytes())), BackupError::Damaged { .. }));
    assert!(matches!(refusal_of(&with(60, b"x")), BackupError::Damaged { .. }), "the manifest");
    assert!(matches!(refusal_of(&with(bytes.len() - 1, b"x")), BackupError::Damaged { .. }), "the database");
    assert!(matches!(refusal_of(&[&bytes[..], b"x"].concat()), BackupError::Damaged { .. }), "more behind it");
    for end in [20, 40, 100, bytes.len() / 2, bytes.len() - 1] {
        assert!(matches!(refusal_of(&bytes[..end]), BackupError::Truncated(_)), "{end}");
    }

    let bytes = fs::read(&sealed).expect("read");
    let chunk = CHUNK_BYTES + 16;
    let body = 16 + 4 + 32 + 32;
    let mut swapped = bytes.clone();
    assert!(bytes.len() > body + 2 * chunk, "of three chunks at least");
    let (one, two) = swapped[body..body + 2 * chunk].split_at_mut(chunk);
    one.swap_with_slice(two);
    let mut flipped = bytes.clone();
    flipped[body + chunk + 7] ^= 1;
    for changed in [&swapped, &flipped, &bytes[..body + chunk], &bytes[..body + 2 * chunk], &bytes[..bytes.len() - 1]] {
        fs::write(place.at("broken"), changed).expect("written");
        let refused = place.refusal(&place.at("broken"), Some(&key));
        assert!(matches!(refused, BackupError::DoesNotOpen(_) | BackupError::Truncated(_)), "{refused}");
    }
    assert!(place.names().iter().all(|name| !name.contains("restored") && !name.ends_with(".part")));
}

#[tokio::test]
async fn a_restore_waits_for_no_server_to_end_and_changes_nothing_while_one_runs() {
    let place = Place::new();
    place.change("t", &["a"]).await;
    let file = place.backup("b", false);
    let store = place.store();
    let refused =
        OpenBackup::open(&file, None, place.target()).expect("opens").restore(NOW, false).await.expect_err("refused");
    assert!(matches!(refused, BackupError::Running(_)), "{refused}");
    assert_eq!(store.join_token("t", NOW).await.expect("read"), ShownToken::Good);
    store.close().await;
}

#[tokio::test]
async fn what_one_restore_has_replaced_outlives_the_next_ones_until_nobody_looks_through_them() {
    let place = Place::new();
    place.change("t", &["a"]).await;
    let file = place.backup("b", false);
    place.change("u", &["b"]).await;
    let restore = async || OpenBackup::open(&file, None, place.target()).expect("opens").restore(NOW, false).await;
    let tokens = |name: &str| {
        let there = Location::Sqlite(place.at(name)).summary(&trust_domain());
        there.expect("read").map(|there| there.join_tokens)
    };
    restore().await.expect("restored");
    assert_eq!(tokens("datastore.sqlite3.replaced"), Some(2), "the newest there was");
    for _ in 0..9 {
        restore().await.expect("restored");
        assert_eq!(tokens("datastore.sqlite3.replaced.1"), Some(2), "and still");
    }
    let before = place.names();
    let refused = restore().await.expect_err("nine are kept");
    assert!(
        matches!(&refused, BackupError::Place(error) if format!("{error:?}").contains("nobody needs")),
        "{refused:?}"
    );
    assert_eq!(place.names(), before);
    place.store().close().await;
    fs::remove_file(place.at("datastore.sqlite3.replaced.4")).expect("removed");
    restore().await.expect("there is room for one");
    assert_eq!(tokens("datastore.sqlite3.replaced.1"), Some(2));
}

#[tokio::test]
async fn a_restore_that_was_cut_off_between_two_files_keeps_servers_from_starting_until_it_is_done_again() {
    let place = Place::new();
    place.change("t", &["a"]).await;
    let file = place.backup("b", false);
    place.change("u", &["b"]).await;
    // As a cut leaves it: the old database aside, nothing in its place yet.
    fs::write(place.at("datastore.sqlite3.restoring"), "").expect("written");
    fs::rename(place.database(), place.at("datastore.sqlite3.replaced")).expect("moved");
    let refused = Store::open(&place.database(), &trust_domain()).expect_err("refused");
    assert!(matches!(refused, StoreError::RestoreCutOff(_)), "{refused}");
    let report =
        OpenBackup::open(&file, None, place.target()).expect("opens").restore(NOW, false).await.expect("restored");
    assert_eq!(report.carried.expect("carried").banned_agents.len(), 1, "of the database that is aside");
    let store = place.store();
    assert_eq!(banned(&store).await.len(), 2);
    store.close().await;
}

#[tokio::test]
async fn a_restore_that_is_done_again_takes_the_newer_ca_with_the_keys_of_here_and_with_no_others() {
    const NEITHER: &[&str] = &[];
    // Which files the cut-off restore had found, and what it leaves beside the database; and whose keys and CA there are in the end.
    for (had_found, left, authorities, keys_after) in [
        (NEITHER, &[("keys.json", "of the backup")][..], Authorities::OfBackup, "of the backup"),
        (&["keys.json"], &[("keys.json", "of here")], Authorities::OfHere, "of here"),
        (
            &["keys.json"],
            &[("keys.json", "of another backup"), ("keys.json.replaced", "of here")],
            Authorities::OfBackup,
            "of the backup",
        ),
        (&["keys.json"], &[("keys.json.replaced", "of here")], Authorities::OfBackup, "of the backup"),
    ] {
        let place = Place::new();
        let write = |name: &str, content: &str| {
            fs::write(place.at(name), content).expect("written");
            fs::set_permissions(place.at(name), fs::Permissions::from_mode(0o600)).expect("mode");
        };
        write("keys.json", "of the backup");
        place.change("t", &["a"]).await;
        let (file, key) = (place.backup("b", true), place.key("operator"));
        let store = place.store();
        let journal = Journal::new(&trust_domain(), &ServerName::default()).to_bytes();
        store.change::<_, StoreError>(move |tx| tx.put_ca_journal("", &journal)).await.expect("a CA of here");
        store.close().await;
        fs::remove_file(place.at("keys.json")).expect("removed");
        left.iter().for_each(|(name, content)| write(name, content));
        fs::rename(place.database(), place.at("datastore.sqlite3.replaced")).expect("moved");
        let names: String = had_found.iter().map(|name| format!("{}\0", place.at(name).display())).collect();
        fs::write(place.at("datastore.sqlite3.restoring"), names).expect("written");
        let report = OpenBackup::open(&file, Some(&key), place.target()).expect("opens").restore(NOW, false).await;
        let carried = report.expect("restored").carried.expect("carried");
        assert_eq!(carried.authorities, authorities, "{left:?}");
        assert_eq!(fs::read_to_string(place.at("keys.json")).expect("read"), keys_after, "{left:?}");
        if left.iter().any(|(name, _)| name.ends_with(".replaced")) {
            assert_eq!(fs::read_to_string(place.at("keys.json.replaced")).expect("kept"), "of here");
        }
    }
}

#[tokio::test]
async fn a_restore_that_was_cut_off_between_a_database_and_its_log_loses_nothing_of_what_was_committed() {
    for [database_at, log_at] in [
        ["datastore.sqlite3.replaced", "datastore.sqlite3-wal"],
        ["datastore.sqlite3", "datastore.sqlite3.replaced-wal"],
        ["datastore.sqlite3", "datastore.sqlite3-wal"],
        ["datastore.sqlite3.replaced", "datastore.sqlite3.replaced-wal"],
    ] {
        let place = Place::new();
        place.change("t", &["a"]).await;
        let file = place.backup("b", false);
        let store = place.store();
        store.change::<_, StoreError>(|tx| tx.put_agent(&agent("b")).map(drop)).await.expect("changed");
        // As a server that is killed leaves them: the newest change is in the log alone.
        let left = ["datastore.sqlite3", "datastore.sqlite3-wal"].map(|name| fs::read(place.at(name)).expect("read"));
        store.close().await;
        fs::remove_file(place.database()).expect("removed");
        for (name, bytes) in [database_at, log_at].iter().zip(left) {
            assert!(!bytes.is_empty(), "{name}");
            fs::write(place.at(name), bytes).expect("written");
        }
        fs::write(place.at("datastore.sqlite3.restoring"), "").expect("written");
        let report = OpenBackup::open(&file, None, place.target()).expect("opens").restore(NOW, false).await;
        let carried = report.expect("restored").carried.expect("carried");
        assert_eq!(carried.banned_agents.len(), 1, "{database_at} {log_at}: {carried:?}");
        let store = place.store();
        assert_eq!(banned(&store).await.len(), 2, "{database_at} {log_at}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_read_is_replaced_all_the_same_and_that_is_told() {
    let place = Place::new();
    place.change("t", &["a"]).await;
    let file = place.backup("b", false);
    fs::write(place.database(), vec![7; 4096]).expect("damaged");
    let report =
        OpenBackup::open(&file, None, place.target()).expect("opens").restore(NOW, false).await.expect("restored");
    assert!(report.carried.expect("carried").not_carried.is_some());
    let store = place.store();
    assert_eq!(banned(&store).await.len(), 1);
    store.close().await;
}

#[tokio::test]
async fn backups_survive_damage() {
    let place = Place::new();
    place.change("t", &[]).await;
    let (plain, sealed) = (place.backup("plain", false), place.backup("sealed", true));
    let head = |file: &Path| fs::read(file).expect("read")[..600].to_vec();
    let (key, broken) = (place.key("operator"), place.at("damaged"));
    FuzzTarget::new("backup").seed(head(&plain)).seed(head(&sealed)).survives(|bytes| {
        fs::write(&broken, bytes).expect("written");
        let _ = OpenBackup::open(&broken, Some(&key), place.target()).and_then(looked);
    });
}
