//! The fleet at one moment: devices, the agents that run on them, and how the server is.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use ironroot_api::SpiffeId;
use ironroot_api::pb::device::{DeviceRecord, DeviceState, ListDevicesRequest};
use ironroot_api::pb::server_status::GetStatusResponse;
use ironroot_api::pb::types::Agent;

use super::asked::{Server, Unanswered};

/// Most devices of a page, and agents: more are searched for, or asked for by state or label.
pub const MAX_ROWS: usize = 20_000;
/// Digits of a hash that name a device which has no serial.
pub const NAME_DIGITS: usize = 12;

/// What a page shows.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub status: GetStatusResponse,
    pub rows: Vec<Row>,
    /// Agents on no device that the server knows: they proved themselves in another way.
    pub others: Vec<OtherAgent>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub ek_sha256: String,
    pub serial: String,
    /// Sorted.
    pub labels: Vec<(String, String)>,
    pub state: State,
    pub boot: BootTold,
    /// Two machines seem to show its chip.
    pub suspected: bool,
    /// When it last attested or called, whichever is later.
    pub last_seen: Passing,
    pub agent: Option<AgentTold>,
}

/// A time that goes on while all is well, UNIX seconds; 0: never. A row with another one is the same row.
#[derive(Clone, Copy, Debug)]
pub struct Passing(pub i64);

impl PartialEq for Passing {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Passing {}

impl Hash for Passing {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// What is known of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AgentTold {
    pub version: String,
    /// Of its certificate, UNIX seconds.
    pub ends_at: i64,
    pub banned: bool,
}

/// An agent without a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OtherAgent {
    pub id: String,
    pub attestation_type: String,
    pub told: AgentTold,
}

/// Whether a device may attest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Pending,
    Enrolled,
    Banned,
}

/// What is known of what a device boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BootTold {
    /// It has not attested with a TPM.
    Nothing,
    /// It has always been the same.
    Unchanged,
    /// It was another one before; UNIX seconds.
    ChangedAt(i64),
    /// No policy about the device allows it.
    Otherwise,
}

/// Which devices a page shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub state: Option<State>,
    /// Name and value.
    pub label: Option<(String, String)>,
    /// In a serial, a label or a version, in either case, or the first digits of a hash.
    pub text: String,
}

impl Fleet {
    /// The devices that are wanted, and what there is besides, as the server knows it now.
    pub async fn now(server: &Server, wanted: &Wanted) -> Result<Self, Unanswered> {
        let agents = server.agents(MAX_ROWS).await?;
        let mut by_id: HashMap<String, &Agent> = agents.iter().map(|agent| (id(agent), agent)).collect();
        let rows = server.devices(wanted.request(), MAX_ROWS).await?.into_iter().map(|device| {
            let agent = by_id.remove(&device.agent_id);
            Row::new(device, agent)
        });
        let rows = rows.filter(|row| wanted.is_found_in(row)).collect();
        let others =
            if *wanted == Wanted::default() { by_id.into_values().map(OtherAgent::new).collect() } else { Vec::new() };
        let mut fleet = Self { status: server.status().await?, rows, others };
        fleet.others.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(fleet)
    }

    /// Another number if anything that a page shows is another; times that pass are not.
    pub fn revision(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.rows, &self.others, self.numbers()).hash(&mut hasher);
        hasher.finish()
    }

    /// What the tiles of the page tell.
    fn numbers(&self) -> impl Hash + use<> {
        let status = &self.status;
        let troubles: Vec<_> =
            status.troubles.iter().map(|trouble| (trouble.what.clone(), trouble.why.clone())).collect();
        let agents = [status.agents_current, status.agents_late, status.agents_expired, status.agents_banned];
        let devices =
            [status.devices_enrolled, status.devices_pending, status.devices_banned, status.devices_suspected];
        (agents, devices, status.devices_booted_otherwise, status.entries, troubles)
    }
}

impl Row {
    /// `agent`: the one that attested with the device last, if there is one.
    fn new(device: DeviceRecord, agent: Option<&Agent>) -> Self {
        let (state, boot) = (State::of(&device), BootTold::of(&device));
        let mut labels: Vec<_> = device.labels.into_iter().collect();
        labels.sort();
        Self {
            ek_sha256: device.ek_sha256,
            serial: device.serial,
            labels,
            state,
            boot,
            suspected: device.suspected,
            last_seen: Passing(device.last_seen_at.max(device.last_attested_at)),
            agent: agent.map(AgentTold::new),
        }
    }

    /// What people call the device.
    pub fn name(&self) -> &str {
        name(&self.serial, &self.ek_sha256)
    }
}

/// A device's serial, or the first digits of its hash.
pub fn name<'a>(serial: &'a str, ek_sha256: &'a str) -> &'a str {
    if serial.is_empty() { ek_sha256.get(..NAME_DIGITS).unwrap_or(ek_sha256) } else { serial }
}

