//! The fleet: import, admission, approval, ban.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_attest::Selector;
use ironroot_attest::node::tpm2::ClockReading;
use ironroot_server::cli::device::manifest::parse_manifest;
use ironroot_server::devices::NewDevice;
use ironroot_server::devices::{
    AdmissionMode, Contradiction, DeviceDecision, DeviceError, DeviceFilter, Devices, DuplicateSerials, MAX_PENDING,
};
use ironroot_server::facts::device::{Ban, BanReason, DeviceState, Sighting};
use ironroot_server::node_attestation::ProvenDevice;
use ironroot_server::store::Store;
use tempfile::TempDir;

const NOW: i64 = 1_000;

struct Fixture {
    _directory: TempDir,
    path: PathBuf,
    store: Store,
    devices: Devices,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("datastore.sqlite3");
        let store = Store::open(&path, &td()).expect("opens");
        let devices = Devices::load(store.clone()).await.expect("loads");
        Self { _directory: directory, path, store, devices }
    }

    async fn restart(&mut self) {
        self.store.close().await;
        self.store = Store::open(&self.path, &td()).expect("opens");
        self.devices = Devices::load(self.store.clone()).await.expect("loads");
    }

    fn decisions(&self, ek: u8) -> [DeviceDecision; 3] {
        use AdmissionMode::{EnrolledOnly, ManufacturerRoots, PendingApproval};
        [EnrolledOnly, ManufacturerRoots, PendingApproval].map(|mode| self.devices.decide(&[ek; 32], mode))
    }

    fn state(&self, ek: u8) -> Option<DeviceState> {
        self.devices.device(&[ek; 32]).map(|device| device.state)
    }
}

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

fn agent() -> SpiffeId {
    td().id_with_path("/spire/agent/tpm2/x").expect("legal")
}

fn ban() -> Ban {
    Ban { at: NOW, reason: BanReason::Administrator { by: "local".into() } }
}

fn clock(clock_ms: u64, reset_count: u32) -> ClockReading {
    ClockReading { clock_ms, reset_count, restart_count: 0, safe: true }
}

fn filter(state: Option<DeviceState>, labels: &BTreeMap<String, String>) -> DeviceFilter {
    DeviceFilter { state, labels: labels.clone(), ..DeviceFilter::default() }
}

/// `ek,serial,site` lines.
fn manifest(lines: &[(u8, &str, &str)]) -> Vec<NewDevice> {
    let rows = lines.iter().map(|(ek, serial, site)| format!("{},{serial},{site}\n", format!("{ek:02x}").repeat(32)));
    parse_manifest(&format!("ek_sha256,serial,label:site\n{}", rows.collect::<String>())).expect("good manifest")
}

#[tokio::test]
async fn the_same_import_again_changes_nothing_and_another_updates() {
    let mut fixture = Fixture::new().await;
    let counts =
        |imported: &ironroot_server::devices::Imported| (imported.devices.len(), imported.created, imported.updated);
    let first = fixture
        .devices
        .import(manifest(&[(1, "S1", "berlin"), (2, "S2", "")]), DuplicateSerials::Refused, NOW)
        .await
        .expect("imports");
    assert_eq!(counts(&first), (2, 2, 0));
    let again = fixture
        .devices
        .import(manifest(&[(2, "S2", ""), (1, "S1", "berlin")]), DuplicateSerials::Refused, NOW + 1)
        .await
        .expect("imports");
    assert_eq!(counts(&again), (2, 0, 0));
    let moved = fixture
        .devices
        .import(manifest(&[(1, "S1", "paris"), (3, "S3", "")]), DuplicateSerials::Refused, NOW + 2)
        .await
        .expect("imports");
    assert_eq!(counts(&moved), (2, 1, 1));
    fixture.restart().await;
    let device = fixture.devices.device(&[1; 32]).expect("known");
    assert_eq!(
        (device.labels["site"].as_str(), device.created_at, device.state),
        ("paris", NOW, DeviceState::Enrolled)
    );
    let selectors: Vec<_> = fixture.devices.selectors(&[1; 32]).iter().map(Selector::to_string).collect();
    assert_eq!(selectors, ["tpm2:label:site:paris", "tpm2:serial:S1"]);
}

