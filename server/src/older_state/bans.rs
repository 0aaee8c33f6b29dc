//! Bans that an older database does not know, from the log of what was done. Bans are never lifted by a file that somebody puts back.

use std::collections::BTreeSet;
use std::path::Path;

use ironroot_api::SpiffeId;
use ironroot_attest::SelectorSet;
use ironroot_text::hex::{hex, parse_hex};
use serde::Serialize;

use crate::facts::agent::AgentRecord;
use crate::facts::device::{Ban, BanReason, DeviceRecord, DeviceState};
use crate::issuance_log::{self, Body, LogError};
use crate::store::{StoreError, Transaction};

/// Bans that the log has, later than a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LoggedBans {
    agents: BTreeSet<SpiffeId>,
    devices: BTreeSet<[u8; 32]>,
}

/// Which of them it did not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecoveredBans {
    /// Agents, by their IDs.
    pub agents: Vec<String>,
    /// Devices, by the SHA-256 of their endorsement keys, hexadecimal.
    pub devices: Vec<String>,
}

impl LoggedBans {
    /// Those given in `directory`'s log after the database had come to `revision`, and not lifted since. Blocks: it may read a gigabyte.
    pub fn since(directory: &Path, revision: i64) -> Result<Self, LogError> {
        let mut bans = Self::default();
        if directory.is_dir() {
            issuance_log::read(directory, |record, _| {
                if record.body.revision.is_some_and(|at| at > revision) {
                    bans.note(&record.body);
                }
            })?;
        }
        Ok(bans)
    }

    fn note(&mut self, Body { method, object, .. }: &Body) {
        // Of a device's ban, "HASH", and "HASH: AGENT" for each agent that it had.
        let (device, agent) = object.split_once(": ").map_or((object.as_str(), None), |(d, a)| (d, Some(a)));
        let id = SpiffeId::parse(agent.unwrap_or(object)).ok();
        match method.as_str() {
            "BanAgent" => self.agents.extend(id),
            "DeleteAgent" => {
                id.map(|id| self.agents.remove(&id));
            }
            "BanDevice" => {
                self.devices.extend(parse_hex(device));
                self.agents.extend(id);
            }
            "DeleteDevice" => {
                parse_hex(device).map(|device| self.devices.remove(&device));
            }
            _ => {}
        }
    }

    /// Gives them again.
    pub fn give(&self, tx: &Transaction<'_>, now_unix: i64) -> Result<RecoveredBans, StoreError> {
        let mut recovered = RecoveredBans::default();
        for id in &self.agents {
            let known = tx.agent(id)?.map(|(_, known)| known);
            if known.as_ref().is_none_or(|known| !known.banned) {
                tx.put_agent(&banned_agent(id, known))?;
                recovered.agents.push(id.to_string());
            }
        }
        for ek_sha256 in &self.devices {
            let known = tx.device(ek_sha256)?;
            if known.as_ref().is_none_or(|known| known.record.state != DeviceState::Banned) {
                let clock = known.as_ref().and_then(|known| known.clock);
                tx.put_device(&banned_device(ek_sha256, known.map(|known| (*known.record).clone()), now_unix), clock)?;
                tx.ban_agents_of(ek_sha256)?;
                recovered.devices.push(hex(ek_sha256));
            }
        }
        Ok(recovered)
    }
}

/// Of one that the database does not know the log says no more than its ID: what it attested by stands in its path.
fn banned_agent(id: &SpiffeId, known: Option<AgentRecord>) -> AgentRecord {
    let kind = id.path().strip_prefix("/spire/agent/").and_then(|path| path.split('/').next());
    let known = known.unwrap_or_else(|| AgentRecord {
        spiffe_id: id.clone(),
        attestation_type: kind.unwrap_or_default().to_owned(),
        serial: String::new(),
        not_after: 0,
        new_serial: String::new(),
        new_not_after: 0,
        can_reattest: false,
        banned: true,
        selectors: SelectorSet::default(),
        agent_version: String::new(),
        ek_sha256: None,
        certificate_sha256: None,
    });
    AgentRecord { serial: String::new(), new_serial: String::new(), new_not_after: 0, banned: true, ..known }
}

fn banned_device(ek_sha256: &[u8; 32], known: Option<DeviceRecord>, now_unix: i64) -> DeviceRecord {
    let known = known.unwrap_or_else(|| DeviceRecord {
        ek_sha256: *ek_sha256,
        serial: String::new(),
        labels: Default::default(),
        state: DeviceState::Banned,
        manufacturer: String::new(),
        created_at: now_unix,
        last_attested_at: 0,
        agent_id: None,
        ban: None,
    });
    let reason = BanReason::Administrator { by: "the issuance log, when an older state was accepted".to_owned() };
    DeviceRecord { state: DeviceState::Banned, ban: Some(Ban { at: now_unix, reason }), ..known }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(method: &str, object: &str) -> Body {
        let [method, object, by] = [method, object, "uid 0"].map(str::to_owned);
        Body { epoch: 1, sequence: 1, at: 0, method, object, by, revision: Some(1) }
    }

    #[test]
    fn a_ban_counts_until_it_is_lifted_and_a_devices_is_its_agents_too() {
        let id = |name: &str| SpiffeId::parse(&format!("spiffe://td/spire/agent/tpm2/{name}")).expect("legal");
        let (one, two) = (hex(&[1; 32]), hex(&[2; 32]));
        let mut bans = LoggedBans::default();
        for (method, object) in [
            ("BanAgent", id("a").to_string()),
            ("BanAgent", id("b").to_string()),
            ("DeleteAgent", id("b").to_string()),
            ("BanDevice", one.clone()),
            ("BanDevice", format!("{one}: {}", id("c"))),
            ("BanDevice", two.clone()),
            ("DeleteDevice", two),
            ("AttestAgent", format!("{} serial 5", id("d"))),
            ("BanAgent", "no ID".to_owned()),
        ] {
            bans.note(&body(method, &object));
        }
        assert_eq!(bans.agents, [id("a"), id("c")].into());
        assert_eq!(bans.devices, [[1; 32]].into());
    }
}