impl AgentTold {
    fn new(agent: &Agent) -> Self {
        let version = agent.agent_version.clone();
        Self { version, ends_at: agent.x509svid_expires_at, banned: agent.banned }
    }
}

impl OtherAgent {
    fn new(agent: &Agent) -> Self {
        Self { id: id(agent), attestation_type: agent.attestation_type.clone(), told: AgentTold::new(agent) }
    }
}

fn id(agent: &Agent) -> String {
    SpiffeId::from_pb(agent.id.as_ref()).map(|id| id.to_string()).unwrap_or_default()
}

impl State {
    pub fn of(device: &DeviceRecord) -> Self {
        match device.state() {
            DeviceState::Enrolled => Self::Enrolled,
            DeviceState::Banned => Self::Banned,
            DeviceState::Pending | DeviceState::Unspecified => Self::Pending,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Enrolled => "enrolled",
            Self::Banned => "banned",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Pending, Self::Enrolled, Self::Banned].into_iter().find(|state| state.word() == word)
    }

    fn to_pb(self) -> DeviceState {
        match self {
            Self::Pending => DeviceState::Pending,
            Self::Enrolled => DeviceState::Enrolled,
            Self::Banned => DeviceState::Banned,
        }
    }
}

impl BootTold {
    pub fn of(device: &DeviceRecord) -> Self {
        match device.boot_changed_at {
            _ if device.booted_otherwise => Self::Otherwise,
            0 if device.last_attested_at == 0 => Self::Nothing,
            0 => Self::Unchanged,
            at => Self::ChangedAt(at),
        }
    }
}

impl Wanted {
    fn request(&self) -> ListDevicesRequest {
        let by_state = self.state.map_or(DeviceState::Unspecified, State::to_pb).into();
        ListDevicesRequest { by_state, by_labels: self.label.clone().into_iter().collect(), ..Default::default() }
    }

    fn is_found_in(&self, row: &Row) -> bool {
        let text = self.text.to_lowercase();
        let holds = |told: &str| told.to_lowercase().contains(&text);
        let version = row.agent.as_ref().map_or("", |agent| &agent.version);
        text.is_empty()
            || row.ek_sha256.starts_with(&text)
            || holds(&row.serial)
            || holds(version)
            || row.labels.iter().any(|(name, value)| holds(&format!("{name}={value}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(serial: &str, label: &str) -> DeviceRecord {
        DeviceRecord {
            ek_sha256: "5f1c2aff".repeat(8),
            serial: serial.into(),
            labels: [("site".to_owned(), label.to_owned())].into(),
            state: DeviceState::Enrolled.into(),
            ..DeviceRecord::default()
        }
    }

    #[test]
    fn a_device_is_found_by_part_of_its_serial_a_label_its_version_or_the_first_digits_of_its_hash() {
        let agent = Agent { agent_version: "1.16.0".into(), ..Agent::default() };
        let row = Row::new(device("SN-0001", "berlin"), Some(&agent));
        for (text, found) in [
            ("", true),
            ("sn-00", true),
            ("SITE=BER", true),
            ("5f1c2a", true),
            ("1.16", true),
            ("f1c2", false),
            ("rome", false),
        ] {
            assert_eq!(Wanted { text: text.into(), ..Wanted::default() }.is_found_in(&row), found, "{text}");
        }
    }

    #[test]
    fn what_a_device_boots_is_told_in_the_order_of_what_matters() {
        let told = |last_attested_at, boot_changed_at, booted_otherwise| {
            BootTold::of(&DeviceRecord {
                last_attested_at,
                boot_changed_at,
                booted_otherwise,
                ..DeviceRecord::default()
            })
        };
        assert_eq!(told(0, 0, false), BootTold::Nothing);
        assert_eq!(told(9, 0, false), BootTold::Unchanged);
        assert_eq!(told(9, 5, false), BootTold::ChangedAt(5));
        assert_eq!(told(9, 5, true), BootTold::Otherwise);
    }

    #[test]
    fn a_revision_is_another_if_a_device_or_a_number_is_and_not_as_time_passes() {
        let fleet = |label: &str, uptime, pending| Fleet {
            status: GetStatusResponse { uptime, devices_pending: pending, ..GetStatusResponse::default() },
            rows: vec![Row::new(device("SN-1", label), None)],
            others: Vec::new(),
        };
        let before = fleet("berlin", 1, 0).revision();
        let mut seen = fleet("berlin", 1, 0);
        seen.rows[0].last_seen = Passing(7);
        assert_eq!(seen.revision(), before);
        assert_eq!(fleet("berlin", 2, 0).revision(), before);
        assert_ne!(fleet("rome", 1, 0).revision(), before);
        assert_ne!(fleet("berlin", 1, 1).revision(), before);
    }

    #[test]
    fn a_device_without_a_serial_is_called_by_its_first_digits() {
        assert_eq!(Row::new(device("", "x"), None).name(), "5f1c2aff5f1c");
        assert_eq!(Row::new(device("SN-1", "x"), None).name(), "SN-1");
    }
}
