//! The fleet: import, admission, approval, ban.

#[path = "support/grants.rs"]
mod grants;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ironroot_api::TrustDomain;
use ironroot_api::csr::Csr;
use ironroot_attest::Selector;
use ironroot_attest::ek_certificate::ManufacturerRoots;
use ironroot_attest::node::together;
use ironroot_attest::node::tpm2::{CHALLENGE_SECONDS, Claim, ClockReading};
use ironroot_attest::node::x509pop::{Authorities, Holder, SizeLimits};
use ironroot_server::cli::device::manifest::parse_manifest;
use ironroot_server::devices::NewDevice;
use ironroot_server::devices::{
    AdmissionPolicy, ContradictedChip, DeviceError, DeviceFilter, Devices, DuplicateSerials, MAX_PENDING, NotAdmitted,
    ProvenDevice,
};
use ironroot_server::facts::device::{BanReason, DeviceState, Sighting};
use ironroot_server::node_attestation::agent_path::AgentPathTemplate;
use ironroot_server::node_attestation::{
    AttestationError, AttestedNode, Attestor, Issuers, NodeAttestation, Progress, Together, Tpm2Refusal,
    X509POP_FIELDS, X509PopPolicy,
};
use ironroot_server::registry::{Registry, RegistryError};
use ironroot_server::store::Store;
use ironroot_software_tpm::SoftwareNode;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;
use tokio::time::Instant;

use grants::administrator;

const NOW: i64 = 1_000;
/// When certificates that are made without a word of the time are good.
const LATER: i64 = 1_796_083_200;

struct Fixture {
    _directory: TempDir,
    path: PathBuf,
    store: Store,
    registry: Registry,
    devices: Arc<Devices>,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("datastore.sqlite3");
        let store = Store::open(&path, &td()).expect("opens");
        let registry = Registry::load(store.clone()).await.expect("loads");
        let devices = registry.devices().clone();
        Self { _directory: directory, path, store, registry, devices }
    }

    async fn restart(&mut self) {
        self.store.close().await;
        self.store = Store::open(&self.path, &td()).expect("opens");
        self.registry = Registry::load(self.store.clone()).await.expect("loads");
        self.devices = self.registry.devices().clone();
    }

    /// What becomes of the chip's claim under each policy.
    fn admissions(&self, chip: &SoftwareNode) -> [&'static str; 3] {
        let makers = AdmissionPolicy::Manufacturer(ManufacturerRoots::default());
        [AdmissionPolicy::Enrolled, makers, AdmissionPolicy::Approval].map(|policy| {
            let claim = Claim::parse(&chip.evidence()).expect("honest evidence");
            match self.devices.admit(claim, &policy, NOW) {
                Ok(_) => "admitted",
                Err(NotAdmitted::Banned { .. }) => "banned",
                Err(NotAdmitted::NotEnrolled { .. }) => "unknown",
                Err(NotAdmitted::Evidence(_)) => "no maker vouches",
            }
        })
    }

    async fn enrol(&self, chip: &SoftwareNode) {
        let manifest = parse_manifest(&format!("ek_sha256,serial\n{},S1\n", ironroot_text::hex::hex(&ek(chip))));
        let devices = manifest.expect("good manifest");
        let imported = self.devices.import(&administrator(), devices, DuplicateSerials::Allowed, NOW).await;
        imported.expect("imports");
    }

    fn attestation(&self, admission: AdmissionPolicy) -> NodeAttestation {
        self.attestation_by(Attestor::Tpm2(Box::new(grants::tpm2(admission, "0"))))
    }

    fn attestation_by(&self, attestor: Attestor) -> NodeAttestation {
        NodeAttestation::new(td(), self.store.clone(), self.devices.clone(), vec![attestor])
    }

    async fn proven(&self, chip: &mut SoftwareNode, clock: ClockReading) -> AttestedNode {
        chip.clock = clock;
        grants::attested(&self.attestation(AdmissionPolicy::Enrolled), chip, NOW).await
    }

    /// The chip, which proves itself with a clock that is older than that of its last attestation.
    async fn contradicted(&self, chip: &mut SoftwareNode, clock: ClockReading) -> ContradictedChip {
        chip.clock = clock;
        match grants::attempt(&self.attestation(AdmissionPolicy::Enrolled), chip, NOW).await {
            Err(AttestationError::Tpm2(Tpm2Refusal::Contradiction { chip, .. })) => chip,
            other => panic!("{other:?}"),
        }
    }

    async fn attested(&self, node: &AttestedNode, now_unix: i64) -> Result<(), RegistryError> {
        self.registry.attest_agent(node, ("1", now_unix + 60), now_unix).await.map(drop)
    }

    fn state(&self, ek: u8) -> Option<DeviceState> {
        self.devices.device(&[ek; 32]).map(|device| device.state)
    }
}

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

