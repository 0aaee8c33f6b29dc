//! What devices have measured (IMA), and may have measured: shown in parts, held against policies, and asked for again only where it must.

#[path = "support/grants.rs"]
mod grants;

use ironroot_api::TrustDomain;
use ironroot_api::pb::device as device_pb;
use ironroot_api::pb::pcr_policy as pb;
use ironroot_attest::ima::ImaError;
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::EventLogPolicy;
use ironroot_server::devices::{AdmissionPolicy, DuplicateSerials, NewDevice, NewPolicy};
use ironroot_server::facts::device::{MAX_JUDGED, boots_to_pb};
use ironroot_server::node_attestation::{
    AttestationError, Attestor, BootPolicy, NodeAttestation, Tpm2Policy, Tpm2Refusal,
};
use ironroot_server::registry::Registry;
use ironroot_server::store::Store;
use ironroot_software_tpm::{BootLog, ImaList, SoftwareNode};
use ironroot_text::hex::hex;

use grants::administrator;

const NOW: i64 = 1_000;

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

fn good() -> BootLog {
    BootLog::booted(true, b"loader")
}

/// What every device of the kind measures.
fn programs() -> ImaList {
    let mut list = ImaList::begun(good().pcrs());
    list.measure("/sbin/init", b"init");
    list.measure("/bin/sh", b"a shell");
    list
}

fn with(path: &str, content: &[u8]) -> ImaList {
    let mut list = programs();
    list.measure(path, content);
    list
}

fn file(path: &str, content: &[u8]) -> pb::File {
    pb::File { path: path.into(), digest: ImaList::digest_of(content) }
}

/// The files of [`programs`].
fn allowed() -> Vec<pb::File> {
    vec![file("/sbin/init", b"init"), file("/bin/sh", b"a shell")]
}

struct Fleet {
    store: Store,
    registry: Registry,
    attestation: NodeAttestation,
    directory: tempfile::TempDir,
}

impl Fleet {
    async fn new(ima_log: EventLogPolicy, boot_policy: BootPolicy) -> Self {
        Self::on(tempfile::tempdir().expect("a directory"), ima_log, boot_policy).await
    }

    async fn on(directory: tempfile::TempDir, ima_log: EventLogPolicy, boot_policy: BootPolicy) -> Self {
        let store = Store::open(&directory.path().join("db"), &td()).expect("a store");
        let registry = Registry::load(store.clone()).await.expect("a registry");
        let asked = grants::tpm2(AdmissionPolicy::Enrolled, "0,7");
        let policy = Tpm2Policy { event_log: EventLogPolicy::Verified, ima_log, boot_policy, ..asked };
        let attestors = vec![Attestor::Tpm2(Box::new(policy))];
        let attestation = NodeAttestation::new(td(), store.clone(), registry.devices().clone(), attestors);
        Self { store, registry, attestation, directory }
    }

    /// As another server finds it on the same database.
    async fn restarted(self) -> Self {
        let Self { store, registry, attestation, directory } = self;
        drop((registry, attestation));
        store.close().await;
        Self::on(directory, EventLogPolicy::Verified, BootPolicy::Observe).await
    }

    fn ek(&self, chip: &SoftwareNode) -> [u8; 32] {
        self.attestation.read("tpm2", &chip.evidence()).expect("honest").device().expect("a device")
    }

    /// A device that is enrolled and has booted.
    async fn device(&self) -> SoftwareNode {
        let mut chip = SoftwareNode::new();
        let device = device_pb::NewDevice { ek_sha256: hex(&self.ek(&chip)), ..Default::default() };
        let devices = vec![NewDevice::from_pb(&device).expect("a good device")];
        let imported = self.registry.devices().import(&administrator(), devices, DuplicateSerials::Refused, NOW).await;
        imported.expect("imported");
        chip.tpm.boot(&good());
        chip
    }

    async fn attempt(&self, chip: &mut SoftwareNode) -> Result<(), AttestationError> {
        chip.clock.clock_ms += 1000;
        let node = grants::attempt(&self.attestation, chip, NOW).await?;
        self.registry.attest_agent(&node, ("1", NOW + 600), NOW).await.expect("stored");
        Ok(())
    }

