//! What a device has booted, and may have booted: kept with it, and held against policies at each attestation and each sync.

#[path = "support/grants.rs"]
mod grants;

use ironroot_api::pb::device as device_pb;
use ironroot_api::pb::pcr_policy as pb;
use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_attest::event_log::EventLogError;
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::EventLogPolicy;
use ironroot_server::devices::{AdmissionPolicy, DuplicateSerials, NewDevice, NewPolicy, PolicyError, Standing};
use ironroot_server::facts::device::{MAX_BOOTS, boots_to_pb};
use ironroot_server::node_attestation::{
    AttestationError, Attestor, BootPolicy, Fault, NodeAttestation, Tpm2Policy, Tpm2Refusal,
};
use ironroot_server::registry::Registry;
use ironroot_server::store::Store;
use ironroot_software_tpm::{BootLog, SoftwareNode};
use ironroot_text::hex::hex;

use grants::administrator;

const NOW: i64 = 1_000;
const GROUP: &str = "/trusted";

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

fn good() -> BootLog {
    BootLog::booted(true, b"loader 1")
}

fn updated() -> BootLog {
    BootLog::booted(true, b"loader 2")
}

fn insecure() -> BootLog {
    BootLog::booted(false, b"loader 1")
}

struct Fleet {
    store: Store,
    registry: Registry,
    attestation: NodeAttestation,
    directory: tempfile::TempDir,
}

