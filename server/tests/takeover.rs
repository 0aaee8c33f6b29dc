//! A server of SPIRE's is taken over: all that our rules take, or nothing; and files that are no such server's are refused by name.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

#[path = "support/spire_files.rs"]
mod spire_files;

use std::fs;
use std::path::{Path, PathBuf};

use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_server::ca::{Journal, Place, Purpose, ServerName, Slot, SlotName};
use ironroot_server::facts::federation::EndpointProfile;
use ironroot_server::facts::tier::{TierCredential, TierOrigin};
use ironroot_server::federation::Federation;
use ironroot_server::keys::SoftwareKeys;
use ironroot_server::registry::Registry;
use ironroot_server::store::spire::SpireStoreError;
use ironroot_server::store::{Location, Store};
use ironroot_server::takeover::{KeyPlace, KeysTaken, Report, Rules, Takeover, TakeoverError, What};
use prost::Message;
use rusqlite::{Connection, params};
use spire_files::{DAY, JwtKey, NOW, OLD, RootCa, SpireFiles, add_agent, add_entry, add_selector, datetime, state};
use tempfile::TempDir;

struct Ours {
    directory: TempDir,
    rules: Rules,
}

impl Ours {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rules = Rules {
            trust_domain: TrustDomain::new("example.org").unwrap(),
            server: ServerName::default(),
            allow_executable_only: false,
            attestors: vec!["join_token".to_owned()],
            keys: KeyPlace::File(directory.path().join("keys.json")),
        };
        Self { directory, rules }
    }

    fn store(&self) -> Store {
        Store::open(&self.directory.path().join("ours.sqlite3"), &self.rules.trust_domain).unwrap()
    }

    fn key_file(&self) -> PathBuf {
        self.directory.path().join("keys.json")
    }

    fn read(&self, files: &SpireFiles) -> Result<Takeover, TakeoverError> {
        Takeover::read(&Location::Sqlite(files.database()), &files.key_file(), &self.rules, false, NOW)
    }

    async fn take(&self, files: &SpireFiles, store: &Store) -> Result<Report, TakeoverError> {
        self.read(files)?.take(store, "ours").await
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

async fn journal(ours: &Ours, store: &Store) -> Journal {
    let bytes = store.ca_journal("").await.unwrap().unwrap();
    Journal::from_bytes(&bytes, &ours.rules.trust_domain, &ServerName::default()).unwrap()
}

fn why(report: &Report, what: What) -> Vec<&str> {
    report.left_behind.iter().filter(|left| left.what == what).map(|left| left.why.as_str()).collect()
}

#[test]
fn entries_agents_bans_and_tokens_come_along_as_they_are() {
    let (files, ours) = (SpireFiles::new(), Ours::new());
    let connection = files.write();
    let row = add_entry(&connection, "e-1", "spiffe://example.org/web", "spiffe://example.org/node", ("unix", "uid:1"));
    add_selector(&connection, row, ("unix", "path:/a:b"));
    let details = "UPDATE registered_entries SET admin = 1, downstream = 1, expiry = ?1, jwt_svid_ttl = 60, store_svid = 0, \
                   additional_attributes = x'08011001' WHERE id = ?2";
    connection.execute(details, params![NOW + 5, row]).unwrap();
    for name in ["b.example.org", "a.example.org"] {
        let add = "INSERT INTO dns_names (registered_entry_id, value) VALUES (?1, ?2)";
        connection.execute(add, params![row, name]).unwrap();
    }
    // What an entry left that was deleted hangs on nothing.
    add_selector(&connection, 999, ("unix", "uid:2"));
    let agent = "spiffe://example.org/spire/agent/join_token/t";
    add_agent(&connection, agent, "join_token", "12345678901234567890", false, NOW + 60);
    add_agent(&connection, "spiffe://example.org/spire/agent/x509pop/banned", "x509pop", "", true, NOW - DAY);
    let selector = "INSERT INTO node_resolver_map_entries (spiffe_id, type, value) VALUES (?1, 'a', 'b:c')";
    connection.execute(selector, [agent]).unwrap();
    // A ban is not lost over what our rules refuse of its agent.
    let odd = "spiffe://example.org/spire/agent/x509pop/odd";
    add_agent(&connection, odd, "x509pop", "", true, NOW - DAY);
    connection.execute(selector, [odd]).unwrap();
    connection.execute(&selector.replace("'b:c'", "char(10)"), [odd]).unwrap();
    let pending = "UPDATE attested_node_entries SET new_serial_number = 'no number' WHERE spiffe_id = ?1";
    connection.execute(pending, [odd]).unwrap();
    let renewing = "UPDATE attested_node_entries SET new_serial_number = '9', new_expires_at = ?1 WHERE spiffe_id = ?2";
    connection.execute(renewing, params![datetime(NOW + 90), agent]).unwrap();
    connection
        .execute("INSERT INTO join_tokens (token, expiry) VALUES ('fresh', ?1), ('used-up', ?2)", [NOW + 9, NOW])
        .unwrap();
    drop(connection);

    run(async {
        let store = ours.store();
        let report = ours.take(&files, &store).await.unwrap();
        assert_eq!((report.entries, report.agents, report.banned_agents, report.join_tokens), (1, 3, 2, 1));
        assert_eq!(why(&report, What::JoinToken), ["it has expired"]);
        let registry = Registry::load(store.clone()).await.unwrap();
        let entry = registry.entry("e-1").unwrap();
        assert_eq!((entry.revision_number(), entry.created_at(), entry.expires_at()), (3, NOW - 100, NOW + 5));
        assert_eq!((entry.x509_svid_ttl(), entry.jwt_svid_ttl(), entry.hint()), (77, 60, "h"));
        assert_eq!(entry.dns_names(), ["b.example.org", "a.example.org"], "the first is the common name");
        assert!(entry.admin() && entry.downstream() && entry.jwt_svid_include_jti());
        let selectors: Vec<String> = entry.selectors().iter().map(ToString::to_string).collect();
        assert_eq!(selectors, ["unix:path:/a:b", "unix:uid:1"]);
        let agent = registry.agent(&SpiffeId::parse(agent).unwrap()).unwrap();
        assert_eq!((agent.serial.as_str(), agent.new_serial.as_str()), ("12345678901234567890", "9"));
        assert_eq!((agent.not_after, agent.new_not_after, agent.can_reattest), (NOW + 60, NOW + 90, false));
        assert_eq!(agent.selectors.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:b:c"]);
        let banned = SpiffeId::parse("spiffe://example.org/spire/agent/x509pop/banned").unwrap();
        assert!(registry.agent(&banned).unwrap().banned);
        let odd = registry.agent(&SpiffeId::parse(odd).unwrap()).unwrap();
        assert!(odd.banned && odd.new_serial.is_empty());
        assert_eq!(odd.selectors.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:b:c"]);
        use ironroot_server::store::ShownToken;
        assert_eq!(store.join_token("fresh", NOW).await.unwrap(), ShownToken::Good);
        assert_eq!(store.join_token("used-up", NOW).await.unwrap(), ShownToken::Unknown);
    });
}

#[test]
fn what_signed_there_signs_here_and_all_that_its_bundle_held_stays_in_the_bundle() {
    let (mut files, ours) = (SpireFiles::new(), Ours::new());
    files.keys.insert(
        "WIT-Signer-A".into(),
        ironroot_server::keys::SoftwareKey::generate(ironroot_hsm::KeyKind::EcP256).unwrap(),
    );
    files.write();
    run(async {
        let store = ours.store();
        let report = ours.take(&files, &store).await.unwrap();
        assert_eq!((report.x509_authorities, report.jwt_authorities), (3, 1));
        let KeysTaken::Imported { ids, .. } = &report.keys else { panic!("{report:?}") };
        assert_eq!(ids, &["JWT-Signer-A", "x509-CA-A", "x509-CA-B"]);
        assert_eq!(why(&report, What::Key), ["it is of no authority that signs now or next"]);
        let journal = journal(&ours, &store).await;
        assert_eq!((journal.anchors().len(), journal.sequence_number()), (4, 8));
        let cas = journal.slots(Purpose::X509Ca);
        assert_eq!(cas.active().map(|(slot, _)| slot), Some(SlotName::A));
        assert_eq!(cas.prepared().map(|(slot, _)| slot), Some(SlotName::B));
        assert_eq!(
            journal.slots(Purpose::Jwt).active().unwrap().1.credential.jwt_key().unwrap().key_id().as_str(),
            "k".repeat(32)
        );
        let keys = SoftwareKeys::open(&ours.key_file()).unwrap();
        for (id, key) in files.keys.iter().filter(|(id, _)| !id.starts_with("WIT")) {
            assert_eq!(keys.find(id).unwrap().spki_der(), key.spki_der(), "{id}");
        }
        assert!(keys.find("WIT-Signer-A").is_none());
    });
}

#[test]
fn keys_of_wit_svids_come_along_those_that_sign_and_those_that_only_verify() {
    let (mut files, ours) = (SpireFiles::with_wit(), Ours::new());
    let ended = JwtKey { kid: "e".repeat(32), not_after: NOW - 1, ..files.bundle.wit_signing_keys[0].clone() };
    files.bundle.wit_signing_keys.push(ended);
    files.write();
    run(async {
        let store = ours.store();
        let report = ours.take(&files, &store).await.unwrap();
        assert_eq!((report.jwt_authorities, report.wit_authorities), (1, 3));
        assert!(report.to_string().contains("3 WIT authorities of the bundle"), "{report}");
        assert_eq!(why(&report, What::WitAuthority), ["it has ended"]);
        let KeysTaken::Imported { ids, .. } = &report.keys else { panic!("{report:?}") };
        assert_eq!(ids, &["JWT-Signer-A", "WIT-Signer-A", "WIT-Signer-B", "x509-CA-A", "x509-CA-B"]);
        let journal = journal(&ours, &store).await;
        let wit = journal.slots(Purpose::Wit);
        let named = |found: Option<(SlotName, &ironroot_server::ca::Authority)>| {
            found.map(|(slot, authority)| (slot, authority.credential.id()))
        };
        assert_eq!(named(wit.active()), Some((SlotName::A, "A".repeat(32))));
        assert_eq!(named(wit.prepared()), Some((SlotName::B, "B".repeat(32))));
        assert_eq!(wit.anchors().len(), 3, "that of another server verifies");
        let keys = SoftwareKeys::open(&ours.key_file()).unwrap();
        for id in ["WIT-Signer-A", "WIT-Signer-B"] {
            assert_eq!(keys.find(id).unwrap().spki_der(), files.keys[id].spki_der(), "{id}");
        }
    });
}

#[test]
fn without_a_place_for_keys_the_old_authorities_verify_and_the_report_says_so_in_words_and_in_json() {
    let (files, mut ours) = (SpireFiles::new(), Ours::new());
    files.write();
    ours.rules.keys = KeyPlace::Nowhere;
    run(async {
        let store = ours.store();
        let report = ours.take(&files, &store).await.unwrap();
        let journal = journal(&ours, &store).await;
        assert_eq!((journal.anchors().len(), journal.is_founded()), (4, true));
        assert!(Place::all().all(|place| *journal.slot(place) == Slot::Empty));
        assert!(!ours.key_file().exists());
        assert!(report.to_string().contains("agents that are running do not know it"), "{report}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["keys"]["status"], &json["x509_authorities"]), (&"verified_only".into(), &3.into()));
    });
}

#[test]
fn what_our_rules_refuse_is_left_behind_by_name_and_the_rest_is_taken() {
    let (mut files, ours) = (SpireFiles::new(), Ours::new());
    files.bundle.jwt_signing_keys.push(JwtKey { pkix: vec![1], kid: "x".repeat(32), not_after: NOW + 1 });
    files.bundle.jwt_signing_keys.push(JwtKey { kid: "short".into(), ..files.bundle.jwt_signing_keys[0].clone() });
    files.bundle.root_cas[0].tainted = true;
    let connection = files.write();
    let node = "spiffe://example.org/node";
    for (id, spiffe_id, value) in [
        ("good", "spiffe://example.org/web", "uid:1"),
        ("exe", "spiffe://example.org/exe", "path:/bin/x"),
        ("foreign", "spiffe://other.org/web", "uid:1"),
        ("reserved", "spiffe://example.org/spire/web", "uid:1"),
        ("i d", "spiffe://example.org/web", "uid:1"),
        ("control", "spiffe://example.org/web", "uid\n:1"),
        ("no id", "nothing", "uid:1"),
    ] {
        add_entry(&connection, id, spiffe_id, node, ("unix", value));
    }
    let expired = add_entry(&connection, "old", "spiffe://example.org/old", node, ("unix", "uid:1"));
    connection.execute("UPDATE registered_entries SET expiry = ?1 WHERE id = ?2", [NOW, expired]).unwrap();
    connection.execute("INSERT INTO bundles (trust_domain, data) VALUES ('spiffe://other.org', x'')", []).unwrap();
    let federates = add_entry(&connection, "fed", "spiffe://example.org/fed", node, ("unix", "uid:1"));
    connection.execute("INSERT INTO federated_registration_entries VALUES (2, ?1)", [federates]).unwrap();
    connection.execute(
        "INSERT INTO federated_trust_domains (trust_domain, bundle_endpoint_url, bundle_endpoint_profile) VALUES ('other.org', 'http://o/', 'https_web')",
        [],
    ).unwrap();
    add_agent(&connection, "spiffe://example.org/spire/agent/aws_iid/1", "aws_iid", "7", true, NOW + 60);
    add_agent(&connection, "spiffe://example.org/workload", "join_token", "7", false, NOW + 60);
    add_agent(&connection, "spiffe://example.org/spire/agent/x/2", "join_token", "7x", false, NOW + 60);
    add_agent(&connection, "spiffe://example.org/spire/agent/x/3", "x509pop", "7", true, NOW - 1);
    drop(connection);
    run(async {
        let store = ours.store();
        let report = ours.take(&files, &store).await.unwrap();
        assert_eq!((report.entries, report.agents), (1, 1), "{report}");
        let tainted = journal(&ours, &store).await.anchors().iter().filter(|authority| authority.is_tainted()).count();
        assert_eq!(tainted, 1, "a taint holds here too");
        let said = report.to_string();
        for words in [
            "entry exe (spiffe://example.org/exe): its selectors name a program",
            "entry foreign (spiffe://other.org/web): invalid SPIFFE ID",
            "entry reserved (spiffe://example.org/spire/web): invalid SPIFFE ID: the path",
            "entry i d (spiffe://example.org/web): invalid entry ID",
            "entry control (spiffe://example.org/web): invalid selector",
            "entry no id (nothing): \"nothing\"",
            "entry old (spiffe://example.org/old): it has expired",
            "entry fed (spiffe://example.org/fed): it federates with other.org, whose bundle is not taken over",
            "bundle of trust domain spiffe://other.org: the bundle in its row is that of \"\"",
            "federation relationship with other.org: our rules refuse it: bundle endpoint URL must use the https scheme; create it here",
            "attestation of agent spiffe://example.org/spire/agent/aws_iid/1: it goes on while",
            "agent spiffe://example.org/workload: it is no agent's ID",
            "agent spiffe://example.org/spire/agent/x/2: its serial number is not decimal",
            "agent spiffe://example.org/spire/agent/x/3: its certificate has ended",
            "JWT authority short: its ID is not of 32 letters and digits",
            &format!("JWT authority {}: its key cannot be used", "x".repeat(32)),
        ] {
            assert!(said.contains(words), "{words}\n{said}");
        }
    });
}

#[test]
fn a_key_that_must_sign_and_is_missing_or_another_one_is_refused_by_name() {
    let ours = Ours::new();
    type Change = fn(&mut SpireFiles);
    let cases: [(Change, &str, &str); 4] = [
        (|files| drop(files.keys.remove("x509-CA-A")), "x509-CA-A", "no key"),
        (
            |files| {
                let other = files.keys.remove("x509-CA-B").unwrap();
                files.keys.insert("x509-CA-A".into(), other);
            },
            "x509-CA-A",
            "another key",
        ),
        (|files| drop(files.keys.remove("JWT-Signer-A")), "JWT-Signer-A", "no key"),
        (|files| drop(files.keys.remove("WIT-Signer-A")), "WIT-Signer-A", "no key"),
    ];
    for (change, id, found) in cases {
        let mut files = SpireFiles::with_wit();
        change(&mut files);
        files.write();
        match ours.read(&files).unwrap_err() {
            TakeoverError::KeyMissing { id: named, found: there } => {
                assert_eq!(named, id);
                assert!(there.starts_with(found), "{there}");
            }
            other => panic!("{other:?}"),
        }
    }
    let mut files = SpireFiles::new();
    files.keys = SpireFiles::new().keys;
    files.write();
    assert!(matches!(ours.read(&files), Err(TakeoverError::NoJournal { journals: 1 })));
    // One that neither signs nor comes next may be gone: SPIRE made another in its place.
    let mut files = SpireFiles::new();
    files.keys.remove("x509-CA-B");
    files.journals[0].cas[1].status = OLD;
    files.write();
    assert_eq!(ours.read(&files).unwrap().report().x509_authorities, 3);
}

#[test]
fn the_journal_of_the_server_whose_keys_these_are_is_found_among_those_that_share_a_database() {
    let (mut files, ours) = (SpireFiles::new(), Ours::new());
    let other = SpireFiles::new().journals.remove(0);
    files.journals.insert(0, other);
    files.write();
    let takeover = ours.read(&files).unwrap();
    assert_eq!(why(takeover.report(), What::CaJournal), ["it is of another server, or of other keys"]);
    let KeysTaken::Imported { ids, .. } = &takeover.report().keys else { panic!() };
    assert_eq!(ids.len(), 3);
}

#[test]
fn other_trust_domains_come_along_with_the_entries_that_ask_for_their_bundles() {
    let (files, ours) = (SpireFiles::new(), Ours::new());
    let connection = files.write();
    let other = spire_files::Bundle {
        trust_domain_id: "spiffe://other.org".into(),
        sequence_number: 50,
        refresh_hint: 120,
        ..files.bundle.clone()
    };
    let add = "INSERT INTO bundles (trust_domain, data) VALUES ('spiffe://other.org', ?1)";
    connection.execute(add, params![other.encode_to_vec()]).unwrap();
    let row = add_entry(&connection, "fed", "spiffe://example.org/fed", "spiffe://example.org/node", ("unix", "uid:1"));
    connection.execute("INSERT INTO federated_registration_entries VALUES (2, ?1)", [row]).unwrap();
    let relationships = "INSERT INTO federated_trust_domains \
                         (trust_domain, bundle_endpoint_url, bundle_endpoint_profile, endpoint_spiffe_id) VALUES \
                         ('other.org', 'https://o.test/', 'https_spiffe', 'spiffe://other.org/server'), \
                         ('third.org', 'https://t.test/', 'https_web', ''), ('fourth.org', 'https://f.test/', 'carrier_pigeon', '')";
    connection.execute(relationships, []).unwrap();
    drop(connection);
    run(async {
        let store = ours.store();
        let report = ours.take(&files, &store).await.unwrap();
        assert_eq!((report.federated_bundles, report.federation_relationships, report.entries), (1, 2, 1), "{report}");
        let profile = why(&report, What::FederationRelationship);
        assert_eq!(profile, ["its bundle endpoint profile is \"carrier_pigeon\": create it here (federation create)"]);
        let federation = Federation::load(store.clone()).await.unwrap();
        let other = TrustDomain::new("other.org").unwrap();
        let bundle = federation.bundle(&other).unwrap();
        let keys = (bundle.x509_authorities().len(), bundle.to_pb().jwt_authorities.len());
        assert_eq!((keys, bundle.refresh_hint_seconds(), bundle.sequence_number()), ((3, 1), 120, 0));
        let relationship = federation.relationship(&other).unwrap();
        let id = SpiffeId::parse("spiffe://other.org/server").unwrap();
        assert_eq!(
            (relationship.url.as_str(), &relationship.profile),
            ("https://o.test/", &EndpointProfile::HttpsSpiffe(id))
        );
        let registry = Registry::load(store.clone()).await.unwrap();
        assert_eq!(registry.entry("fed").unwrap().federates_with(), [other]);
    });
}

/// Files whose active CA is below a root of another PKI, by `between`.
fn below(between: &[&str]) -> SpireFiles {
    let mut files = SpireFiles::new();
    let names: Vec<&str> = std::iter::once("root").chain(between.iter().copied()).collect();
    let pki: Vec<spire_files::Pki> = names.iter().fold(Vec::new(), |mut pki: Vec<spire_files::Pki>, name| {
        let next = spire_files::Pki::below(pki.last(), name);
        pki.push(next);
        pki
    });
    let ca = pki.last().unwrap().certify(&files.keys["x509-CA-A"], "spiffe://example.org", NOW + DAY);
    let above = pki[1..].iter().rev().map(|authority| authority.der.clone());
    files.journals[0].cas.truncate(1);
    files.journals[0].cas[0].upstream_chain = std::iter::once(ca.clone()).chain(above).collect();
    files.journals[0].cas[0].certificate = ca;
    files.bundle.root_cas = vec![RootCa { der: pki[0].der.clone(), tainted: false }];
    files
}

#[test]
fn a_ca_below_an_upstream_root_goes_on_below_it_whatever_is_between_them() {
    for between in [&[][..], &["first"], &["first", "second"]] {
        let (files, ours) = (below(between), Ours::new());
        files.write();
        run(async {
            let store = ours.store();
            let report = ours.take(&files, &store).await.unwrap();
            let journal = journal(&ours, &store).await;
            let (_, active) = journal.slots(Purpose::X509Ca).active().unwrap();
            let chain = active.upstream.as_ref().map(|chain| chain.ders().count());
            assert_eq!((chain, report.x509_authorities), (Some(between.len()), 1), "{report}");
            assert!(journal.slots(Purpose::Root).authorities().is_empty(), "the root is another's");
            let tiers = store.tier_authorities().await.unwrap().authorities;
            let root = TierCredential::Certificate(files.bundle.root_cas[0].der.clone());
            assert_eq!((&tiers[0].origin, &tiers[0].credential, tiers.len()), (&TierOrigin::Above, &root, 1));
            assert!(active.state().upstream_id == tiers[0].subject_key_id().unwrap());
        });
    }
}

#[test]
fn a_ca_whose_chain_leads_nowhere_signs_nothing_here() {
    type Change = fn(&mut SpireFiles);
    let cases: [(Change, &str); 3] = [
        (|files| files.bundle.root_cas.clear(), "is not in the trust domain's bundle"),
        (|files| drop(files.journals[0].cas[0].upstream_chain.remove(1)), "are not each other's"),
        (
            |files| {
                let ca = files.journals[0].cas[0].certificate.clone();
                files.journals[0].cas[0].upstream_chain = vec![ca; 7];
            },
            "more authorities between it and its upstream root",
        ),
    ];
    for (change, expected) in cases {
        let (mut files, ours) = (below(&["first", "second", "third"]), Ours::new());
        change(&mut files);
        files.write();
        let left = ours.read(&files).unwrap();
        assert!(why(left.report(), What::X509Authority)[0].contains(expected), "{expected}: {}", left.report());
    }
}

#[test]
fn nothing_is_half_taken() {
    let (files, ours) = (SpireFiles::new(), Ours::new());
    files.write();
    let before = state(&files);
    run(async {
        let store = ours.store();
        // Another's keys are where ours would go.
        let other = SpireFiles::new();
        other.write();
        fs::copy(other.key_file(), ours.key_file()).unwrap();
        let refused = ours.take(&files, &store).await.unwrap_err();
        assert!(matches!(refused, TakeoverError::KeyFileInUse(_)), "{refused}");
        assert!(store.ca_journal("").await.unwrap().is_none());
        fs::remove_file(ours.key_file()).unwrap();
        // The data store is somebody's.
        ours.take(&files, &store).await.unwrap();
        let keys = fs::read(ours.key_file()).unwrap();
        let again = ours.take(&files, &store).await.unwrap_err();
        assert!(matches!(again, TakeoverError::NotEmpty(_, "a CA")), "{again:?}");
        assert_eq!(fs::read(ours.key_file()).unwrap(), keys);
        // An import that was cut off between keys and database goes on.
        let after_a_crash = Ours { directory: tempfile::tempdir().unwrap(), rules: ours.rules.clone() };
        let store = after_a_crash.store();
        after_a_crash.take(&files, &store).await.unwrap();
    });
    let same = Rules { keys: KeyPlace::File(files.key_file()), ..ours.rules.clone() };
    let refused =
        Takeover::read(&Location::Sqlite(files.database()), &files.key_file(), &same, false, NOW).unwrap_err();
    assert!(matches!(refused, TakeoverError::SpiresKeyFile), "{refused}");
    assert_eq!(state(&files), before, "SPIRE's files are only read");
}

#[test]
fn what_is_in_the_log_of_a_server_that_was_killed_is_read_and_stays_there() {
    let (files, ours) = (SpireFiles::new(), Ours::new());
    let connection = files.write();
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    add_entry(&connection, "e", "spiffe://example.org/web", "spiffe://example.org/node", ("unix", "uid:1"));
    // As a kill leaves it: the log is beside the file.
    std::mem::forget(connection);
    let wal = files.directory.path().join("datastore.sqlite3-wal");
    let before = fs::read(&wal).unwrap();
    assert!(!before.is_empty());
    assert_eq!(ours.read(&files).unwrap().report().entries, 1);
    assert_eq!(fs::read(&wal).unwrap(), before);
}

#[test]
fn files_that_are_no_database_of_spires_are_refused_by_name() {
    let ours = Ours::new();
    let refused = |path: &Path, key_file: &Path| match Takeover::read(
        &Location::Sqlite(path.to_owned()),
        key_file,
        &ours.rules,
        false,
        NOW,
    ) {
        Err(TakeoverError::Spire { error, .. }) => error,
        other => panic!("{other:?}"),
    };
    type Change = fn(&Connection);
    let changed = |change: Change| {
        let files = SpireFiles::new();
        let connection = files.write();
        change(&connection);
        drop(connection);
        refused(&files.database(), &files.key_file())
    };
    let cases: [(Change, &str); 11] = [
        (|c| drop(c.execute("UPDATE migrations SET version = 22", [])), "schema version 22 (written by SPIRE 1.16.0)"),
        (|c| drop(c.execute("UPDATE migrations SET version = 26", [])), "schema version 26"),
        (|c| drop(c.execute("DELETE FROM migrations", [])), "0 times which schema version"),
        (|c| drop(c.execute("INSERT INTO migrations (version) VALUES (25)", [])), "2 times which schema version"),
        (|c| drop(c.execute("UPDATE migrations SET version = 'x'", [])), "cannot be read"),
        (|c| drop(c.execute("DROP TABLE selectors", [])), "cannot be read: it is half written"),
        (
            |c| drop(c.execute("ALTER TABLE registered_entries DROP COLUMN hint", [])),
            "cannot be read: it is half written",
        ),
        (
            |c| drop(c.execute("INSERT INTO join_tokens (token, expiry) VALUES (zeroblob(70000), 1)", [])),
            "a value of 70000 bytes",
        ),
        (
            |c| drop(c.execute("INSERT INTO join_tokens (token, expiry) VALUES ('t', 'soon')", [])),
            "row 1 of table join_tokens is damaged",
        ),
        (
            |c| drop(c.execute("INSERT INTO attested_node_entries (spiffe_id, expires_at) VALUES ('a', 'soon')", [])),
            "\"soon\" is no time",
        ),
        (
            |c| drop(c.execute("INSERT INTO bundles (trust_domain, data) VALUES ('a', zeroblob(17000000))", [])),
            "17000000 bytes",
        ),
    ];
    for (change, expected) in cases {
        let error = changed(change);
        let said = ironroot_shell::describe(&error);
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let files = SpireFiles::new();
    files.write();
    let key_file = files.key_file();
    let path = files.directory.path().join("other");
    assert!(matches!(refused(&path, &key_file), SpireStoreError::Io { what: "open", .. }));
    assert!(matches!(refused(files.directory.path(), &key_file), SpireStoreError::NotRegular));
    for text in ["", "SQLite format 3", "not a database at all, but long enough for one"] {
        fs::write(&path, text).unwrap();
        assert!(matches!(refused(&path, &key_file), SpireStoreError::NotSqlite), "{text}");
    }
    let whole = fs::read(files.database()).unwrap();
    for length in [whole.len() - 1, whole.len() / 2, 4096, 512, 100] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = refused(&path, &key_file);
        assert!(matches!(error, SpireStoreError::Damaged(_) | SpireStoreError::Sql(_)), "{length}: {error:?}");
    }
    let other = rusqlite::Connection::open(files.directory.path().join("third")).unwrap();
    other.execute_batch("CREATE TABLE migrations (id)").unwrap();
    drop(other);
    assert!(matches!(refused(&files.directory.path().join("third"), &key_file), SpireStoreError::NotSpires));
}

#[test]
fn other_trust_domains_and_damaged_blobs_and_keys_are_refused_by_name() {
    let ours = Ours::new();
    let refused = |files: &SpireFiles| ours.read(files).unwrap_err();
    let with = |change: &dyn Fn(&Connection)| {
        let files = SpireFiles::new();
        let connection = files.write();
        change(&connection);
        drop(connection);
        files
    };
    let foreign =
        with(&|c| assert_eq!(c.execute("UPDATE bundles SET trust_domain = 'spiffe://other.org'", []).unwrap(), 1));
    assert!(
        matches!(refused(&foreign), TakeoverError::OtherTrustDomain { found, .. } if found == "spiffe://other.org")
    );
    let damaged = with(&|c| assert_eq!(c.execute("UPDATE bundles SET data = x'ff'", []).unwrap(), 1));
    assert!(matches!(refused(&damaged), TakeoverError::Blob { what: "trust domain's bundle" }));
    let damaged = with(&|c| assert_eq!(c.execute("UPDATE ca_journals SET data = x'ff'", []).unwrap(), 1));
    assert!(matches!(refused(&damaged), TakeoverError::Blob { what: "CA journal" }));
    let mut files = SpireFiles::new();
    files.bundle.root_cas[0].der.truncate(50);
    files.write();
    assert!(matches!(refused(&files), TakeoverError::Authority(_)));
    let mut files = SpireFiles::new();
    let authority = files.bundle.root_cas[0].clone();
    files.bundle.root_cas.extend(vec![authority; 100]);
    files.write();
    assert!(matches!(refused(&files), TakeoverError::Journal(_)));
    let files = SpireFiles::new();
    files.write();
    fs::write(files.key_file(), "{\"keys\": {\"x509-CA-A\": \"AAAA\"}}").unwrap();
    assert!(matches!(refused(&files), TakeoverError::Keys(_)));
    fs::remove_file(files.key_file()).unwrap();
    assert!(matches!(refused(&files), TakeoverError::NoKeys(_)));
}

/// Flipped bytes anywhere in the file: refused, or read; never anything else.
#[test]
fn a_damaged_database_is_refused_or_read_and_never_ends_the_command_otherwise() {
    let (files, ours) = (SpireFiles::new(), Ours::new());
    let connection = files.write();
    add_entry(&connection, "e", "spiffe://example.org/web", "spiffe://example.org/node", ("unix", "uid:1"));
    drop(connection);
    let whole = fs::read(files.database()).unwrap();
    let path = files.directory.path().join("damaged");
    for position in (0..whole.len()).step_by(whole.len() / 200) {
        let mut damaged = whole.clone();
        damaged[position] ^= 0x55;
        fs::write(&path, damaged).unwrap();
        drop(Takeover::read(&Location::Sqlite(path.clone()), &files.key_file(), &ours.rules, false, NOW));
    }
}