#[tokio::test]
async fn an_import_enrols_who_waits_and_frees_no_one_who_is_banned() {
    let fixture = Fixture::new().await;
    fixture.devices.record_pending([1; 32], NOW).await.expect("notes");
    fixture.devices.import(manifest(&[(2, "S2", "berlin")]), DuplicateSerials::Refused, NOW).await.expect("imports");
    fixture.devices.ban(&[2; 32], ban()).await.expect("bans");
    fixture
        .devices
        .import(manifest(&[(1, "S1", ""), (2, "S2b", "berlin")]), DuplicateSerials::Refused, NOW)
        .await
        .expect("imports");
    assert_eq!((fixture.state(1), fixture.state(2)), (Some(DeviceState::Enrolled), Some(DeviceState::Banned)));
    assert_eq!(fixture.devices.device(&[2; 32]).expect("known").serial, "S2b");
    assert!(fixture.devices.selectors(&[2; 32]).is_empty());
    assert!(matches!(fixture.devices.approve(&[2; 32]).await, Err(DeviceError::Banned)));
}

#[tokio::test]
async fn an_import_changes_only_what_it_names_and_says_what_it_changed() {
    let fixture = Fixture::new().await;
    let ek = "01".repeat(32);
    let import = async |text: String| {
        let devices = parse_manifest(&text).expect("good manifest");
        let mut imported = fixture.devices.import(devices, DuplicateSerials::Refused, NOW).await.expect("imports");
        let (device, changes) = imported.devices.swap_remove(0);
        (device.serial.clone(), device.labels.clone(), changes)
    };
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let (_, _, changes) = import(format!("ek_sha256,serial,label:site,label:line\n{ek},SN-1,berlin,a\n")).await;
    assert_eq!(changes, [""; 0], "new, not changed");
    let (serial, known, changes) = import(format!("ek_sha256,label:site\n{ek},rome\n")).await;
    assert_eq!((serial.as_str(), known), ("SN-1", labels(&[("line", "a"), ("site", "rome")])));
    assert_eq!(changes, ["label site berlin -> rome"]);
    let (serial, known, changes) = import(format!("ek_sha256,serial,label:line,label:hall\n{ek},,,2\n")).await;
    assert_eq!((serial.as_str(), known), ("", labels(&[("hall", "2"), ("site", "rome")])));
    assert_eq!(changes, ["serial SN-1 removed", "label hall 2 added", "label line a removed"]);
    fixture.devices.ban(&[1; 32], ban()).await.expect("banned");
    let (_, _, changes) = import(format!("ek_sha256\n{ek}\n")).await;
    assert_eq!(changes, ["banned, and stays so: delete it and import it again to let it attest"]);
}

#[tokio::test]
async fn two_devices_do_not_come_to_have_one_serial_unless_that_is_said() {
    let fixture = Fixture::new().await;
    let import = |lines: &[(u8, &str, &str)], duplicates| fixture.devices.import(manifest(lines), duplicates, NOW);
    import(&[(1, "S1", ""), (2, "S2", ""), (3, "", ""), (4, "", "")], DuplicateSerials::Refused).await.expect("unlike");
    for taken in [&[(5, "S1", "")][..], &[(5, "S5", ""), (6, "S5", "")], &[(2, "S1", "")]] {
        let refused = import(taken, DuplicateSerials::Refused).await.expect_err("duplicate");
        assert!(matches!(refused, DeviceError::DuplicateSerials { count: 1, .. }), "{refused}");
    }
    assert!(fixture.state(5).is_none() && fixture.state(6).is_none(), "nothing of a refused import is kept");
    import(&[(1, "S2", ""), (2, "S1", "")], DuplicateSerials::Refused).await.expect("they exchanged their serials");
    import(&[(5, "S1", "")], DuplicateSerials::Allowed).await.expect("said");
    import(&[(5, "S1", "rome")], DuplicateSerials::Refused).await.expect("no new duplicate");
}

#[tokio::test]
async fn admission_is_a_table_of_mode_and_state() {
    use DeviceDecision::{AskManufacturer, Banned, Enrolled, RecordPending, Unknown};
    let fixture = Fixture::new().await;
    fixture.devices.record_pending([1; 32], NOW).await.expect("notes");
    fixture
        .devices
        .import(manifest(&[(2, "", ""), (3, "", "")]), DuplicateSerials::Refused, NOW)
        .await
        .expect("imports");
    fixture.devices.ban(&[3; 32], ban()).await.expect("bans");
    assert_eq!(fixture.decisions(0), [Unknown, AskManufacturer, RecordPending]);
    assert_eq!(fixture.decisions(1), [RecordPending, AskManufacturer, RecordPending]);
    assert_eq!(fixture.decisions(2), [Enrolled; 3]);
    assert_eq!(fixture.decisions(3), [Banned; 3]);
}