/// SHA-256 of the chip's endorsement key.
fn ek(chip: &SoftwareNode) -> [u8; 32] {
    Claim::parse(&chip.evidence()).expect("honest evidence").ek_sha256()
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
        .import(&administrator(), manifest(&[(1, "S1", "berlin"), (2, "S2", "")]), DuplicateSerials::Refused, NOW)
        .await
        .expect("imports");
    assert_eq!(counts(&first), (2, 2, 0));
    let again = fixture
        .devices
        .import(&administrator(), manifest(&[(2, "S2", ""), (1, "S1", "berlin")]), DuplicateSerials::Refused, NOW + 1)
        .await
        .expect("imports");
    assert_eq!(counts(&again), (2, 0, 0));
    let moved = fixture
        .devices
        .import(&administrator(), manifest(&[(1, "S1", "paris"), (3, "S3", "")]), DuplicateSerials::Refused, NOW + 2)
        .await
        .expect("imports");
    assert_eq!(counts(&moved), (2, 1, 1));
    fixture.restart().await;
    let device = fixture.devices.device(&[1; 32]).expect("known");
    assert_eq!(
        (device.labels["site"].as_str(), device.created_at, device.state),
        ("paris", NOW, DeviceState::Enrolled)
    );
    let selectors: Vec<_> = device.selectors().iter().map(Selector::to_string).collect();
    assert_eq!(selectors, ["tpm2:label:site:paris", "tpm2:serial:S1"]);
}

#[tokio::test]
async fn an_import_enrols_who_waits_and_frees_no_one_who_is_banned() {
    let (fixture, waiting) = (Fixture::new().await, SoftwareNode::new());
    fixture.devices.record_pending(&grants::unvouched(&waiting), NOW).await.expect("notes");
    fixture.enrol(&waiting).await;
    assert_eq!(fixture.devices.device(&ek(&waiting)).map(|device| device.state), Some(DeviceState::Enrolled));
    fixture
        .devices
        .import(&administrator(), manifest(&[(2, "S2", "berlin")]), DuplicateSerials::Refused, NOW)
        .await
        .expect("imports");
    fixture.devices.ban(&administrator(), &[2; 32], NOW).await.map(drop).expect("bans");
    fixture
        .devices
        .import(&administrator(), manifest(&[(1, "S7", ""), (2, "S2b", "berlin")]), DuplicateSerials::Refused, NOW)
        .await
        .expect("imports");
    assert_eq!((fixture.state(1), fixture.state(2)), (Some(DeviceState::Enrolled), Some(DeviceState::Banned)));
    assert_eq!(fixture.devices.device(&[2; 32]).expect("known").serial, "S2b");
    assert!(matches!(fixture.devices.approve(&administrator(), &[2; 32]).await, Err(DeviceError::Banned)));
}

