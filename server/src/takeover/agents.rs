//! Attested agents: their certificates go on being good, and so do their bans.

use std::collections::HashSet;

use ironroot_api::SpiffeId;
use ironroot_attest::{Selector, SelectorSet};
use ironroot_shell::printable::is_printable;

use super::plan::Rules;
use super::report::{Report, What};
use crate::facts::agent::{AgentRecord, MAX_AGENT_VERSION_BYTES};
use crate::store::spire::SpireAgent;

/// Longest serial number of a certificate, decimal digits: twenty bytes. Source: RFC 5280 §4.1.2.2.
const MAX_SERIAL_DIGITS: usize = 49;

/// Those that are agents of the trust domain; of each other the report says why.
pub(super) fn taken(found: Vec<SpireAgent>, rules: &Rules, now_unix: i64, report: &mut Report) -> Vec<AgentRecord> {
    let mut ids = HashSet::new();
    let mut taken = Vec::new();
    for agent in found {
        let name = agent.spiffe_id.clone();
        match judge(agent, rules, now_unix) {
            Ok(agent) if !ids.insert(agent.spiffe_id.clone()) => report.leave(What::Agent, name, "it is there twice"),
            Ok(agent) => {
                if !agent.banned && agent.can_reattest && !rules.attestors.contains(&agent.attestation_type) {
                    let kind = &agent.attestation_type;
                    report.leave(
                        What::AgentAttestation,
                        name,
                        format!("it goes on while its certificate is good, and cannot attest again: there is no NodeAttestor \"{kind}\" here"),
                    );
                }
                taken.push(agent);
            }
            Err(why) => report.leave(What::Agent, name, why),
        }
    }
    taken
}

fn judge(found: SpireAgent, rules: &Rules, now_unix: i64) -> Result<AgentRecord, String> {
    let id = SpiffeId::parse(&found.spiffe_id).and_then(|id| id.as_member_of(&rules.trust_domain));
    let spiffe_id = id.map_err(|error| error.to_string())?;
    if !spiffe_id.names_an_agent() {
        return Err("it is no agent's ID: its path is not below /spire/agent".to_owned());
    }
    let banned = found.serial_number.is_empty();
    if banned {
        return Ok(banned_agent(spiffe_id, found));
    }
    let is_pending = !found.new_serial_number.is_empty() && found.new_serial_number != found.serial_number;
    let ends = found.expires_at.max(if is_pending { found.new_expires_at } else { 0 });
    if found.can_reattest && ends <= now_unix {
        return Err("its certificate has ended; it attests again when it comes back".to_owned());
    }
    for serial in [&found.serial_number, &found.new_serial_number] {
        if serial.len() > MAX_SERIAL_DIGITS || !serial.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("its serial number is not decimal".to_owned());
        }
    }
    let selectors = found.selectors.iter().map(|(kind, value)| Selector::new(kind, value));
    let selectors: SelectorSet = selectors.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    Ok(AgentRecord {
        spiffe_id,
        attestation_type: found.data_type,
        serial: found.serial_number,
        not_after: found.expires_at.max(0),
        new_serial: if is_pending { found.new_serial_number } else { String::new() },
        new_not_after: if is_pending { found.new_expires_at.max(0) } else { 0 },
        can_reattest: found.can_reattest,
        banned: false,
        selectors,
        agent_version: agent_version(&found.agent_version),
        ek_sha256: None,
        certificate_sha256: None,
    })
}

/// A ban comes along whatever else stands with it: of its selectors those that can be selectors here.
fn banned_agent(spiffe_id: SpiffeId, found: SpireAgent) -> AgentRecord {
    let selectors = found.selectors.iter().filter_map(|(kind, value)| Selector::new(kind, value).ok());
    AgentRecord {
        spiffe_id,
        attestation_type: found.data_type,
        serial: String::new(),
        not_after: found.expires_at.max(0),
        new_serial: String::new(),
        new_not_after: 0,
        can_reattest: found.can_reattest,
        banned: true,
        selectors: selectors.collect(),
        agent_version: agent_version(&found.agent_version),
        ek_sha256: None,
        certificate_sha256: None,
    }
}

fn agent_version(text: &str) -> String {
    text.chars().filter(|c| is_printable(*c)).take(MAX_AGENT_VERSION_BYTES / 4).collect()
}