#[tokio::test]
async fn strangers_fill_a_bounded_list_only() {
    let mut fixture = Fixture::new().await;
    let ek = |n: i64| {
        let mut ek = [0; 32];
        ek[..8].copy_from_slice(&n.to_be_bytes());
        ek
    };
    let all = (0..MAX_PENDING).map(|n| fixture.devices.record_pending(ek(n), NOW));
    futures_util::future::join_all(all).await.into_iter().for_each(|r| r.expect("notes"));
    fixture.restart().await;
    assert!(matches!(fixture.devices.record_pending(ek(MAX_PENDING), NOW).await, Err(DeviceError::TooManyPending)));
    fixture.devices.record_pending(ek(0), NOW).await.expect("is noted already");
    fixture.devices.approve(&ek(0)).await.expect("approves");
    fixture.devices.record_pending(ek(MAX_PENDING), NOW).await.expect("there is room again");
    let pending = fixture.devices.list(&filter(Some(DeviceState::Pending), &BTreeMap::new()), 0, "").expect("lists");
    assert_eq!(pending.items.len() as i64, MAX_PENDING);
}

#[tokio::test]
async fn an_attestation_leaves_its_agent_and_its_clock() {
    let mut fixture = Fixture::new().await;
    fixture.devices.import(manifest(&[(1, "S1", "")]), DuplicateSerials::Refused, NOW).await.expect("imports");
    assert_eq!(fixture.devices.last_clock(&[1; 32]), None);
    let reading = ClockReading { clock_ms: u64::MAX, reset_count: u32::MAX, restart_count: 7, safe: false };
    fixture.devices.attested(proven(reading), &agent(), NOW + 5).await.expect("notes");
    fixture.restart().await;
    assert_eq!(fixture.devices.last_clock(&[1; 32]), Some(reading));
    let device = fixture.devices.device(&[1; 32]).expect("known");
    assert_eq!((device.last_attested_at, device.agent_id.as_ref()), (NOW + 5, Some(&agent())));
    // A new import keeps what attestation found.
    fixture.devices.import(manifest(&[(1, "S9", "")]), DuplicateSerials::Refused, NOW).await.expect("imports");
    assert_eq!(fixture.devices.last_clock(&[1; 32]), Some(reading));
    assert_eq!(fixture.devices.device(&[1; 32]).expect("known").last_attested_at, NOW + 5);
}

#[tokio::test]
async fn a_clock_that_went_back_meanwhile_is_refused() {
    let fixture = Fixture::new().await;
    fixture.devices.import(manifest(&[(1, "S1", "")]), DuplicateSerials::Refused, NOW).await.expect("imports");
    fixture.devices.attested(proven(clock(5, 9)), &agent(), NOW).await.expect("notes");
    let older = fixture.devices.attested(proven(clock(5, 8)), &agent(), NOW).await;
    assert!(matches!(older, Err(DeviceError::Clock(_))));
    assert_eq!(fixture.devices.last_clock(&[1; 32]), Some(clock(5, 9)));
}

#[tokio::test]
async fn a_device_its_manufacturer_vouches_for_is_enrolled_by_attesting() {
    let fixture = Fixture::new().await;
    fixture.devices.attested(proven(clock(1, 1)), &agent(), NOW).await.expect("notes");
    assert_eq!(fixture.state(1), Some(DeviceState::Enrolled));
}

#[tokio::test]
async fn a_ban_during_an_attestation_wins() {
    let fixture = Fixture::new().await;
    fixture.devices.import(manifest(&[(1, "S1", "")]), DuplicateSerials::Refused, NOW).await.expect("imports");
    fixture.devices.attested(proven(clock(1, 1)), &agent(), NOW).await.expect("notes");
    let banned = fixture.devices.ban(&[1; 32], ban()).await.expect("bans");
    assert_eq!(banned.agent_id, Some(agent()), "the agent to ban with it");
    let late = fixture.devices.attested(proven(clock(2, 1)), &agent(), NOW).await;
    assert!(matches!(late, Err(DeviceError::Banned)));
}

#[tokio::test]
async fn a_deleted_device_is_unknown() {
    let mut fixture = Fixture::new().await;
    fixture.devices.import(manifest(&[(1, "S1", "")]), DuplicateSerials::Refused, NOW).await.expect("imports");
    fixture.devices.ban(&[1; 32], ban()).await.expect("bans");
    fixture.devices.delete(&[1; 32]).await.expect("deletes");
    fixture.restart().await;
    assert_eq!(fixture.state(1), None);
    assert!(matches!(fixture.devices.delete(&[1; 32]).await, Err(DeviceError::NotFound)));
    assert!(matches!(fixture.devices.ban(&[1; 32], ban()).await, Err(DeviceError::NotFound)));
    assert!(matches!(fixture.devices.approve(&[1; 32]).await, Err(DeviceError::NotFound)));
}

