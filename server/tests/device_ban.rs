//! A device's ban holds whatever order the ban and an attestation of the device come in.

#[path = "support/grants.rs"]
mod grants;

use ironroot_api::TrustDomain;
use ironroot_api::pb::device as pb;
use ironroot_server::devices::{AdmissionPolicy, DeviceError, DuplicateSerials, NewDevice};
use ironroot_server::facts::device::DeviceState;
use ironroot_server::node_attestation::{AttestedNode, Attestor, NodeAttestation};
use ironroot_server::registry::{Registry, RegistryError};
use ironroot_server::store::Store;
use ironroot_software_tpm::SoftwareNode;
use ironroot_text::hex::hex;

use grants::administrator;

const NOW: i64 = 1_000;

struct Fleet {
    registry: Registry,
    attestation: NodeAttestation,
    chip: SoftwareNode,
    ek: [u8; 32],
    _directory: tempfile::TempDir,
}

impl Fleet {
    async fn with_one_device() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let trust_domain = TrustDomain::new("td").expect("legal");
        let store = Store::open(&directory.path().join("db"), &trust_domain).expect("a store");
        let registry = Registry::load(store.clone()).await.expect("an empty registry");
        let policy = grants::tpm2(AdmissionPolicy::Enrolled, "0,7");
        let attestors = vec![Attestor::Tpm2(Box::new(policy))];
        let attestation = NodeAttestation::new(trust_domain, store, registry.devices().clone(), attestors);
        let chip = SoftwareNode::new();
        let ek = attestation.read("tpm2", &chip.evidence()).expect("honest").device().expect("a device");
        let fleet = Self { registry, attestation, chip, ek, _directory: directory };
        fleet.import().await;
        fleet
    }

    async fn import(&self) {
        let device = pb::NewDevice { ek_sha256: hex(&self.ek), ..Default::default() };
        let devices = vec![NewDevice::from_pb(&device).expect("a good device")];
        let imported = self.registry.devices().import(&administrator(), devices, DuplicateSerials::Refused, NOW).await;
        imported.expect("imported");
    }

    async fn proven(&self) -> AttestedNode {
        grants::attested(&self.attestation, &self.chip, NOW).await
    }
}

#[tokio::test]
async fn an_attestation_that_was_under_way_when_its_device_was_banned_leaves_no_agent() {
    let fleet = Fleet::with_one_device().await;
    let node = fleet.proven().await;
    let banned = fleet.registry.devices().ban(&administrator(), &fleet.ek, NOW).await.expect("banned");
    assert_eq!(banned.agents, [], "no agent yet, none to ban");
    let refused = fleet.registry.attest_agent(&node, ("1", NOW + 60), NOW).await.expect_err("its device is banned");
    assert!(matches!(refused, RegistryError::Device(DeviceError::Banned)), "{refused}");
    assert!(fleet.registry.agent(node.id()).is_none());
}

/// Device and agent come in one commit: a crash cannot leave one without the other.
#[tokio::test]
async fn an_attestation_that_is_refused_leaves_nothing_with_its_device() {
    let fleet = Fleet::with_one_device().await;
    let node = fleet.proven().await;
    fleet.registry.attest_agent(&node, ("1", NOW + 60), NOW).await.expect("attested");
    assert!(fleet.registry.ban_agent(&administrator(), node.id()).await.expect("banned").is_some());
    let refused = fleet.registry.attest_agent(&node, ("2", NOW + 99), NOW + 30).await;
    assert!(matches!(refused, Err(RegistryError::AgentBanned)), "{refused:?}");
    let device = fleet.registry.devices().device(&fleet.ek).expect("known");
    assert_eq!((device.state, device.last_attested_at), (DeviceState::Enrolled, NOW), "as the first one left it");
}

#[tokio::test]
async fn a_device_that_was_forgotten_and_imported_again_still_bans_its_agent() {
    let fleet = Fleet::with_one_device().await;
    let node = fleet.proven().await;
    fleet.registry.attest_agent(&node, ("1", NOW + 60), NOW).await.expect("attested");
    fleet.registry.devices().delete(&administrator(), &fleet.ek).await.expect("forgotten");
    fleet.import().await;
    let banned = fleet.registry.devices().ban(&administrator(), &fleet.ek, NOW).await.expect("banned");
    assert_eq!(banned.device.agent_id, None, "the new record does not know the agent");
    assert_eq!(banned.agents, [node.id().clone()]);
    assert!(fleet.registry.agent(node.id()).expect("still listed").banned);
}