impl Fleet {
    async fn new(boot_policy: BootPolicy) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let fleet = Self::on(directory, boot_policy).await;
        // A group of the devices that meet the policy, and a workload on them.
        fleet.entry(GROUP, td().server_id(), "tpm2:policy:golden").await;
        fleet.entry("/app", fleet.id(GROUP), "unix:uid:1").await;
        fleet
    }

    /// A server on the data store in this directory.
    async fn on(directory: tempfile::TempDir, boot_policy: BootPolicy) -> Self {
        let store = Store::open(&directory.path().join("db"), &td()).expect("a store");
        let registry = Registry::load(store.clone()).await.expect("a registry");
        let asked = grants::tpm2(AdmissionPolicy::Enrolled, "0,4,7");
        let policy = Tpm2Policy { event_log: EventLogPolicy::Verified, boot_policy, ..asked };
        let attestors = vec![Attestor::Tpm2(Box::new(policy))];
        let attestation = NodeAttestation::new(td(), store.clone(), registry.devices().clone(), attestors);
        Self { store, registry, attestation, directory }
    }

    fn id(&self, path: &str) -> SpiffeId {
        td().id_with_path(path).expect("legal")
    }

    async fn entry(&self, path: &str, parent: SpiffeId, selector: &str) {
        let (kind, value) = selector.split_once(':').expect("type:value");
        let entry = types::Entry {
            spiffe_id: Some(self.id(path).to_pb()),
            parent_id: Some(parent.to_pb()),
            selectors: vec![types::Selector { r#type: kind.into(), value: value.into() }],
            ..types::Entry::default()
        };
        self.registry.create_entry(&administrator(), &entry, NOW).await.answer().await.expect("creates");
    }

    /// A device that is enrolled, with a label `site`.
    async fn device(&self, site: &str) -> SoftwareNode {
        let chip = SoftwareNode::new();
        let labels = [("site".to_owned(), site.to_owned())].into();
        let device = device_pb::NewDevice { ek_sha256: hex(&self.ek(&chip)), labels, ..Default::default() };
        let devices = vec![NewDevice::from_pb(&device).expect("a good device")];
        let imported = self.registry.devices().import(&administrator(), devices, DuplicateSerials::Refused, NOW).await;
        imported.expect("imported");
        chip
    }

    fn ek(&self, chip: &SoftwareNode) -> [u8; 32] {
        self.attestation.read("tpm2", &chip.evidence()).expect("honest").device().expect("a device")
    }

    /// Boots that and attests.
    async fn boot(&self, chip: &mut SoftwareNode, log: &BootLog, now: i64) -> Result<SpiffeId, AttestationError> {
        chip.tpm.boot(log);
        chip.clock.reset_count += 1;
        let node = grants::attempt(&self.attestation, chip, now).await?;
        self.registry.attest_agent(&node, ("1", now + 600), now).await.expect("attested");
        Ok(node.id().clone())
    }

    async fn boots(&self, chip: &mut SoftwareNode, log: &BootLog) -> SpiffeId {
        self.boot(chip, log, NOW).await.expect("attests")
    }

    /// Teaches the policy "golden" from that device.
    async fn learn(
        &self,
        chip: &SoftwareNode,
        change: impl FnOnce(&mut pb::LearnPolicyRequest),
    ) -> Result<(), PolicyError> {
        let mut request = pb::LearnPolicyRequest { name: "golden".into(), ..Default::default() };
        change(&mut request);
        let ek = self.ek(chip);
        self.registry.devices().learn_policy(&administrator(), &ek, request).await.map(drop)
    }

    /// Whether the agent has the policy's selector, and with it the entries of the group.
    fn is_trusted(&self, agent: &SpiffeId) -> bool {
        let selectors = self.registry.agent(agent).expect("attested").selectors.clone();
        let has_selector = selectors.contains(&"tpm2:policy:golden".parse().expect("legal"));
        let served = self.registry.authorized_entries(agent, NOW).len();
        assert_eq!(served, usize::from(has_selector), "entries follow the selector");
        has_selector
    }

    async fn history(&self, chip: &SoftwareNode) -> Vec<device_pb::BootState> {
        boots_to_pb(&self.registry.devices().boots(&self.ek(chip)).await.expect("read"))
    }
}

//= TPM-44
#[tokio::test]
async fn a_device_whose_boot_leaves_the_policy_loses_its_selector_and_entries_and_what_changed_is_said() {
    let fleet = Fleet::new(BootPolicy::Observe).await;
    let (mut golden, mut other) = (fleet.device("rome").await, fleet.device("rome").await);
    let golden_id = fleet.boots(&mut golden, &good()).await;
    assert!(!fleet.is_trusted(&golden_id), "there is no policy yet");
    fleet.learn(&golden, |_| {}).await.expect("learnt");
    let other_id = fleet.boots(&mut other, &good()).await;
    assert!(fleet.is_trusted(&golden_id) && fleet.is_trusted(&other_id));

    fleet.boot(&mut other, &insecure(), NOW + 60).await.expect("attests");
    assert!(!fleet.is_trusted(&other_id), "lost");
    assert!(fleet.is_trusted(&golden_id), "of that device alone");
    let history = fleet.history(&other).await;
    assert!(history[0].changes.contains(&"PCR 7: Secure Boot was on, is off".to_owned()), "{history:?}");
    assert_eq!((history.len(), history[0].first_at, history[1].last_at), (2, NOW + 60, NOW));
    assert!(history[1].changes.is_empty());

    fleet.boot(&mut other, &good(), NOW + 120).await.expect("attests");
    assert!(fleet.is_trusted(&other_id), "as it was");
}

#[tokio::test]
async fn how_a_device_stands_says_since_when_its_boot_is_another_and_whether_a_policy_allows_it() {
    let fleet = Fleet::new(BootPolicy::Observe).await;
    let (mut golden, mut other) = (fleet.device("rome").await, fleet.device("rome").await);
    let standing = |chip: &SoftwareNode| fleet.registry.devices().standing(&fleet.ek(chip));
    assert_eq!(standing(&golden), Standing::default(), "nothing is known of it");
    fleet.boots(&mut golden, &good()).await;
    fleet.boots(&mut other, &good()).await;
    fleet.learn(&golden, |_| {}).await.expect("learnt");
    assert_eq!(standing(&other), Standing::default(), "it has always been the same, and is allowed");
    fleet.boot(&mut other, &insecure(), NOW + 60).await.expect("attests");
    let changed = Standing { boot_changed_at: NOW + 60, booted_otherwise: true, suspected: false };
    assert_eq!((standing(&other), standing(&golden)), (changed, Standing::default()));
    // It is read back as it was.
    let Fleet { registry, store, attestation, directory } = fleet;
    drop((registry, attestation));
    store.close().await;
    let fleet = Fleet::on(directory, BootPolicy::Observe).await;
    assert_eq!(fleet.registry.devices().standing(&fleet.ek(&other)), changed);
    fleet.boot(&mut other, &good(), NOW + 90).await.expect("attests");
    let back = Standing { boot_changed_at: NOW + 90, ..Standing::default() };
    assert_eq!(fleet.registry.devices().standing(&fleet.ek(&other)), back);
}

//= TPM-44
#[tokio::test]
async fn a_policy_that_changes_counts_for_devices_that_attested_before_at_their_next_sync() {
    let fleet = Fleet::new(BootPolicy::Observe).await;
    let mut chip = fleet.device("rome").await;
    let agent = fleet.boots(&mut chip, &good()).await;
    let mut changes = fleet.registry.changes();
    let devices = fleet.registry.devices();
    changes.mark_unchanged();
    fleet.learn(&chip, |_| {}).await.expect("learnt");
    assert!(
        changes.has_changed().expect("alive") && fleet.is_trusted(&agent),
        "no new attestation, and agents are told"
    );
    changes.mark_unchanged();
    let other = pb::Alternative { bank: "sha256".into(), pcrs: [(7, "01".repeat(32))].into(), note: String::new() };
    let policy = pb::Policy { name: "golden".into(), labels: Default::default(), alternatives: vec![other], ima: None };
    devices.set_policy(&administrator(), NewPolicy::from_pb(&policy).expect("legal")).await.expect("set");
    assert!(changes.has_changed().expect("alive") && !fleet.is_trusted(&agent));
    fleet.learn(&chip, |_| {}).await.expect("learnt");
    assert!(fleet.is_trusted(&agent), "beside the other");
    devices.delete_policy(&administrator(), "golden").await.expect("deleted");
    assert!(!fleet.is_trusted(&agent) && devices.policies().is_empty());
    let gone = devices.delete_policy(&administrator(), "golden").await;
    assert!(matches!(gone, Err(PolicyError::NotFound)), "{gone:?}");
}

#[tokio::test]
async fn while_a_firmware_is_updated_old_and_new_state_are_good_and_then_the_new_one_alone() {
    let fleet = Fleet::new(BootPolicy::Observe).await;
    let (mut first, mut second) = (fleet.device("rome").await, fleet.device("rome").await);
    let (first_id, second_id) = (fleet.boots(&mut first, &good()).await, fleet.boots(&mut second, &good()).await);
    fleet.learn(&first, |_| {}).await.expect("learnt");
    fleet.boots(&mut first, &updated()).await;
    assert!(!fleet.is_trusted(&first_id));
    fleet.learn(&first, |_| {}).await.expect("learnt");
    assert!(fleet.is_trusted(&first_id) && fleet.is_trusted(&second_id), "the window is open");
    fleet.learn(&first, |request| request.replace = true).await.expect("learnt");
    assert!(fleet.is_trusted(&first_id) && !fleet.is_trusted(&second_id), "and closed");
    fleet.boots(&mut second, &updated()).await;
    assert!(fleet.is_trusted(&second_id));
}

#[tokio::test]
async fn a_policy_with_labels_is_about_devices_with_these_alone() {
    let fleet = Fleet::new(BootPolicy::Observe).await;
    let (mut rome, mut bern) = (fleet.device("rome").await, fleet.device("bern").await);
    let (rome_id, bern_id) = (fleet.boots(&mut rome, &good()).await, fleet.boots(&mut bern, &good()).await);
    let labels = [("site".to_owned(), "rome".to_owned())];
    fleet.learn(&rome, |request| request.labels = labels.into()).await.expect("learnt");
    assert!(fleet.is_trusted(&rome_id) && !fleet.is_trusted(&bern_id));
}

//= TPM-44
#[tokio::test]
async fn where_policies_are_enforced_a_device_that_meets_none_is_refused_and_its_agent_forgotten() {
    let fleet = Fleet::new(BootPolicy::Enforce).await;
    let mut chip = fleet.device("rome").await;
    let refused = fleet.boot(&mut chip, &good(), NOW).await.expect_err("there is no policy yet");
    let AttestationError::Tpm2(Tpm2Refusal::BootPolicy { device, .. }) = &refused else { panic!("{refused}") };
    assert!(refused.to_string().contains("has booted what no policy allows"), "{refused}");
    let devices = fleet.registry.devices();
    assert_eq!(devices.note_refused_boot(device, NOW).await.expect("noted"), None, "there was no agent");
    fleet.learn(&chip, |_| {}).await.expect("learnt of a boot that was refused");
    let agent = fleet.boots(&mut chip, &good()).await;
    assert!(fleet.is_trusted(&agent));

    let refused = fleet.boot(&mut chip, &insecure(), NOW + 60).await.expect_err("refused");
    let AttestationError::Tpm2(Tpm2Refusal::BootPolicy { device, .. }) = refused else { panic!("another reason") };
    assert_eq!(devices.note_refused_boot(&device, NOW + 60).await.expect("noted"), Some(agent.clone()));
    assert!(fleet.registry.agent(&agent).is_none(), "the certificate of before is worth nothing");
    assert!(fleet.history(&chip).await[0].changes.iter().any(|said| said.contains("Secure Boot was on, is off")));
    let fault = AttestationError::Tpm2(Tpm2Refusal::BootPolicy { ek_sha256: String::new(), device }).fault();
    assert!(matches!(fault, Fault::Node));
    assert_eq!(fleet.boots(&mut chip, &good()).await, agent, "it boots what is allowed, and is back");
}

//= TPM-43
#[tokio::test]
async fn a_log_that_lies_about_the_registers_is_refused_by_the_server() {
    let fleet = Fleet::new(BootPolicy::Observe).await;
    let mut chip = fleet.device("rome").await;
    fleet.boots(&mut chip, &insecure()).await;
    chip.tpm.event_log = Some(good().bytes().to_vec());
    let refused = grants::attempt(&fleet.attestation, &chip, NOW).await.expect_err("refused");
    let differs = Refusal::EventLog(EventLogError::Differs { pcr: 7 });
    assert!(
        matches!(&refused, AttestationError::Tpm2(Tpm2Refusal::Evidence(refusal)) if *refusal == differs),
        "{refused}"
    );
}

#[tokio::test]
async fn of_a_device_the_last_boots_are_kept_each_state_once_and_over_a_restart() {
    let fleet = Fleet::new(BootPolicy::Observe).await;
    let mut chip = fleet.device("rome").await;
    for boot in 0..=MAX_BOOTS as i64 {
        for now in [10 * boot, 10 * boot + 5] {
            let log = BootLog::booted(true, format!("loader {boot}").as_bytes());
            fleet.boot(&mut chip, &log, NOW + now).await.expect("attests");
        }
    }
    let history = fleet.history(&chip).await;
    assert_eq!(history.len(), MAX_BOOTS, "the oldest is forgotten");
    assert!(history.iter().all(|boot| boot.last_at - boot.first_at == 5), "the same state again is the same");
    assert!(history.iter().rev().skip(1).all(|boot| boot.changes == ["PCR 4: the boot loader changed"]), "{history:?}");
    let (ek, agent) = (fleet.ek(&chip), fleet.boots(&mut chip, &good()).await);
    fleet.learn(&chip, |_| {}).await.expect("learnt");

    fleet.store.close().await;
    let fleet = Fleet::on(fleet.directory, BootPolicy::Observe).await;
    assert!(fleet.is_trusted(&agent), "state and policy are read back");
    let devices = fleet.registry.devices();
    devices.delete(&administrator(), &ek).await.expect("deleted");
    assert!(devices.boots(&ek).await.expect("read").is_empty(), "with its device");
}

#[tokio::test]
async fn a_policy_is_learnt_only_of_what_a_device_has_proven() {
    let fleet = Fleet::new(BootPolicy::Observe).await;
    let mut chip = fleet.device("rome").await;
    assert!(matches!(fleet.learn(&chip, |_| {}).await, Err(PolicyError::NoBoot)));
    let unknown = SoftwareNode::new();
    assert!(matches!(fleet.learn(&unknown, |_| {}).await, Err(PolicyError::DeviceNotFound)));
    fleet.boots(&mut chip, &good()).await;
    let unquoted = fleet.learn(&chip, |request| request.pcrs = vec![4, 9]).await;
    assert!(matches!(unquoted, Err(PolicyError::NotQuoted(9))), "{unquoted:?}");
    let nameless = fleet.learn(&chip, |request| request.name = "a b".into()).await;
    assert!(matches!(nameless, Err(PolicyError::Policy(_))), "{nameless:?}");
    assert!(fleet.registry.devices().policies().is_empty());
    fleet.learn(&chip, |request| request.pcrs = vec![4]).await.expect("learnt");
    let policy = fleet.registry.devices().policy("golden").expect("there");
    assert_eq!(policy.alternatives[0].pcrs.keys().copied().collect::<Vec<_>>(), [4]);
}

#[tokio::test]
async fn there_are_no_more_policies_than_their_bound() {
    let fleet = Fleet::new(BootPolicy::Observe).await;
    let devices = fleet.registry.devices();
    let policy = |number: usize| {
        let policy = pb::Policy { name: format!("p{number}"), ..Default::default() };
        NewPolicy::from_pb(&policy).expect("legal")
    };
    for number in 0..ironroot_server::facts::pcr_policy::MAX_POLICIES {
        devices.set_policy(&administrator(), policy(number)).await.expect("room");
    }
    let full = devices.set_policy(&administrator(), policy(9_999)).await;
    assert!(matches!(full, Err(PolicyError::TooMany)), "{full:?}");
    devices.set_policy(&administrator(), policy(7)).await.expect("one that is there is replaced");
}
