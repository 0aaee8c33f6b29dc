use ironroot_api::TrustDomain;

use super::*;
use crate::facts::through::serial_through;
use crate::facts::tier::{Publisher, TierAuthority, TierCredential, TierOrigin};
use crate::issuance_log::{Event, IssuanceLog};
use crate::store::Store;

fn id(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://td/spire/agent/x509pop/{name}")).expect("legal")
}

/// A log of epochs, each opened by accepting an older state; of each record: how far the data store had come, what, to what.
fn log_of(directory: &Path, epochs: &[&[(i64, &str, String)]]) -> Vec<u64> {
    let mut began = Vec::new();
    for (place, records) in epochs.iter().enumerate() {
        let log = IssuanceLog::open(directory, (place > 0).then_some(0)).expect("opens");
        for (revision, method, object) in *records {
            log.data_store_at(*revision);
            let [method, object, by] = [*method, object.as_str(), "uid 0"].map(str::to_owned);
            log.append(Event { method, object, by });
        }
        log.close();
        began.push(log.durable().borrow().epoch);
    }
    began
}

fn since(directory: &Path, revision: i64, made_at: Option<u64>) -> LoggedBans {
    LoggedBans::since(directory, Past { revision, made_at }).expect("reads")
}

fn agents(bans: &LoggedBans) -> Vec<SpiffeId> {
    bans.agents.keys().cloned().collect()
}

#[test]
fn a_ban_counts_until_it_is_lifted_and_a_devices_is_its_agents_too() {
    let directory = tempfile::tempdir().expect("directory");
    let (one, two) = (hex(&[1; 32]), hex(&[2; 32]));
    let records = [
        (2, "BanAgent", id("a").to_string()),
        (3, "BanAgent", id("b").to_string()),
        (4, "DeleteAgent", id("b").to_string()),
        (5, "BanDevice", one.clone()),
        (5, "BanDevice", format!("{one}: {}", id("c"))),
        (6, "BanDevice", two.clone()),
        (7, "DeleteDevice", two),
        (8, "AttestAgent", format!("{} serial 5", id("d"))),
        (9, "BanAgent", "no ID".to_owned()),
    ];
    log_of(directory.path(), &[&records]);
    let bans = since(directory.path(), 1, None);
    assert_eq!((agents(&bans), bans.devices), (vec![id("a"), id("c")], [[1; 32]].into()));
    assert_eq!(agents(&since(directory.path(), 2, None)), [id("c")], "the database has the first");
}

#[test]
fn the_ban_of_an_agent_of_the_longest_name_is_its_own() {
    let directory = tempfile::tempdir().expect("directory");
    let room = ironroot_api::spiffe_id::MAX_SPIFFE_ID_BYTES + 1 - id("x").as_str().len();
    let longest = |last: char| id(&format!("{}{last}", "a".repeat(room - 1)));
    let records = [
        (2, "BanAgent", longest('b').to_string()),
        (2, "BanAgent", format!("certificate {}: {}", hex(&[1; 32]), longest('b'))),
        (3, "BanDevice", format!("{}: {}", hex(&[2; 32]), longest('c'))),
        (4, "BanAgent", longest('d').to_string()),
        (5, "DeleteAgent", longest('d').to_string()),
    ];
    log_of(directory.path(), &[&records]);
    let bans = since(directory.path(), 1, None);
    assert_eq!(agents(&bans), [longest('b'), longest('c')]);
    assert_eq!(bans.agents[&longest('b')], Some([1; 32]));
}

#[test]
fn where_bans_are_told_anew_those_before_count_no_more() {
    let directory = tempfile::tempdir().expect("directory");
    let records = [
        (2, "BanAgent", id("lifted-elsewhere").to_string()),
        (2, "BanAgent", id("stays").to_string()),
        (3, "BanDevice", hex(&[1; 32])),
        (9, BANS_TOLD_ANEW, "1 agents and 0 devices are banned".to_owned()),
        (9, "BanAgent", id("stays").to_string()),
        (10, "BanAgent", id("later").to_string()),
    ];
    log_of(directory.path(), &[&records]);
    let bans = since(directory.path(), 1, None);
    assert_eq!((agents(&bans), bans.devices), (vec![id("later"), id("stays")], BTreeSet::new()));
}

#[test]
fn a_ban_of_an_epoch_that_was_given_up_stays_lifted_and_one_of_a_later_epoch_is_not_lost() {
    let directory = tempfile::tempdir().expect("directory");
    let before = [(115, "BanAgent", id("lifted").to_string()), (116, "BanAgent", id("stays").to_string())];
    // A state at revision 100 was accepted: both were given again, and one was lifted.
    let after = [(101, "DeleteAgent", id("lifted").to_string()), (105, "BanAgent", id("later").to_string())];
    let began = log_of(directory.path(), &[&before, &after]);
    let second = since(directory.path(), 103, None);
    assert_eq!(agents(&second), [id("later"), id("stays")], "what was lifted at 101 does not come back at 103");
    // A backup at revision 110 that was made before 100 was accepted: it does not know what came after at 105.
    assert_eq!(agents(&since(directory.path(), 110, Some(began[0]))), [id("later"), id("stays")]);
    assert_eq!(agents(&since(directory.path(), 110, Some(began[1]))), [id("stays")], "and one of after that does");
}