    /// The device shows `list`, which its register stands for. From where it was asked for it.
    async fn shows(&self, chip: &mut SoftwareNode, list: &ImaList) -> Vec<u64> {
        chip.tpm.measured(list);
        self.attempt(chip).await.expect("attests");
        std::mem::take(&mut chip.asked_from.lock().expect("no panic"))
    }

    async fn allow(&self, files: pb::Files) {
        let policy = pb::Policy { name: "golden".into(), ima: Some(files), ..pb::Policy::default() };
        let policy = NewPolicy::from_pb(&policy).expect("legal");
        self.registry.devices().set_policy(&administrator(), policy).await.expect("set");
    }

    async fn allow_files(&self, allowed: Vec<pb::File>) {
        self.allow(pb::Files { allowed, ..pb::Files::default() }).await;
    }

    /// Whether the agent has the selectors of the policy.
    fn is_trusted(&self, chip: &SoftwareNode) -> bool {
        let id = td().id_with_path(&format!("/spire/agent/tpm2/{}", hex(&self.ek(chip)))).expect("legal");
        let selectors = self.registry.agent(&id).expect("attested").selectors.clone();
        let has = |selector: &str| selectors.contains(&selector.parse().expect("legal"));
        assert_eq!(has("tpm2:ima:golden"), has("tpm2:policy:golden"), "the policy names files alone");
        has("tpm2:ima:golden")
    }

    async fn told(&self, chip: &SoftwareNode) -> device_pb::MeasuredFiles {
        let boots = boots_to_pb(&self.registry.devices().boots(&self.ek(chip)).await.expect("read"));
        boots[0].ima.clone().expect("something is told")
    }
}

fn observed() -> (EventLogPolicy, BootPolicy) {
    (EventLogPolicy::Verified, BootPolicy::Observe)
}

//= TPM-49
#[tokio::test]
async fn a_device_that_runs_what_no_policy_allows_loses_the_selector_and_it_is_said_what_that_was() {
    let (ima_log, boot_policy) = observed();
    let fleet = Fleet::new(ima_log, boot_policy).await;
    let mut chip = fleet.device().await;
    fleet.allow_files(allowed()).await;
    fleet.shows(&mut chip, &programs()).await;
    assert!(fleet.is_trusted(&chip));
    let evil = with("/tmp/evil", b"evil");
    assert_eq!(fleet.shows(&mut chip, &evil).await, [3], "what was shown before does not travel again");
    assert!(!fleet.is_trusted(&chip));
    let told = fleet.told(&chip).await;
    let outside = format!("/tmp/evil {}", ImaList::digest_of(b"evil"));
    assert_eq!((told.entries, told.boot_aggregate, &told.judged[0].outside[..]), (4, true, &[outside][..]));
    assert_eq!(fleet.shows(&mut chip, &evil).await, <[u64; 0]>::default(), "nothing new has to travel");
    assert!(!fleet.is_trusted(&chip), "and nothing is forgotten");
}

#[tokio::test]
async fn what_a_policy_comes_to_allow_counts_at_once_and_what_it_takes_away_needs_the_whole_list() {
    let (ima_log, boot_policy) = observed();
    let fleet = Fleet::new(ima_log, boot_policy).await;
    let mut chip = fleet.device().await;
    fleet.allow_files(allowed()).await;
    let update = with("/usr/bin/app", b"app 2");
    fleet.shows(&mut chip, &update).await;
    assert!(!fleet.is_trusted(&chip));
    fleet.allow_files([allowed(), vec![file("", b"app 2")]].concat()).await;
    assert!(fleet.is_trusted(&chip), "without an attestation");
    assert_eq!(fleet.shows(&mut chip, &update).await, <[u64; 0]>::default());
    fleet.allow_files(vec![file("/sbin/init", b"init"), file("", b"app 2")]).await;
    assert!(!fleet.is_trusted(&chip), "the shell is taken away");
    assert_eq!(fleet.shows(&mut chip, &update).await, [0]);
    assert!(!fleet.is_trusted(&chip));
    let rest = pb::Files {
        allowed: vec![file("", b"app 2")],
        exclude: vec!["/bin/".into(), "/sbin/".into()],
        ..Default::default()
    };
    fleet.allow(rest).await;
    assert_eq!(fleet.shows(&mut chip, &update).await, [0]);
    assert!(fleet.is_trusted(&chip));
}

