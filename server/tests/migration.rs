//! Databases that older servers made are opened by this one: see `databases/README.md`.

use std::path::{Path, PathBuf};

use ironroot_api::unix_socket::PeerCredentials;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_attest::Selector;
use ironroot_server::ca::{Journal, Purpose, ServerName};
use ironroot_server::devices::DeviceFilter;
use ironroot_server::facts::agent::AgentRecord;
use ironroot_server::facts::device::DeviceState;
use ironroot_server::facts::entry::RegistrationEntry;
use ironroot_server::registry::{AgentFilter, AgentStanding, EntryFilter, Registry};
use ironroot_server::rights::Administrator;
use ironroot_server::store::Store;
use ironroot_text::hex::hex;
use tempfile::TempDir;

const KIOSK: &str = "spiffe://example.org/spire/agent/join_token/d045ef86-00a3-45fd-b8c8-01d37d005bb6";
const EK_SHA256: &str = "0d864587b4ce0cc6f47065888dde7b64a22f2dcdcadbf97e1a98656ed292fd4a";

struct Old {
    _directory: TempDir,
    path: PathBuf,
    store: Store,
    registry: Registry,
}

async fn opened(file: &str) -> Old {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("datastore.sqlite3");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/databases").join(file), &path).expect("copied");
    let store = Store::open(&path, &TrustDomain::new("example.org").expect("legal")).expect("opens");
    let registry = Registry::load(store.clone()).await.expect("loads");
    Old { _directory: directory, path, store, registry }
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).expect("legal")
}

/// What tells an entry apart from others, as text.
fn told(entry: &RegistrationEntry) -> String {
    let selectors: Vec<String> = entry.selectors().iter().map(Selector::to_string).collect();
    format!("{} {} < {} [{}]", entry.id(), entry.spiffe_id().path(), entry.parent_id().path(), selectors.join(", "))
}

//= FLT-S22
#[tokio::test]
async fn every_entry_of_schema_1_is_there_as_it_was() {
    let Old { registry, _directory, .. } = opened("schema1.sqlite3").await;
    let all = registry.list_entries(&EntryFilter::default(), 0, "").expect("lists").items;
    let kiosk = id(KIOSK).path().to_owned();
    let spare = "/spire/agent/join_token/c1e30f47-e9d5-4165-a942-8e498139bfa1";
    let expected = [
        format!("ae42f7f7-e6ea-4b91-8b18-d92867049d7c /kiosk < {kiosk} [spiffe_id:{KIOSK}]"),
        format!("7fc19487-528c-4a4e-a387-18e0003dadb6 /spare < {spare} [spiffe_id:spiffe://example.org{spare}]"),
        "berlin /berlin < /spire/server [tpm2:label:site:berlin]".into(),
        "web /web < /berlin [unix:path:/usr/bin/web server é, unix:uid:1000]".into(),
        "stored /stored < /berlin [unix:uid:7]".into(),
        "lazy /lazy < /kiosk [unix:gid:8, unix:uid:8]".into(),
    ];
    assert_eq!(all.iter().map(|entry| told(entry)).collect::<Vec<_>>(), expected);
    let [_, _, berlin, web, stored, lazy] = &all[..] else { panic!("{all:?}") };
    assert_eq!((web.x509_svid_ttl(), web.to_pb().jwt_svid_ttl, web.hint()), (3600, 300, "public"));
    assert_eq!(web.dns_names(), ["web.example.org", "www.example.org"]);
    assert!(web.admin() && web.downstream() && !web.to_pb().store_svid);
    assert!(stored.to_pb().store_svid && stored.expires_at() == 4_000_000_000);
    assert_eq!((lazy.revision_number(), lazy.hint()), (1, "again"));
    assert_eq!((berlin.revision_number(), berlin.to_pb().additional_attributes), (0, None));
    assert!(all.iter().all(|entry| (1_795_661_600..1_795_661_700).contains(&entry.created_at())));
    let views = registry.authorized_entries(&id(&format!("spiffe://example.org/spire/agent/tpm2/{EK_SHA256}")), 1);
    assert_eq!(views.iter().map(|e| e.entry().id().to_owned()).collect::<Vec<_>>(), ["stored", "web"]);
}

#[tokio::test]
async fn agents_and_devices_of_schema_1_stand_where_they_stood() {
    let Old { registry, _directory, .. } = opened("schema1.sqlite3").await;
    let agents = registry.list_agents(&AgentFilter::default(), 0, "").expect("lists").items;
    let [kiosk, tpm] = &agents[..] else { panic!("{agents:?}") };
    assert_eq!((kiosk.spiffe_id.as_str(), kiosk.banned, kiosk.can_reattest), (KIOSK, true, false));
    assert_eq!(registry.agent_standing(&kiosk.spiffe_id, ""), AgentStanding::Banned);
    let AgentRecord { attestation_type, serial, not_after, banned, agent_version, ek_sha256, .. } = &**tpm;
    assert_eq!((attestation_type.as_str(), *not_after, *banned), ("tpm2", 1_795_748_019, false));
    assert_eq!(agent_version, "ironroot-agent 0.1.0");
    assert_eq!(ek_sha256.as_ref().map(hex).as_deref(), Some(EK_SHA256));
    assert_eq!(registry.agent_standing(&tpm.spiffe_id, serial), AgentStanding::Active);
    assert!(tpm.selectors.iter().any(|s| s.to_string() == "tpm2:label:ring:1"), "{:?}", tpm.selectors);
    let devices = registry.devices().list(&DeviceFilter::default(), 0, "").expect("lists").items;
    let [known, announced, banned] = &devices[..] else { panic!("{devices:?}") };
    assert_eq!((known.serial.as_str(), known.state), ("SN-0001", DeviceState::Enrolled));
    assert_eq!(known.agent_id.as_ref(), Some(&tpm.spiffe_id));
    let clock = registry.devices().last_clock(&known.ek_sha256).expect("it attested");
    assert_eq!((clock.clock_ms, clock.reset_count, clock.restart_count, clock.safe), (1249, 2, 0, true));
    assert_eq!(announced.labels["site"], "hall 2: left, second");
    assert_eq!((banned.ek_sha256, banned.state), ([0x22; 32], DeviceState::Banned));
}

#[tokio::test]
async fn the_token_and_the_ca_journal_of_schema_1_are_there_and_new_facts_join_the_old() {
    let Old { registry, store, path, _directory } = opened("schema1.sqlite3").await;
    let journal = store.ca_journal("").await.expect("reads").expect("a CA was founded");
    let trust_domain = TrustDomain::new("example.org").expect("legal");
    let journal = Journal::from_bytes(&journal, &trust_domain, &ServerName::default()).expect("the older server's CA");
    assert!(!journal.anchors().is_empty() && journal.slots(Purpose::X509Ca).active().is_some());
    assert_eq!(registry.prune_join_tokens(i64::MAX).await.expect("prunes"), 1, "the token");
    assert!(registry.entry("7fc19487-528c-4a4e-a387-18e0003dadb6").is_none(), "its alias went with it");
    let administrator = Administrator::local(PeerCredentials { pid: 1, uid: 0, gid: 0 });
    registry.delete_entry(&administrator, "lazy").await.answer().await.expect("deletes");
    store.close().await;
    let old = path.with_extension("sqlite3.v1");
    assert!(old.exists(), "a copy of the old file is left");
    let store = Store::open(&path, &TrustDomain::new("example.org").expect("legal")).expect("opens again");
    let registry = Registry::load(store).await.expect("loads");
    assert_eq!(registry.count_entries(&EntryFilter::default()), 4);
}
