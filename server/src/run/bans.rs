//! Bans that are given and lifted, by whichever server of a data store, in this server's log: each of them can tell an older state all of
//! them, and none that was lifted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ironroot_api::SpiffeId;
use ironroot_text::hex::hex;
use tracing::warn;

use crate::facts::agent::AgentRecord;
use crate::facts::device::{DeviceRecord, DeviceState};
use crate::issuance_log::{Event, IssuanceLog};
use crate::older_state::BANS_TOLD_ANEW;
use crate::registry::Registry;
use crate::store::{Changed, Facts, Follows, News, Store, StoreError};

/// Most bans that are told anew as a server starts: so many wait for the disk, and room is left. Where there are more, what was lifted
/// elsewhere while this server was off stays a ban in its log.
const MAX_TOLD_ANEW: usize = 8192;

/// Has `log` follow the bans of a data store that other servers change too; what one server alone changes stands in its log anyway. Its
/// records say how far the data store has come: whoever has the log say that follows before this.
pub(super) async fn log_bans(store: &Store, log: IssuanceLog, registry: &Arc<Registry>) -> Result<(), StoreError> {
    if store.is_shared() { follow_bans(store, log, registry).await } else { Ok(()) }
}

/// What is told is read from the facts: the registry's memory may lag behind them, where it could not be brought up to date. While it lives
/// they are followed.
async fn follow_bans(store: &Store, log: IssuanceLog, registry: &Arc<Registry>) -> Result<(), StoreError> {
    let registry = Arc::downgrade(registry);
    let mut known: Option<Bans> = None;
    store
        .follow(move |facts, news| {
            if registry.strong_count() == 0 {
                return Ok(Follows::Ended);
            }
            let events = match (&mut known, news) {
                (Some(known), News::Changes(changes)) => known.follow(facts, changes)?,
                (Some(before), News::Everything) => before.become_now(Bans::of(facts)?),
                (None, _) => known.insert(Bans::of(facts)?).told_anew(),
            };
            events.into_iter().for_each(|event| log.append(event));
            Ok(Follows::On)
        })
        .await
}

/// Who is banned: agents with the certificate that each attested by, if it did, and devices.
#[derive(Debug, Default, PartialEq, Eq)]
struct Bans {
    agents: BTreeMap<SpiffeId, Option<[u8; 32]>>,
    devices: BTreeSet<[u8; 32]>,
}

impl Bans {
    fn of(facts: &Facts<'_>) -> Result<Self, StoreError> {
        let agents = facts.agents()?.into_iter().map(|(_, agent)| agent).filter(|agent| agent.banned);
        let devices = facts.devices()?.into_iter().map(|device| device.record).filter(|device| is_banned(device));
        Ok(Self {
            agents: agents.map(|agent| (agent.spiffe_id, agent.certificate_sha256)).collect(),
            devices: devices.map(|device| device.ek_sha256).collect(),
        })
    }

    /// What was banned before counts no more, and this does.
    fn told_anew(&self) -> Vec<Event> {
        let (agents, devices) = (self.agents.len(), self.devices.len());
        if agents + devices > MAX_TOLD_ANEW {
            warn!(
                agents,
                devices,
                limit = MAX_TOLD_ANEW,
                "the issuance log is not told which bans there are: there are too many"
            );
            return Vec::new();
        }
        let begin = event(BANS_TOLD_ANEW, format!("{agents} agents and {devices} devices are banned"));
        std::iter::once(begin).chain(Self::default().changes(self)).collect()
    }

    fn become_now(&mut self, now: Self) -> Vec<Event> {
        let changes = self.changes(&now);
        *self = now;
        changes
    }

    /// What became of those that have changed. Nothing is taken in if any of them cannot be read: all are told once more then.
    fn follow(&mut self, facts: &Facts<'_>, changes: &[Changed]) -> Result<Vec<Event>, StoreError> {
        let (mut agents, mut devices) = (Vec::new(), Vec::new());
        for changed in changes {
            match changed {
                Changed::Agent(id) => agents.push((id, facts.agent(id)?.map(|(_, agent)| agent))),
                Changed::Device(ek) => devices.push((ek, facts.device(ek)?)),
                _ => {}
            }
        }
        let mut events = Vec::new();
        for (id, agent) in agents {
            events.extend(self.follow_agent(id, agent.filter(|agent| agent.banned).as_ref()));
        }
        for (ek, device) in devices {
            events.extend(self.follow_device(ek, device.is_some_and(|device| is_banned(&device.record))));
        }
        Ok(events)
    }

    fn follow_agent(&mut self, id: &SpiffeId, banned: Option<&AgentRecord>) -> Vec<Event> {
        let before = self.agents.get(id).copied();
        match (before, banned.map(|agent| agent.certificate_sha256)) {
            (before, Some(now)) if before != Some(now) => {
                self.agents.insert(id.clone(), now);
                agent_banned(id, now)
            }
            (Some(_), None) => {
                self.agents.remove(id);
                vec![event("DeleteAgent", id.to_string())]
            }
            _ => Vec::new(),
        }
    }

    fn follow_device(&mut self, ek_sha256: &[u8; 32], is_banned: bool) -> Option<Event> {
        match is_banned {
            true => self.devices.insert(*ek_sha256).then(|| event("BanDevice", hex(ek_sha256))),
            false => self.devices.remove(ek_sha256).then(|| event("DeleteDevice", hex(ek_sha256))),
        }
    }