#[tokio::test]
async fn another_server_of_the_database_goes_on_and_a_device_that_booted_again_starts_again() {
    let (ima_log, boot_policy) = observed();
    let fleet = Fleet::new(ima_log, boot_policy).await;
    let mut chip = fleet.device().await;
    fleet.allow_files(allowed()).await;
    assert_eq!(fleet.shows(&mut chip, &programs()).await, [0]);
    let fleet = fleet.restarted().await;
    assert_eq!(fleet.shows(&mut chip, &with("/bin/sh", b"a shell")).await, [3]);
    assert!(fleet.is_trusted(&chip));
    // It calls its boot as before, and what it measured is another list: asked from where it was, then from the start.
    let mut other = ImaList::begun(good().pcrs());
    other.measure("/bin/sh", b"a shell");
    assert_eq!(fleet.shows(&mut chip, &other).await, [4, 0]);
    assert_eq!((fleet.is_trusted(&chip), fleet.told(&chip).await.entries), (true, 2));
}

#[tokio::test]
async fn a_list_that_has_not_led_anywhere_proves_nothing_however_it_begins() {
    let (ima_log, boot_policy) = observed();
    let fleet = Fleet::new(ima_log, boot_policy).await;
    let mut chip = fleet.device().await;
    fleet.allow_files(allowed()).await;
    fleet.shows(&mut chip, &programs()).await;
    chip.tpm.measured(&with("/tmp/evil", b"evil"));
    chip.tpm.ima_list = Some(programs().bytes().to_vec());
    let refused = fleet.attempt(&mut chip).await.expect_err("refused");
    let expected = Refusal::Ima(ImaError::DoesNotLead { entries: 3 });
    assert!(matches!(refused, AttestationError::Tpm2(Tpm2Refusal::Evidence(refusal)) if refusal == expected));
}

//= TPM-48
#[tokio::test]
async fn a_list_that_lies_is_refused_or_counts_as_none_and_a_device_without_one_lacks_the_selectors() {
    for (ima_log, lies, has_none) in [
        (EventLogPolicy::Lenient, true, true),
        (EventLogPolicy::Verified, false, true),
        (EventLogPolicy::Required, false, false),
    ] {
        let fleet = Fleet::new(ima_log, BootPolicy::Observe).await;
        fleet.allow_files(allowed()).await;
        let mut chip = fleet.device().await;
        chip.tpm.measured(&with("/tmp/evil", b"evil"));
        chip.tpm.ima_list = Some(programs().bytes().to_vec());
        assert_eq!(fleet.attempt(&mut chip).await.is_ok(), lies, "{ima_log}");
        if lies {
            assert!(!fleet.is_trusted(&chip) && fleet.told(&chip).await.missing.contains("does not count"));
        }
        chip.tpm.ima_list = None;
        assert_eq!(fleet.attempt(&mut chip).await.is_ok(), has_none, "{ima_log}");
        if has_none {
            assert!(!fleet.is_trusted(&chip) && fleet.told(&chip).await.missing.contains("sent no list"));
        }
        fleet.shows(&mut chip, &programs()).await;
        assert!(fleet.is_trusted(&chip));
    }
}

#[tokio::test]
async fn a_list_that_is_not_asked_for_is_neither_quoted_nor_kept() {
    let fleet = Fleet::new(EventLogPolicy::Ignored, BootPolicy::Observe).await;
    let mut chip = fleet.device().await;
    assert_eq!(fleet.shows(&mut chip, &programs()).await, <[u64; 0]>::default());
    let boots = fleet.registry.devices().boots(&fleet.ek(&chip)).await.expect("read");
    assert_eq!((boots[0].facts.pcrs.len(), &boots[0].facts.ima, &boots[0].facts.ima_missing[..]), (2, &None, ""));
}

