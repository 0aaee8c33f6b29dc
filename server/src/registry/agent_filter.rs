//! Which agents a list shows.

use time::OffsetDateTime;
use time::macros::format_description;

use super::filter::{FilterError, SelectorMatch};
use crate::facts::agent::AgentRecord;
use ironroot_api::pb::agent;

/// Conditions that all must hold. Default: none, every agent matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentFilter {
    /// Agents attested this way.
    pub attestation_type: Option<String>,
    /// Agents whose selectors relate so.
    pub selectors: Option<SelectorMatch>,
    /// Agents that are, or are not, banned.
    pub banned: Option<bool>,
    /// Agents that can, or cannot, attest again.
    pub can_reattest: Option<bool>,
    /// Agents whose certificate ends before this time, UNIX seconds.
    pub expires_before: Option<i64>,
}

impl AgentFilter {
    /// From a list request; no filter means every agent.
    pub fn from_pb(filter: Option<&agent::list_agents_request::Filter>) -> Result<Self, FilterError> {
        let Some(filter) = filter else { return Ok(Self::default()) };
        Ok(Self {
            attestation_type: Some(filter.by_attestation_type.clone()).filter(|kind| !kind.is_empty()),
            selectors: filter.by_selector_match.as_ref().map(SelectorMatch::from_pb).transpose()?,
            banned: filter.by_banned,
            can_reattest: filter.by_can_reattest,
            expires_before: expires_before(&filter.by_expires_before)?,
        })
    }

    /// From a count request, which has the same conditions.
    pub fn from_count_pb(filter: Option<&agent::count_agents_request::Filter>) -> Result<Self, FilterError> {
        let same = filter.cloned().map(|f| agent::list_agents_request::Filter {
            by_attestation_type: f.by_attestation_type,
            by_selector_match: f.by_selector_match,
            by_banned: f.by_banned,
            by_can_reattest: f.by_can_reattest,
            by_expires_before: f.by_expires_before,
        });
        Self::from_pb(same.as_ref())
    }

    /// Whether every condition holds.
    pub fn matches(&self, agent: &AgentRecord) -> bool {
        self.attestation_type.as_ref().is_none_or(|kind| *kind == agent.attestation_type)
            && self.selectors.as_ref().is_none_or(|m| m.holds(&agent.selectors))
            && self.banned.is_none_or(|banned| banned == agent.banned)
            && self.can_reattest.is_none_or(|can| can == agent.can_reattest)
            && self.expires_before.is_none_or(|time| agent.not_after < time)
    }
}

/// Go's layout `2006-01-02 15:04:05 -0700 -07`: the zone twice. SPIRE ignores a time it cannot read and lists every agent;
/// we refuse, so that nobody evicts agents that a typing mistake selected.
fn expires_before(text: &str) -> Result<Option<i64>, FilterError> {
    if text.is_empty() {
        return Ok(None);
    }
    let layout = format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]"
    );
    let (time, _zone) = text.rsplit_once(' ').ok_or(FilterError::ExpiresBefore)?;
    let time = OffsetDateTime::parse(time, layout).map_err(|_| FilterError::ExpiresBefore)?;
    Ok(Some(time.unix_timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_time_as_the_spire_cli_writes_it() {
        assert_eq!(expires_before(""), Ok(None));
        assert_eq!(expires_before("1970-01-01 00:01:00 +0000 +00"), Ok(Some(60)));
        assert_eq!(expires_before("1970-01-01 02:01:00 +0200 +02"), Ok(Some(60)));
        for bad in ["yesterday", "1970-01-01 00:01:00", "1970-13-01 00:01:00 +0000 +00"] {
            assert_eq!(expires_before(bad), Err(FilterError::ExpiresBefore), "{bad}");
        }
    }
}
