//! Bans that an older database does not know, from the log of what was done. Bans are never lifted by a file that somebody puts back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ironroot_api::SpiffeId;
use ironroot_attest::SelectorSet;
use ironroot_text::hex::{hex, parse_hex};
use serde::Serialize;

use crate::facts::agent::AgentRecord;
use crate::facts::device::{Ban, BanReason, DeviceRecord, DeviceState};
use crate::facts::older_state::Evidence;
use crate::issuance_log::{self, Body, LogError};
use crate::store::{StoreError, Transaction};

/// The method of a record behind which all bans stand again that there are: those before it count no more.
pub const BANS_TOLD_ANEW: &str = "Bans";

/// Bans that the log has, later than a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LoggedBans {
    /// With the certificate that each attested by, if the log says it: its ban holds under every ID that the certificate can have.
    agents: BTreeMap<SpiffeId, Option<[u8; 32]>>,
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

/// What a database knows of what the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Past {
    /// How far it has come.
    revision: i64,
    /// When it was made, UNIX seconds, if that is known: all of an epoch that began later is later.
    made_at: Option<u64>,
}

impl Past {
    /// Of a database at `revision` that is known to be older by `evidence`.
    pub fn of(revision: i64, evidence: &Evidence) -> Self {
        let made_at = if let Evidence::Restored { made_at, .. } = evidence { Some(*made_at) } else { None };
        Self { revision: revision.min(shared_with(evidence)), made_at: made_at.and_then(|at| at.try_into().ok()) }
    }

    /// Revisions of one epoch go on from where an older state was accepted: those of the epoch before say nothing of it.
    fn lacks(&self, body: &Body) -> bool {
        body.revision.is_some_and(|at| at > self.revision) || self.made_at.is_some_and(|made_at| body.epoch > made_at)
    }
}

/// To which revision at most the database has the history that was lost. What was written since it was noticed, the note of that too, is of
/// the history that is there.
fn shared_with(evidence: &Evidence) -> i64 {
    match evidence {
        Evidence::Restored { revision, .. } | Evidence::Log { revision, .. } => *revision,
        // Where it had come as far, or further, its history is another one from somewhere before that: nobody knows from where.
        Evidence::Mark { marked: known, revision, .. } | Evidence::Followed { followed: known, revision } => {
            if known > revision { *revision } else { 0 }
        }
        Evidence::Head { .. } | Evidence::Key { .. } => i64::MAX,
    }
}

impl LoggedBans {
    /// Those given in `directory`'s log and not known to a database of that `past`, and not lifted since. Blocks: it may read a gigabyte.
    pub fn since(directory: &Path, past: Past) -> Result<Self, LogError> {
        let mut bans = Self::default();
        if directory.is_dir() {
            issuance_log::read_kept(directory, |record| bans.note(&record.body, past))?;
            issuance_log::read(directory, |record, _| bans.note(&record.body, past))?;
        }
        Ok(bans)
    }

    /// In the order of the log. What was lifted counts at any revision: a ban of an epoch that was given up was given again in the next,
    /// and lifted there at a revision that may be lower.
    fn note(&mut self, body: &Body, past: Past) {
        // Of a device's ban, "HASH", and "HASH: AGENT" for each agent that it had; of an agent's, "AGENT", and "certificate HASH: AGENT".
        let (of, agent) = body.object.split_once(": ").unwrap_or(("", &body.object));
        let id = SpiffeId::parse(agent).ok();
        match body.method.as_str() {
            BANS_TOLD_ANEW => *self = Self::default(),
            "DeleteAgent" => {
                id.map(|id| self.agents.remove(&id));
            }
            "DeleteDevice" => {
                parse_hex(agent).map(|device| self.devices.remove(&device));
            }
            "BanAgent" if past.lacks(body) => {
                let certificate = of.strip_prefix("certificate ").and_then(parse_hex);
                if let Some(known) = id.map(|id| self.agents.entry(id).or_default()) {
                    *known = certificate.or(*known);
                }
            }
            "BanDevice" if past.lacks(body) => {
                self.devices.extend(parse_hex(if of.is_empty() { agent } else { of }));
                self.agents.extend(id.map(|id| (id, None)));
            }
            _ => {}
        }
    }

    /// Gives them again.
    pub fn give(&self, tx: &Transaction<'_>, now_unix: i64) -> Result<RecoveredBans, StoreError> {
        let mut recovered = RecoveredBans::default();
        for (id, certificate) in &self.agents {
            if give_agent(tx, id, *certificate)? {
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

/// Whether it was not banned. An agent of another ID that has the same certificate is banned in its stead as far as that goes: a
/// certificate is one agent's.
fn give_agent(tx: &Transaction<'_>, id: &SpiffeId, certificate: Option<[u8; 32]>) -> Result<bool, StoreError> {
    let known = tx.agent(id)?.map(|(_, known)| known);
    let certificate = certificate.map(|certificate| free(tx, id, certificate)).transpose()?.flatten();
    let is_news = known.as_ref().is_none_or(|known| !known.banned);
    if is_news || known.as_ref().is_some_and(|known| known.certificate_sha256.is_none() && certificate.is_some()) {
        let agent = banned_agent(id, known);
        tx.put_agent(&AgentRecord { certificate_sha256: agent.certificate_sha256.or(certificate), ..agent })?;
    }
    Ok(is_news)
}

/// The certificate of a banned agent, if no other ID has it; an agent that has it under another one is banned instead.
fn free(tx: &Transaction<'_>, id: &SpiffeId, certificate: [u8; 32]) -> Result<Option<[u8; 32]>, StoreError> {
    let twin = tx.agent_with_certificate(&certificate)?.filter(|twin| twin.spiffe_id != *id);
    let Some(twin) = twin else { return Ok(Some(certificate)) };
    if !twin.banned {
        tx.put_agent(&banned_agent(&twin.spiffe_id.clone(), Some(twin)))?;
    }
    Ok(None)
}

/// Carries the ban of an agent over from another database, as that had it. Whether it was not banned. Of its certificate as above.
pub fn carry_ban(tx: &Transaction<'_>, agent: &AgentRecord) -> Result<bool, StoreError> {
    let certificate = agent.certificate_sha256.map(|certificate| free(tx, &agent.spiffe_id, certificate));
    let certificate = certificate.transpose()?.flatten();
    let known = tx.agent(&agent.spiffe_id)?.map(|(_, known)| known);
    let is_news = known.as_ref().is_none_or(|known| !known.banned);
    let known = known.and_then(|known| known.certificate_sha256);
    if is_news || (known.is_none() && certificate.is_some()) {
        tx.put_agent(&AgentRecord { certificate_sha256: certificate.or(known), ..agent.clone() })?;
    }
    Ok(is_news)
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
mod tests;