#[tokio::test]
async fn the_reason_of_a_ban_is_kept_with_its_evidence_over_a_restart_and_a_second_ban() {
    let mut fixture = Fixture::new().await;
    fixture.devices.import(manifest(&[(1, "S1", "")]), DuplicateSerials::Refused, NOW).await.expect("imports");
    let sighting = |address: &str| Sighting { at: NOW, address: address.into(), what: "spoke".into() };
    let reason = BanReason::RunsTwice { sightings: [sighting("10.0.0.1:1"), sighting("10.0.0.2:2")] };
    let evidence = Ban { at: NOW + 1, reason };
    fixture.devices.ban(&[1; 32], evidence.clone()).await.expect("bans");
    fixture.devices.ban(&[1; 32], ban()).await.expect("is banned already");
    fixture.devices.import(manifest(&[(1, "S2", "")]), DuplicateSerials::Refused, NOW).await.expect("imports");
    fixture.restart().await;
    assert_eq!(fixture.devices.device(&[1; 32]).and_then(|device| device.ban.clone()), Some(evidence));
}

#[tokio::test]
async fn what_speaks_against_a_chip_is_kept_over_a_restart_until_it_attests_or_is_deleted() {
    let mut fixture = Fixture::new().await;
    let fleet = [(1, "S1", ""), (2, "S2", "")];
    fixture.devices.import(manifest(&fleet), DuplicateSerials::Refused, NOW).await.expect("imports");
    fixture.devices.attested(proven(clock(9, 9)), &agent(), NOW).await.expect("notes");
    let seen = |reset_count| Contradiction { at_unix: NOW, address: "10.0.0.1:1".into(), clock: clock(7, reset_count) };
    for (ek, reset_count) in [(1, 3), (1, 4), (2, 1)] {
        fixture.devices.note_contradiction([ek; 32], seen(reset_count)).await.expect("notes");
    }
    let stranger = fixture.devices.note_contradiction([3; 32], seen(1)).await;
    assert!(matches!(stranger, Err(DeviceError::NotFound)), "{stranger:?}");
    fixture.restart().await;
    assert_eq!(fixture.devices.contradiction(&[1; 32]), Some(seen(4)), "the newest");
    fixture.devices.attested(proven(clock(10, 9)), &agent(), NOW).await.expect("notes");
    fixture.devices.delete(&[2; 32]).await.expect("deletes");
    for _ in 0..2 {
        assert_eq!([1, 2].map(|ek| fixture.devices.contradiction(&[ek; 32])), [None, None]);
        fixture.restart().await;
    }
}

#[tokio::test]
async fn devices_are_listed_by_state_and_label_in_pages() {
    let fixture = Fixture::new().await;
    let fleet: Vec<_> = (1..=9).map(|n| (n, "S", if n % 2 == 0 { "berlin" } else { "paris" })).collect();
    fixture.devices.import(manifest(&fleet), DuplicateSerials::Allowed, NOW).await.expect("imports");
    fixture.devices.ban(&[4; 32], ban()).await.expect("bans");
    let berlin = BTreeMap::from([("site".to_owned(), "berlin".to_owned())]);
    let (mut eks, mut token) = (Vec::new(), String::new());
    loop {
        let page = fixture.devices.list(&filter(Some(DeviceState::Enrolled), &berlin), 2, &token).expect("lists");
        eks.extend(page.items.iter().map(|device| device.ek_sha256[0]));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(eks, [2, 6, 8]);
    assert_eq!(fixture.devices.list(&filter(None, &berlin), 0, "").expect("lists").items.len(), 4);
    let forged = fixture.devices.list(&filter(None, &berlin), 2, "x");
    assert!(matches!(forged, Err(DeviceError::PageToken(_))));
}

#[tokio::test]
async fn a_device_deleted_while_it_attested_does_not_come_back() {
    let fixture = Fixture::new().await;
    let gone = ProvenDevice { may_be_new: false, ..proven(clock(1, 1)) };
    let refused = fixture.devices.attested(gone, &agent(), NOW).await;
    assert!(matches!(refused, Err(DeviceError::NotFound)), "{refused:?}");
    assert!(fixture.devices.device(&[1; 32]).is_none());
}

/// An endorsement key that its manufacturer vouched for.
fn proven(clock: ClockReading) -> ProvenDevice {
    ProvenDevice { ek_sha256: [1; 32], clock, may_be_new: true }
}
