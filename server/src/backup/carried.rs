//! What a restore takes from the database that it replaces, where that can still be read: nothing of it may go back.
//!
//! Bans are never lifted, and a CA never goes back to keys that its token has not any more. Join tokens are burnt: whether one of the
//! backup was used since, nobody can say of every database, so none of them is good again.

use std::path::Path;

use ironroot_api::TrustDomain;
use ironroot_text::hex::hex;
use serde::Serialize;

use crate::ca::{Journal, ServerName};
use crate::facts::agent::AgentRecord;
use crate::facts::device::{DeviceState, KnownDevice};
use crate::facts::older_state::Evidence;
use crate::older_state::carry_ban;
use crate::registry::Registry;
use crate::store::{Facts, Store, StoreError, Transaction};

/// What was carried over, and what became of join tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Carried {
    /// Agents that were banned here, by their IDs; of those the backup had some as good, and did not know others.
    pub banned_agents: Vec<String>,
    /// Devices that were banned here, by the SHA-256 of their endorsement keys; likewise.
    pub banned_devices: Vec<String>,
    /// Whose CA goes on.
    pub authorities: Authorities,
    /// How many join tokens of the backup are good no more.
    pub burnt_join_tokens: usize,
    /// Why nothing was carried over, if nothing could be; none too where there was no database.
    pub not_carried: Option<String>,
}

/// Whose CA goes on after a restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Authorities {
    /// The backup's.
    #[default]
    OfBackup,
    /// The one that was here, since it is newer.
    OfHere,
}

/// What the database that is replaced knows and the backup may not.
#[derive(Debug, Default)]
pub(super) struct Newer {
    agents: Vec<AgentRecord>,
    devices: Vec<KnownDevice>,
    /// Each server's, if its keys are there.
    journals: Vec<(String, Vec<u8>)>,
}

impl Newer {
    /// Of the database at `path`; its CAs' journals only `with_journals`.
    pub fn read(path: &Path, trust_domain: &TrustDomain, with_journals: bool) -> Result<Self, StoreError> {
        let read = |facts: &Facts<'_>| {
            let agents = facts.agents()?.into_iter().map(|(_, agent)| agent).filter(|agent| agent.banned).collect();
            let is_banned = |device: &KnownDevice| device.record.state == DeviceState::Banned;
            let devices = facts.devices()?.into_iter().filter(is_banned).collect();
            let journals = if with_journals { facts.ca_journals()? } else { Vec::new() };
            Ok(Self { agents, devices, journals })
        };
        Store::read_file(path, trust_domain, read)
    }

    /// Puts it into `store`, whose join tokens are burnt, and which says from now on that it is older: `evidence`.
    pub async fn carry_into(self, store: &Store, evidence: Evidence, now_unix: i64) -> Result<Carried, StoreError> {
        let trust_domain = store.trust_domain().clone();
        let carry = move |tx: &Transaction<'_>| {
            tx.note_older_state(&evidence, now_unix)?;
            self.carry(tx, &trust_domain)
        };
        let carried = store.change(carry).await?;
        let registry = Registry::load(store.clone()).await.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let burnt_join_tokens = registry.prune_join_tokens(i64::MAX).await?;
        Ok(Carried { burnt_join_tokens, ..carried })
    }

    fn carry(&self, tx: &Transaction<'_>, trust_domain: &TrustDomain) -> Result<Carried, StoreError> {
        let mut carried = Carried::default();
        for agent in &self.agents {
            if carry_ban(tx, agent)? {
                carried.banned_agents.push(agent.spiffe_id.to_string());
            }
        }
        for device in &self.devices {
            let ek_sha256 = &device.record.ek_sha256;
            if tx.device(ek_sha256)?.is_none_or(|known| known.record.state != DeviceState::Banned) {
                tx.put_device(&device.record, device.clock)?;
                tx.ban_agents_of(ek_sha256)?;
                carried.banned_devices.push(hex(ek_sha256));
            }
        }
        for (server, journal) in &self.journals {
            if is_newer(server, journal, tx.ca_journal(server)?.as_deref(), trust_domain) {
                tx.put_ca_journal(server, journal)?;
                carried.authorities = Authorities::OfHere;
            }
        }
        Ok(carried)
    }
}

/// Whether the journal that was here has come as far as the backup's at least: it is taken where it can be read.
fn is_newer(server: &str, here: &[u8], backup: Option<&[u8]>, trust_domain: &TrustDomain) -> bool {
    // The server without a name has an empty one.
    let server = server.parse::<ServerName>().unwrap_or_default();
    let read = |bytes| Journal::from_bytes(bytes, trust_domain, &server).ok();
    let progress = |journal: &Journal| (journal.sequence_number(), journal.next_key());
    match (read(here), backup.and_then(read)) {
        (Some(here), Some(backup)) => progress(&here) >= progress(&backup),
        (here, None) => here.is_some(),
        (None, Some(_)) => false,
    }
}