    /// What makes `now` of this: what is lifted first.
    fn changes(&self, now: &Self) -> Vec<Event> {
        let lifted = self.agents.keys().filter(|id| !now.agents.contains_key(*id));
        let lifted = lifted.map(|id| event("DeleteAgent", id.to_string()));
        let lifted_devices = self.devices.difference(&now.devices).map(|ek| event("DeleteDevice", hex(ek)));
        let given = now.agents.iter().filter(|(id, certificate)| self.agents.get(*id) != Some(*certificate));
        let given = given.flat_map(|(id, certificate)| agent_banned(id, *certificate));
        let given_devices = now.devices.difference(&self.devices).map(|ek| event("BanDevice", hex(ek)));
        lifted.chain(lifted_devices).chain(given).chain(given_devices).collect()
    }
}

fn is_banned(device: &DeviceRecord) -> bool {
    device.state == DeviceState::Banned
}

fn agent_banned(id: &SpiffeId, certificate: Option<[u8; 32]>) -> Vec<Event> {
    let by_certificate = certificate.map(|hash| event("BanAgent", format!("certificate {}: {id}", hex(&hash))));
    std::iter::once(event("BanAgent", id.to_string())).chain(by_certificate).collect()
}

/// In the words of the audit, by whom nobody here can say.
fn event(method: &str, object: String) -> Event {
    Event { method: method.to_owned(), object, by: "the data store".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuance_log::Record;

    fn bans(agents: &[(&str, Option<u8>)], devices: &[u8]) -> Bans {
        let agents = agents.iter().map(|(name, of)| (id(name), of.map(|of| [of; 32])));
        Bans { agents: agents.collect(), devices: devices.iter().map(|of| [*of; 32]).collect() }
    }

    fn id(name: &str) -> SpiffeId {
        format!("spiffe://td/spire/agent/x509pop/{name}").parse().expect("legal")
    }

    fn words(events: Vec<Event>) -> Vec<String> {
        events.into_iter().map(|event| format!("{} {}", event.method, event.object)).collect()
    }

    #[test]
    fn what_changed_while_nobody_looked_is_told_and_what_did_not_is_not() {
        let mut known = bans(&[("lifted", None), ("stays", Some(1))], &[1, 2]);
        let told = words(known.become_now(bans(&[("stays", Some(1)), ("new", Some(3))], &[2, 3])));
        let [gone, came] = [[1; 32], [3; 32]].map(|hash| hex(&hash));
        let expected = [
            format!("DeleteAgent {}", id("lifted")),
            format!("DeleteDevice {gone}"),
            format!("BanAgent {}", id("new")),
            format!("BanAgent certificate {came}: {}", id("new")),
            format!("BanDevice {came}"),
        ];
        assert_eq!(told, expected);
        assert!(known.become_now(bans(&[("stays", Some(1)), ("new", Some(3))], &[2, 3])).is_empty());
    }

    #[test]
    fn an_agent_and_a_device_that_change_are_told_when_their_ban_does() {
        let mut known = Bans::default();
        let banned = AgentRecord { banned: true, certificate_sha256: Some([1; 32]), ..AgentRecord::example("a") };
        let name = banned.spiffe_id.clone();
        assert_eq!(known.follow_agent(&name, Some(&banned)).len(), 2);
        assert!(known.follow_agent(&name, Some(&banned)).is_empty(), "it was told");
        assert_eq!(words(known.follow_agent(&name, None)), [format!("DeleteAgent {name}")]);
        assert!(known.follow_agent(&name, None).is_empty(), "one that was not banned");
        let told = [true, true, false, false].map(|banned| known.follow_device(&[1; 32], banned).is_some());
        assert_eq!(told, [true, false, true, false]);
    }

    #[tokio::test]
    async fn a_ban_is_in_the_log_though_the_registry_has_not_heard_of_it() {
        let directory = tempfile::tempdir().expect("directory");
        let open = |name: &str| {
            let trust_domain = ironroot_api::TrustDomain::new("td").expect("legal");
            Store::open(&directory.path().join(name), &trust_domain).expect("opens")
        };
        let (store, elsewhere) = (open("datastore.sqlite3"), open("another.sqlite3"));
        let behind = Arc::new(Registry::load(elsewhere.clone()).await.expect("loads"));
        let log = IssuanceLog::open(&directory.path().join("issuance"), None).expect("opens");
        let change = async |agent: AgentRecord| {
            store.change::<_, StoreError>(move |tx| tx.put_agent(&agent).map(drop)).await.expect("changed");
        };
        let banned = |name: &str| AgentRecord { spiffe_id: id(name), banned: true, ..AgentRecord::example("x") };
        change(banned("before")).await;
        follow_bans(&store, log.clone(), &behind).await.expect("follows");
        change(banned("later")).await;
        change(AgentRecord { banned: false, ..banned("before") }).await;
        log.close();
        let records = crate::issuance_log::read_last(&directory.path().join("issuance"), 9).expect("reads");
        let told: Vec<_> =
            records.iter().map(|Record { body, .. }| format!("{} {}", body.method, body.object)).collect();
        let expected = [
            "Bans 1 agents and 0 devices are banned".to_owned(),
            format!("BanAgent {}", id("before")),
            format!("BanAgent {}", id("later")),
            format!("DeleteAgent {}", id("before")),
        ];
        assert_eq!(told, expected);
        store.close().await;
        elsewhere.close().await;
    }

    #[test]
    fn what_is_told_anew_has_a_bound() {
        let devices = |count: usize| {
            (0..count).map(|number| {
                let mut ek_sha256 = [0; 32];
                ek_sha256[..8].copy_from_slice(&number.to_be_bytes());
                ek_sha256
            })
        };
        let told = |count| Bans { devices: devices(count).collect(), ..Bans::default() }.told_anew().len();
        assert_eq!([told(0), told(MAX_TOLD_ANEW), told(MAX_TOLD_ANEW + 1)], [1, MAX_TOLD_ANEW + 1, 0]);
    }
}
