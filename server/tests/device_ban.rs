//! A device's ban holds whatever order the ban and an attestation of the device come in.

use ironroot_api::TrustDomain;
use ironroot_api::pb::device as pb;
use ironroot_attest::SelectorSet;
use ironroot_server::devices::{Devices, DuplicateSerials, NewDevice};
use ironroot_server::facts::agent::AgentRecord;
use ironroot_server::facts::device::{Ban, BanReason};
use ironroot_server::registry::{Registry, RegistryError};
use ironroot_server::store::Store;
use ironroot_text::hex::hex;

const EK: [u8; 32] = [7; 32];
const NOW: i64 = 1_800_000_000;

struct Fleet {
    registry: Registry,
    devices: Devices,
    trust_domain: TrustDomain,
    _directory: tempfile::TempDir,
}

impl Fleet {
    async fn with_one_device() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let trust_domain = TrustDomain::new("example.org").expect("legal");
        let store = Store::open(&directory.path().join("db"), &trust_domain).expect("a store");
        let registry = Registry::load(store.clone()).await.expect("an empty registry");
        let devices = Devices::load(store).await.expect("no devices");
        let fleet = Self { registry, devices, trust_domain, _directory: directory };
        fleet.import().await;
        fleet
    }

    async fn import(&self) {
        let device = pb::NewDevice { ek_sha256: hex(&EK), ..Default::default() };
        let device = NewDevice::from_pb(&device).expect("a good device");
        self.devices.import(vec![device], DuplicateSerials::Refused, NOW).await.expect("imported");
    }

    fn attested(&self) -> AgentRecord {
        let path = format!("/spire/agent/tpm2/{}", hex(&EK));
        AgentRecord {
            spiffe_id: self.trust_domain.id_with_path(&path).expect("legal"),
            attestation_type: "tpm2".into(),
            serial: "1".into(),
            not_after: NOW + 60,
            new_serial: String::new(),
            new_not_after: 0,
            can_reattest: true,
            banned: false,
            selectors: SelectorSet::default(),
            agent_version: String::new(),
            ek_sha256: Some(EK),
        }
    }
}

fn ban() -> Ban {
    Ban { at: NOW, reason: BanReason::Administrator { by: "local".into() } }
}

#[tokio::test]
async fn an_attestation_that_was_under_way_when_its_device_was_banned_leaves_no_agent() {
    let fleet = Fleet::with_one_device().await;
    fleet.devices.ban(&EK, ban()).await.expect("banned");
    fleet.registry.ban_agents_of_device(&EK).await.expect("no agent yet, none to ban");
    let refused = fleet.registry.attest_agent(fleet.attested()).await.expect_err("its device is banned");
    assert!(matches!(refused, RegistryError::AgentBanned), "{refused}");
    assert!(fleet.registry.agent(&fleet.attested().spiffe_id).is_none());
}

#[tokio::test]
async fn a_device_that_was_forgotten_and_imported_again_still_bans_its_agent() {
    let fleet = Fleet::with_one_device().await;
    fleet.registry.attest_agent(fleet.attested()).await.expect("attested");
    fleet.devices.delete(&EK).await.expect("forgotten");
    fleet.import().await;
    let device = fleet.devices.ban(&EK, ban()).await.expect("banned");
    assert_eq!(device.agent_id, None, "the new record does not know the agent");
    fleet.registry.ban_agents_of_device(&EK).await.expect("banned");
    assert!(fleet.registry.agent(&fleet.attested().spiffe_id).expect("still listed").banned);
}
