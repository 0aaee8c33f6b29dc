//! Attested agents.

use crate::facts::agent::AgentRecord;
use ironroot_api::SpiffeId;
use ironroot_attest::{Selector, SelectorSet};

use super::{Facts, Row, SLICE, Transaction, Value};
use crate::store::{Changed, StoreError};

const COLUMNS: &str =
    "seq, spiffe_id, attestation_type, serial, not_after, new_serial, new_not_after, can_reattest, banned,
                       selectors, agent_version, ek_sha256, certificate_sha256";

/// What a ban does to an agent's row: no certificate counts any more.
const BAN: &str = "UPDATE agents SET banned = TRUE, serial = '', new_serial = '', new_not_after = 0";

impl Facts<'_> {
    /// Every agent with its place in lists, in order.
    pub fn agents(&self) -> Result<Vec<(i64, AgentRecord)>, StoreError> {
        self.sql.all(&format!("SELECT {COLUMNS} FROM agents ORDER BY seq"), &[], record)
    }

    /// The agent of that ID with its place in the order of arrival; `None` if there is none.
    pub fn agent(&self, id: &SpiffeId) -> Result<Option<(i64, AgentRecord)>, StoreError> {
        self.sql.first(&format!("SELECT {COLUMNS} FROM agents WHERE spiffe_id = ?1"), &[&id.as_str()], record)
    }

    /// The agent that attested with the certificate of that TBSCertificate's SHA-256; `None` if there is none.
    pub fn agent_with_certificate(&self, certificate_sha256: &[u8; 32]) -> Result<Option<AgentRecord>, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM agents WHERE certificate_sha256 = ?1");
        Ok(self.sql.first(&select, &[certificate_sha256], record)?.map(|(_, agent)| agent))
    }
}

impl Transaction<'_> {
    /// Adds the agent or replaces its row; returns its place in lists, which it keeps. Of one that is banned in it, the keys of tokens that it
    /// has published go.
    pub fn put_agent(&self, agent: &AgentRecord) -> Result<i64, StoreError> {
        let put = "INSERT INTO agents (spiffe_id, attestation_type, serial, not_after, new_serial, new_not_after, can_reattest,
                                       banned, selectors, agent_version, ek_sha256, certificate_sha256)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                   ON CONFLICT (spiffe_id) DO UPDATE SET
                       attestation_type = excluded.attestation_type, serial = excluded.serial,
                       not_after = excluded.not_after, new_serial = excluded.new_serial,
                       new_not_after = excluded.new_not_after, can_reattest = excluded.can_reattest,
                       banned = excluded.banned, selectors = excluded.selectors,
                       agent_version = excluded.agent_version, ek_sha256 = excluded.ek_sha256,
                       certificate_sha256 = excluded.certificate_sha256
                   RETURNING seq";
        let values: [&dyn Value; 12] = [
            &agent.spiffe_id.as_str(),
            &agent.attestation_type,
            &agent.serial,
            &agent.not_after,
            &agent.new_serial,
            &agent.new_not_after,
            &agent.can_reattest,
            &agent.banned,
            &lines(&agent.selectors),
            &agent.agent_version,
            &agent.ek_sha256,
            &agent.certificate_sha256,
        ];
        let seq = self.sql.one(put, &values, |row| row.get(0))?;
        match agent.banned {
            true => self.shut_out(std::slice::from_ref(&agent.spiffe_id))?,
            false => self.note(Changed::Agent(agent.spiffe_id.clone())),
        }
        Ok(seq)
    }

    /// Shuts the agent out; false if there is none of that ID. The keys of tokens that it has published go.
    pub fn ban_agent(&self, id: &SpiffeId) -> Result<bool, StoreError> {
        let ban = format!("{BAN} WHERE spiffe_id = ?1");
        let banned = self.sql.execute(&ban, &[&id.as_str()])? == 1;
        if banned {
            self.shut_out(std::slice::from_ref(id))?;
        }
        Ok(banned)
    }

    /// Shuts out every agent that attested with that endorsement key; returns their IDs. The keys of tokens that they have published go.
    pub fn ban_agents_of(&self, ek_sha256: &[u8; 32]) -> Result<Vec<SpiffeId>, StoreError> {
        let ban = format!("{BAN} WHERE ek_sha256 = ?1 RETURNING spiffe_id");
        let banned = ids(self.sql.all(&ban, &[ek_sha256], |row| row.get(0))?)?;
        self.shut_out(&banned)?;
        Ok(banned)
    }

    /// Removes an agent; false if there is none of that ID.
    pub fn remove_agent(&self, id: &SpiffeId) -> Result<bool, StoreError> {
        let removed = self.sql.execute("DELETE FROM agents WHERE spiffe_id = ?1", &[&id.as_str()])? == 1;
        if removed {
            self.note(Changed::Agent(id.clone()));
        }
        Ok(removed)
    }

    /// Removes agents that can attest again (`tofu`: and those that cannot), are not banned, and whose certificates ended before that
    /// time, a slice at most; returns their IDs.
    pub fn remove_agents_ended_before(&self, time: i64, tofu: bool) -> Result<Vec<SpiffeId>, StoreError> {
        let remove =
            "DELETE FROM agents WHERE spiffe_id IN (SELECT spiffe_id FROM agents WHERE (can_reattest OR ?2) AND NOT banned
                      AND not_after < ?1 AND new_not_after < ?1 LIMIT ?3) RETURNING spiffe_id";
        let removed = ids(self.sql.all(remove, &[&time, &tofu, &SLICE], |row| row.get(0))?)?;
        self.note_agents(&removed);
        Ok(removed)
    }

    /// What each ban does, whoever gave it, beside the agent's own row: every verb that makes a banned one of it calls this.
    fn shut_out(&self, agents: &[SpiffeId]) -> Result<(), StoreError> {
        self.note_agents(agents);
        self.remove_keys_published_through(agents)
    }

    fn note_agents(&self, agents: &[SpiffeId]) {
        agents.iter().for_each(|id| self.note(Changed::Agent(id.clone())));
    }
}

fn ids(rows: Vec<String>) -> Result<Vec<SpiffeId>, StoreError> {
    let parse = |id: String| SpiffeId::parse(&id).map_err(|e| StoreError::Corrupt(format!("agent {id:?}: {e}")));
    rows.into_iter().map(parse).collect()
}

fn record(row: &Row<'_>) -> Result<(i64, AgentRecord), StoreError> {
    let seq: i64 = row.get(0)?;
    let damaged = |why: &dyn std::error::Error| StoreError::Corrupt(format!("agent in row {seq}: {why}"));
    let agent = AgentRecord {
        spiffe_id: SpiffeId::parse(&row.get::<String>(1)?).map_err(|e| damaged(&e))?,
        attestation_type: row.get(2)?,
        serial: row.get(3)?,
        not_after: row.get(4)?,
        new_serial: row.get(5)?,
        new_not_after: row.get(6)?,
        can_reattest: row.get(7)?,
        banned: row.get(8)?,
        selectors: selectors(&row.get::<String>(9)?).map_err(|e| damaged(&e))?,
        agent_version: row.get(10)?,
        ek_sha256: row.get(11)?,
        certificate_sha256: row.get(12)?,
    };
    Ok((seq, agent))
}

/// One selector per line: neither types nor values hold control characters.
fn lines(selectors: &SelectorSet) -> String {
    selectors.iter().map(Selector::to_string).collect::<Vec<_>>().join("\n")
}

fn selectors(lines: &str) -> Result<SelectorSet, ironroot_attest::SelectorError> {
    lines.lines().map(Selector::accepted).collect()
}