#[tokio::test]
async fn a_recovered_ban_holds_for_the_certificate_under_every_id() {
    let directory = tempfile::tempdir().expect("directory");
    let issuance = directory.path().join("issuance");
    let of =
        |certificate: u8, name: &str| (5, "BanAgent", format!("certificate {}: {}", hex(&[certificate; 32]), id(name)));
    log_of(&issuance, &[&[of(1, "gone"), of(2, "twin")]]);
    let trust_domain = TrustDomain::new("td").expect("legal");
    let store = Store::open(&directory.path().join("datastore.sqlite3"), &trust_domain).expect("opens");
    let other = AgentRecord { certificate_sha256: Some([2; 32]), ..AgentRecord::example("other") };
    store.change::<_, StoreError>(move |tx| tx.put_agent(&other).map(drop)).await.expect("put");
    let bans = since(&issuance, 1, None);
    let again = bans.clone();
    let recovered = store.change::<_, StoreError>(move |tx| bans.give(tx, 7)).await.expect("given");
    assert_eq!(recovered.agents, [id("gone").to_string(), id("twin").to_string()]);
    let none = store.change::<_, StoreError>(move |tx| again.give(tx, 7)).await.expect("given");
    assert_eq!(none, RecoveredBans::default(), "a second time there is no news");
    let who = |certificate: [u8; 32]| store.change::<_, StoreError>(move |tx| tx.agent_with_certificate(&certificate));
    let gone = who([1; 32]).await.expect("read").expect("known by its certificate");
    assert!(gone.banned && gone.spiffe_id == id("gone"));
    assert!(who([2; 32]).await.expect("read").expect("known").banned, "who has the certificate now is banned with it");
    store.close().await;
}

/// The note that it is older, and whatever else is written while it waits, raises the revision to that of the ban, and beyond.
#[tokio::test]
async fn a_ban_that_was_the_first_change_behind_an_older_state_is_given_again_however_that_is_known() {
    let log = |revision| Evidence::Log { logged: revision + 1, revision };
    let mark = |marked, revision| Evidence::Mark { path: "/mark".to_owned(), marked, revision };
    let evidences: [&dyn Fn(i64) -> Evidence; 5] = [
        &|revision| Evidence::Restored { made_at: i64::MAX, revision },
        &log,
        &|revision| mark(revision + 1, revision),
        // Another history that has come as far as the ban by itself.
        &|revision| mark(revision, revision),
        &|revision| Evidence::Followed { followed: revision + 1, revision },
    ];
    for evidence in evidences {
        let directory = tempfile::tempdir().expect("directory");
        let issuance = directory.path().join("issuance");
        let trust_domain = TrustDomain::new("td").expect("legal");
        let store = Store::open(&directory.path().join("datastore.sqlite3"), &trust_domain).expect("opens");
        let known = AgentRecord::example("known");
        store.change::<_, StoreError>(move |tx| tx.put_agent(&known).map(drop)).await.expect("put");
        let (revision, _) = store.change::<_, StoreError>(|tx| tx.place()).await.expect("read");
        let evidence = evidence(revision);
        let is_fork = matches!(&evidence, Evidence::Mark { marked, .. } if *marked == revision);
        log_of(&issuance, &[&[(revision + i64::from(!is_fork), "BanAgent", id("first").to_string())]]);
        let noted = evidence.clone();
        store.change::<_, StoreError>(move |tx| tx.note_older_state(&noted, 1)).await.expect("noted");
        let accepted = crate::older_state::accept(&store, None, &issuance, 2).await.expect("accepted");
        assert_eq!(accepted.recovered_bans.agents, [id("first").to_string()], "{evidence:?}");
        store.close().await;
    }
}

#[tokio::test]
async fn the_keys_that_an_agent_has_published_go_with_its_ban_whoever_brings_that() {
    let directory = tempfile::tempdir().expect("directory");
    let trust_domain = TrustDomain::new("td").expect("legal");
    let store = Store::open(&directory.path().join("datastore.sqlite3"), &trust_domain).expect("opens");
    let names = ["unknown", "known", "twin", "carried", "carried-twin", "good"];
    let put = move |tx: &Transaction<'_>| {
        for (name, certificate_sha256) in [("known", None), ("twin", Some([1; 32])), ("carried-twin", Some([2; 32]))] {
            tx.put_agent(&AgentRecord { spiffe_id: id(name), certificate_sha256, ..AgentRecord::example("x") })?;
        }
        for (number, name) in (1..).zip(names) {
            let serial = serial_through(&id(name), number << 64).to_string();
            let publisher = Publisher { serial, ..id("gateway").into() };
            let credential = TierCredential::JwtKey { key_id: name.to_owned(), spki: vec![1] };
            let origin = TierOrigin::Below(publisher);
            tx.put_tier_authority(&TierAuthority { origin, credential, expires_at: i64::MAX, tainted: false })?;
        }
        Ok::<_, StoreError>(())
    };
    store.change(put).await.expect("put");
    let agents = [("unknown", None), ("known", None), ("another", Some([1; 32]))].map(|(name, of)| (id(name), of));
    let bans = LoggedBans { agents: agents.into(), devices: BTreeSet::new() };
    store.change::<_, StoreError>(move |tx| bans.give(tx, 7)).await.expect("given");
    let carry = |tx: &Transaction<'_>| {
        let carried = AgentRecord { spiffe_id: id("carried"), banned: true, ..AgentRecord::example("x") };
        carry_ban(tx, &AgentRecord { certificate_sha256: Some([2; 32]), ..carried })
    };
    assert!(store.change::<_, StoreError>(carry).await.expect("carried"));
    let left = store.tier_authorities().await.expect("read").authorities;
    assert_eq!(left.iter().filter_map(TierAuthority::key_id).collect::<Vec<_>>(), ["good"]);
    store.close().await;
}