#[tokio::test]
async fn violations_and_a_list_of_another_boot_meet_only_policies_that_say_so() {
    let (ima_log, boot_policy) = observed();
    let fleet = Fleet::new(ima_log, boot_policy).await;
    let mut chip = fleet.device().await;
    fleet.allow_files(allowed()).await;
    let mut violated = programs();
    violated.violation("/etc/passwd");
    fleet.shows(&mut chip, &violated).await;
    assert!(!fleet.is_trusted(&chip) && fleet.told(&chip).await.violations == 1);
    fleet.allow(pb::Files { allowed: allowed(), violations: true, ..Default::default() }).await;
    assert!(fleet.is_trusted(&chip));

    let mut elsewhere = ImaList::begun(&[[9; 32]; 10]);
    elsewhere.measure("/bin/sh", b"a shell");
    fleet.shows(&mut chip, &elsewhere).await;
    assert!(!fleet.is_trusted(&chip) && !fleet.told(&chip).await.boot_aggregate);
    fleet.allow(pb::Files { allowed: allowed(), any_boot_aggregate: true, ..Default::default() }).await;
    assert!(fleet.is_trusted(&chip));
}

#[tokio::test]
async fn nothing_measured_is_nothing_proven() {
    let (ima_log, boot_policy) = observed();
    let fleet = Fleet::new(ima_log, boot_policy).await;
    let mut chip = fleet.device().await;
    fleet.allow(pb::Files { any_boot_aggregate: true, ..Default::default() }).await;
    fleet.shows(&mut chip, &ImaList::default()).await;
    assert!(!fleet.is_trusted(&chip) && fleet.told(&chip).await.missing.contains("no file"));
}

//= TPM-49
#[tokio::test]
async fn where_policies_are_enforced_a_device_that_runs_something_else_is_refused_and_its_agent_forgotten() {
    let fleet = Fleet::new(EventLogPolicy::Verified, BootPolicy::Enforce).await;
    let mut chip = fleet.device().await;
    fleet.allow_files(allowed()).await;
    fleet.shows(&mut chip, &programs()).await;
    assert!(fleet.is_trusted(&chip));
    chip.tpm.measured(&with("/tmp/evil", b"evil"));
    let refused = fleet.attempt(&mut chip).await.expect_err("refused");
    let AttestationError::Tpm2(Tpm2Refusal::BootPolicy { device, .. }) = refused else { panic!("{refused}") };
    let evicted = fleet.registry.devices().note_refused_boot(&device, NOW).await.expect("noted");
    assert!(evicted.is_some());
    assert_eq!(fleet.told(&chip).await.judged[0].outside.len(), 1);
}

#[tokio::test]
async fn a_list_is_held_against_no_more_policies_than_their_bound() {
    let (ima_log, boot_policy) = observed();
    let fleet = Fleet::new(ima_log, boot_policy).await;
    let mut chip = fleet.device().await;
    for number in 0..=MAX_JUDGED {
        let (name, ima) = (format!("a{number:02}"), Some(pb::Files::default()));
        let policy = NewPolicy::from_pb(&pb::Policy { name, ima, ..pb::Policy::default() }).expect("legal");
        fleet.registry.devices().set_policy(&administrator(), policy).await.expect("set");
    }
    fleet.allow_files(allowed()).await;
    fleet.shows(&mut chip, &programs()).await;
    assert_eq!(fleet.told(&chip).await.judged.len(), MAX_JUDGED);
    assert!(!fleet.is_trusted(&chip), "it comes behind them by name");
}

#[tokio::test]
async fn a_long_list_comes_in_parts_and_once() {
    let (ima_log, boot_policy) = observed();
    let fleet = Fleet::new(ima_log, boot_policy).await;
    let mut chip = fleet.device().await;
    let mut list = programs();
    (0..5000).for_each(|number| list.measure(&format!("/usr/lib/{number}"), b"a library"));
    fleet.allow(pb::Files { allowed: allowed(), exclude: vec!["/usr/lib/".into()], ..Default::default() }).await;
    let asked = fleet.shows(&mut chip, &list).await;
    assert!(asked.len() > 2 && asked.is_sorted(), "{asked:?}");
    assert!(fleet.is_trusted(&chip));
    list.measure("/usr/lib/more", b"a library");
    assert_eq!(fleet.shows(&mut chip, &list).await, [5003]);
    assert_eq!(fleet.told(&chip).await.entries, 5004);
}