#[tokio::test]
async fn an_import_changes_only_what_it_names_and_says_what_it_changed() {
    let fixture = Fixture::new().await;
    let ek = "01".repeat(32);
    let import = async |text: String| {
        let devices = parse_manifest(&text).expect("good manifest");
        let mut imported =
            fixture.devices.import(&administrator(), devices, DuplicateSerials::Refused, NOW).await.expect("imports");
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
    fixture.devices.ban(&administrator(), &[1; 32], NOW).await.map(drop).expect("banned");
    let (_, _, changes) = import(format!("ek_sha256\n{ek}\n")).await;
    assert_eq!(
        changes,
        ["banned, and stays so: delete it, evict its agent if it had one, and import it again to let it attest"]
    );
}

#[tokio::test]
async fn two_devices_do_not_come_to_have_one_serial_unless_that_is_said() {
    let fixture = Fixture::new().await;
    let by = administrator();
    let import = |lines: &[(u8, &str, &str)], duplicates| fixture.devices.import(&by, manifest(lines), duplicates, NOW);
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
async fn devices_are_approved_with_a_description_if_all_are_known_and_not_banned_or_none_is() {
    let (fixture, by, waiting) = (Fixture::new().await, administrator(), SoftwareNode::new());
    fixture.devices.record_pending(&grants::unvouched(&waiting), NOW).await.expect("notes");
    let first: Vec<_> = manifest(&[(1, "S1", ""), (2, "S2", "")]);
    fixture.devices.import(&by, first, DuplicateSerials::Refused, NOW).await.expect("imports");
    fixture.devices.ban(&by, &[2; 32], NOW).await.map(drop).expect("bans");
    let waits = format!("{},S3,rome\n", ironroot_text::hex::hex(&ek(&waiting)));
    let approve = async |others: &[u8]| {
        let others = others.iter().map(|ek| format!("{},,rome\n", format!("{ek:02x}").repeat(32)));
        let manifest = format!("ek_sha256,serial,label:site\n{waits}{}", others.collect::<String>());
        let devices = parse_manifest(&manifest).expect("good");
        fixture.devices.approve_described(&by, devices, DuplicateSerials::Refused, NOW).await
    };
    let banned = approve(&[1, 2]).await.expect_err("one is banned");
    assert!(matches!(&banned, DeviceError::BannedAmong { ek_sha256 } if *ek_sha256 == "02".repeat(32)), "{banned}");
    let deleted = approve(&[1, 3]).await.expect_err("one is not known");
    assert!(matches!(&deleted, DeviceError::UnknownAmong { ek_sha256 } if *ek_sha256 == "03".repeat(32)), "{deleted}");
    let state = || fixture.devices.device(&ek(&waiting)).map(|device| device.state);
    assert_eq!((state(), fixture.state(3)), (Some(DeviceState::Pending), None), "nothing was kept");
    assert_eq!(fixture.devices.device(&[1; 32]).expect("known").labels.get("site"), None);
    approve(&[1]).await.expect("both are known");
    assert_eq!(state(), Some(DeviceState::Enrolled));
}

#[tokio::test]
async fn admission_is_a_table_of_mode_and_state() {
    let fixture = Fixture::new().await;
    let [stranger, waiting, enrolled, banned] = [(); 4].map(|()| SoftwareNode::new());
    fixture.devices.record_pending(&grants::unvouched(&waiting), NOW).await.expect("notes");
    for chip in [&enrolled, &banned] {
        fixture.enrol(chip).await;
    }
    fixture.devices.ban(&administrator(), &ek(&banned), NOW).await.map(drop).expect("bans");
    assert_eq!(fixture.admissions(&stranger), ["unknown", "no maker vouches", "admitted"]);
    assert_eq!(fixture.admissions(&waiting), ["admitted", "no maker vouches", "admitted"]);
    assert_eq!(fixture.admissions(&enrolled), ["admitted"; 3]);
    assert_eq!(fixture.admissions(&banned), ["banned"; 3]);
}

#[tokio::test]
async fn a_device_that_nobody_vouches_for_proves_its_key_and_waits() {
    let (fixture, chip) = (Fixture::new().await, SoftwareNode::new());
    assert_eq!(ProvenDevice::of(&grants::unvouched(&chip)), None, "it is no proven device");
    let attestation = fixture.attestation(AdmissionPolicy::Approval);
    for _ in 0..2 {
        let waits = grants::attempt(&attestation, &chip, NOW).await;
        let Err(AttestationError::Tpm2(Tpm2Refusal::ApprovalPending { chip: proven, .. })) = waits else {
            panic!("{waits:?}")
        };
        let was_known = fixture.devices.device(&ek(&chip)).is_some();
        let noted = fixture.devices.record_pending(&proven, NOW).await.expect("notes");
        assert_eq!(noted, !was_known, "it has one row");
        assert_eq!(fixture.devices.device(&ek(&chip)).map(|device| device.state), Some(DeviceState::Pending));
    }
    fixture.devices.approve(&administrator(), &ek(&chip)).await.expect("approves");
    grants::attempt(&attestation, &chip, NOW).await.map(drop).expect("an operator vouches for it");
}

#[tokio::test]
async fn strangers_fill_a_bounded_list_only() {
    let mut fixture = Fixture::new().await;
    let strangers: Vec<_> = (0..=MAX_PENDING).map(|_| grants::unvouched(&SoftwareNode::new())).collect();
    let (last, others) = strangers.split_last().expect("many");
    let all = others.iter().map(|stranger| fixture.devices.record_pending(stranger, NOW));
    futures_util::future::join_all(all).await.into_iter().for_each(|r| r.map(drop).expect("notes"));
    fixture.restart().await;
    assert!(matches!(fixture.devices.record_pending(last, NOW).await, Err(DeviceError::TooManyPending)));
    fixture.devices.record_pending(&others[0], NOW).await.expect("is noted already");
    fixture.devices.approve(&administrator(), &others[0].ek_sha256()).await.expect("approves");
    fixture.devices.record_pending(last, NOW).await.expect("there is room again");
    let pending = fixture.devices.list(&filter(Some(DeviceState::Pending), &BTreeMap::new()), 0, "").expect("lists");
    assert_eq!(pending.items.len() as i64, MAX_PENDING);
}

#[tokio::test]
async fn an_attestation_leaves_its_agent_and_its_clock() {
    let (mut fixture, mut chip) = (Fixture::new().await, SoftwareNode::new());
    fixture.enrol(&chip).await;
    assert_eq!(fixture.devices.last_clock(&ek(&chip)), None);
    let reading = ClockReading { clock_ms: u64::MAX, reset_count: u32::MAX, restart_count: 7, safe: false };
    let node = fixture.proven(&mut chip, reading).await;
    fixture.attested(&node, NOW + 5).await.expect("notes");
    assert_eq!(fixture.devices.last_clock(&ek(&chip)), Some(reading));
    fixture.restart().await;
    assert_eq!(fixture.devices.last_clock(&ek(&chip)), Some(reading));
    let device = fixture.devices.device(&ek(&chip)).expect("known");
    assert_eq!((device.last_attested_at, device.agent_id.as_ref()), (NOW + 5, Some(node.id())));
    // A new import keeps what attestation found.
    fixture.enrol(&chip).await;
    assert_eq!(fixture.devices.last_clock(&ek(&chip)), Some(reading));
    assert_eq!(fixture.devices.device(&ek(&chip)).expect("known").last_attested_at, NOW + 5);
}

#[tokio::test]
async fn a_clock_that_went_back_meanwhile_is_refused() {
    let (fixture, mut chip) = (Fixture::new().await, SoftwareNode::new());
    fixture.enrol(&chip).await;
    let older = fixture.proven(&mut chip, clock(5, 8)).await;
    let newer = fixture.proven(&mut chip, clock(5, 9)).await;
    fixture.attested(&newer, NOW).await.expect("notes");
    let refused = fixture.attested(&older, NOW).await;
    assert!(matches!(refused, Err(RegistryError::Device(DeviceError::Clock(_)))), "{refused:?}");
    assert_eq!(fixture.devices.last_clock(&ek(&chip)), Some(clock(5, 9)));
}

#[tokio::test]
async fn a_ban_during_an_attestation_wins() {
    let (fixture, mut chip) = (Fixture::new().await, SoftwareNode::new());
    fixture.enrol(&chip).await;
    let first = fixture.proven(&mut chip, clock(1, 1)).await;
    fixture.attested(&first, NOW).await.expect("notes");
    let late = fixture.proven(&mut chip, clock(2, 1)).await;
    let banned = fixture.devices.ban(&administrator(), &ek(&chip), NOW).await.expect("bans");
    assert_eq!(banned.agents, [first.id().clone()], "banned with it");
    assert!(matches!(fixture.attested(&late, NOW).await, Err(RegistryError::AgentBanned)));
    fixture.registry.delete_agent(&administrator(), first.id()).await.expect("deletes");
    assert!(matches!(fixture.attested(&late, NOW).await, Err(RegistryError::Device(DeviceError::Banned))));
}

#[tokio::test]
async fn a_deleted_device_is_unknown() {
    let mut fixture = Fixture::new().await;
    fixture
        .devices
        .import(&administrator(), manifest(&[(1, "S1", "")]), DuplicateSerials::Refused, NOW)
        .await
        .expect("imports");
    fixture.devices.ban(&administrator(), &[1; 32], NOW).await.map(drop).expect("bans");
    fixture.devices.delete(&administrator(), &[1; 32]).await.expect("deletes");
    fixture.restart().await;
    assert_eq!(fixture.state(1), None);
    assert!(matches!(fixture.devices.delete(&administrator(), &[1; 32]).await, Err(DeviceError::NotFound)));
    assert!(matches!(fixture.devices.ban(&administrator(), &[1; 32], NOW).await, Err(DeviceError::NotFound)));
    assert!(matches!(fixture.devices.approve(&administrator(), &[1; 32]).await, Err(DeviceError::NotFound)));
}

#[tokio::test]
async fn the_reason_of_a_ban_is_kept_with_its_evidence_over_a_restart_and_a_second_ban() {
    let (mut fixture, mut chip) = (Fixture::new().await, SoftwareNode::new());
    fixture.enrol(&chip).await;
    let first = fixture.proven(&mut chip, clock(7, 2)).await;
    fixture.attested(&first, NOW).await.expect("notes");
    let sighting = |at, address: &str| Sighting { at, address: address.into(), what: "spoke".into() };
    let older = fixture.contradicted(&mut chip, clock(7, 1)).await;
    fixture.devices.note_contradiction(&older, "10.0.0.1:1".into(), NOW).await.expect("notes");
    let opened_before = Instant::now() - std::time::Duration::from_secs(60);
    let here = sighting(NOW + 1, "10.0.0.2:2");
    let proof = fixture.devices.fork_by_connection(&ek(&chip), opened_before, here.clone()).expect("it runs twice");
    fixture.devices.ban_copied(&proof, NOW + 1).await.map(drop).expect("bans");
    fixture.devices.ban(&administrator(), &ek(&chip), NOW + 2).await.map(drop).expect("is banned already");
    fixture.enrol(&chip).await;
    fixture.restart().await;
    let ban = fixture.devices.device(&ek(&chip)).and_then(|device| device.ban.clone()).expect("a reason");
    let BanReason::RunsTwice { sightings: [first, second] } = ban.reason else { panic!("{ban:?}") };
    assert_eq!((ban.at, first.address.as_str(), first.at, second), (NOW + 1, "10.0.0.1:1", NOW, here));
    assert_eq!(fixture.admissions(&chip), ["banned"; 3]);
}

#[tokio::test]
async fn what_speaks_against_a_chip_proves_a_copy_after_a_restart_too_until_it_attests_or_is_deleted() {
    let (mut fixture, mut chip) = (Fixture::new().await, SoftwareNode::new());
    fixture.enrol(&chip).await;
    let here = || Sighting { at: NOW, address: "10.0.0.2:2".into(), what: "spoke".into() };
    let day_ms = 24 * 3600 * 1000;
    let first = fixture.proven(&mut chip, clock(day_ms, 3)).await;
    fixture.attested(&first, NOW).await.expect("notes");
    for reset_count in [2, 1] {
        let older = fixture.contradicted(&mut chip, clock(7, reset_count)).await;
        fixture.devices.note_contradiction(&older, "10.0.0.1:1".into(), NOW).await.expect("notes");
    }
    fixture.restart().await;
    assert!(fixture.devices.suspects_any());
    let long_ago = Instant::now() - std::time::Duration::from_secs(60);
    assert!(fixture.devices.fork_by_connection(&ek(&chip), long_ago, here()).is_none(), "all connections are new");
    let again = fixture.proven(&mut chip, clock(day_ms + 1, 3)).await;
    let device = again.device().expect("a chip");
    let proof = fixture.devices.fork_by_clock(device, here(), NOW + 60).expect("a day ahead after a minute");
    assert_eq!(proof.sightings()[0].address, "10.0.0.1:1");
    assert!(
        fixture.devices.fork_by_clock(device, here(), NOW + 2 * 24 * 3600).is_none(),
        "after two days it can be there"
    );
    fixture.attested(&again, NOW + 2 * 24 * 3600).await.expect("notes");
    assert!(!fixture.devices.suspects_any(), "it has attested since");
    let older = fixture.contradicted(&mut chip, clock(7, 1)).await;
    fixture.devices.note_contradiction(&older, String::new(), NOW).await.expect("notes");
    fixture.devices.delete(&administrator(), &ek(&chip)).await.expect("deletes");
    let gone = fixture.devices.note_contradiction(&older, String::new(), NOW).await;
    assert!(matches!(gone, Err(DeviceError::NotFound)), "{gone:?}");
    for _ in 0..2 {
        assert!(!fixture.devices.suspects_any());
        fixture.restart().await;
    }
}

#[tokio::test]
async fn devices_are_listed_by_state_and_label_in_pages() {
    let fixture = Fixture::new().await;
    let fleet: Vec<_> = (1..=9).map(|n| (n, "S", if n % 2 == 0 { "berlin" } else { "paris" })).collect();
    fixture.devices.import(&administrator(), manifest(&fleet), DuplicateSerials::Allowed, NOW).await.expect("imports");
    fixture.devices.ban(&administrator(), &[4; 32], NOW).await.map(drop).expect("bans");
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
    let (fixture, mut chip) = (Fixture::new().await, SoftwareNode::new());
    fixture.enrol(&chip).await;
    let node = fixture.proven(&mut chip, clock(1, 1)).await;
    fixture.devices.delete(&administrator(), &ek(&chip)).await.expect("deletes");
    let refused = fixture.attested(&node, NOW).await;
    assert!(matches!(refused, Err(RegistryError::Device(DeviceError::NotFound))), "{refused:?}");
    assert!(fixture.devices.device(&ek(&chip)).is_none() && fixture.registry.agent(node.id()).is_none());
}

/// A slow chip works for minutes, and the agent sends all answers at once.
#[tokio::test]
async fn a_certificate_that_is_proven_together_with_a_chip_waits_for_it() {
    let (fixture, chip, mut ca) = (Fixture::new().await, SoftwareNode::new(), CertificateParams::default());
    fixture.enrol(&chip).await;
    let [ca_key, key, leaf_key] = [(); 3].map(|()| KeyPair::generate().expect("a key"));
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = ca.self_signed(&ca_key).expect("signed").der().to_vec();
    let mut device = CertificateParams::default();
    device.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let leaf = device.signed_by(&key, &Issuer::new(ca, ca_key)).expect("signed").der().to_vec();
    let holder = Holder::new(vec![leaf], &PrivatePkcs8KeyDer::from(key.serialize_der()).into()).expect("its key");
    let policy = X509PopPolicy {
        issuers: Issuers::Named(Authorities::from_der(&[root]).expect("an authority")),
        limits: SizeLimits::default(),
        agent_path: AgentPathTemplate::parse("/x509pop/{{ .Fingerprint }}", X509POP_FIELDS).expect("legal"),
        verify_client_ip: false,
    };
    let parts =
        [Attestor::Tpm2(Box::new(grants::tpm2(AdmissionPolicy::Enrolled, "0"))), Attestor::X509Pop(Arc::new(policy))];
    let [first, other] = parts;
    let attestation = fixture.attestation_by(Attestor::Together(Box::new(Together::new(first, vec![other]))));
    let evidence = together::join(&[chip.evidence(), holder.evidence()]);
    let request = CertificateParams::default().serialize_request(&leaf_key).expect("a request");
    for (seconds, is_late) in [(CHALLENGE_SECONDS, false), (CHALLENGE_SECONDS + 1, true)] {
        let csr = Csr::parse(request.der()).expect("an honest request");
        let read = attestation.read("tpm2+x509pop", &evidence).expect("reads");
        let begun = attestation.begin(read, csr, &grants::at(LATER)).await.expect("begins");
        let Progress::Challenge(challenge, bytes) = begun else { panic!("{begun:?}") };
        let asked = together::split(&bytes, 2).expect("both");
        let spki = leaf_key.subject_public_key_info();
        let answers = [chip.answer(asked[0], "td", &spki), holder.respond(asked[1], [2; 32]).expect("answers")];
        let judged = attestation.answer(challenge, &together::join(&answers), LATER + seconds).await;
        assert_eq!(judged.is_err(), is_late, "{judged:?}");
    }
}
