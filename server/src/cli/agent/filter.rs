//! Which agents are meant.

use std::convert::Infallible;
use std::str::FromStr;

use clap::Args;
use ironroot_api::pb::agent::{count_agents_request, list_agents_request};
use ironroot_attest::Selector;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::settings::parse_duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use ironroot_shell::command_line::CommandError;

use crate::cli::entry::selector_match;

#[derive(Debug, Default, Args)]
pub(super) struct Filter {
    /// A selector as type:value; repeat for more
    #[arg(long, value_name = "TYPE:VALUE")]
    selector: Vec<Selector>,
    /// How their selectors compare with the given ones: exact, any, superset or subset
    #[arg(long = "matchSelectorsOn", value_name = "MODE", default_value = "superset")]
    match_selectors_on: String,
    /// How they attested, such as tpm2 or join_token
    #[arg(long = "attestationType", value_name = "TYPE", default_value = "", hide_default_value = true)]
    attestation_type: String,
    /// true or false; anything else: both
    #[arg(long = "canReattest", value_name = "BOOL", default_value = "", hide_default_value = true)]
    can_reattest: YesNoOrBoth,
    /// true or false; anything else: both
    #[arg(long, value_name = "BOOL", default_value = "", hide_default_value = true)]
    banned: YesNoOrBoth,
    /// Whose SVID ends before this, as 2006-01-02T15:04:05Z, "2006-01-02 15:04:05 -0700 -07", or from now on as 24h
    #[arg(long = "expiresBefore", value_name = "TIME", default_value = "", hide_default_value = true, value_parser = expires_before)]
    expires_before: String,
}

/// Source: SPIRE, where any other word means both.
#[derive(Clone, Copy, Debug, Default)]
struct YesNoOrBoth(Option<bool>);

impl FromStr for YesNoOrBoth {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.parse().ok()))
    }
}

impl Filter {
    /// Agents that can attest again and may: to forget a banned one would lift its ban.
    pub(super) fn reattestable() -> list_agents_request::Filter {
        list_agents_request::Filter {
            by_can_reattest: Some(true),
            by_banned: Some(false),
            ..list_agents_request::Filter::default()
        }
    }

    pub(super) fn to_list_filter(&self) -> Result<list_agents_request::Filter, CommandError> {
        Ok(list_agents_request::Filter {
            by_attestation_type: self.attestation_type.clone(),
            by_selector_match: selector_match(&self.selector, &self.match_selectors_on)?,
            by_banned: self.banned.0,
            by_can_reattest: self.can_reattest.0,
            by_expires_before: self.expires_before.clone(),
        })
    }

    pub(super) fn to_count_filter(&self) -> Result<count_agents_request::Filter, CommandError> {
        let filter = self.to_list_filter()?;
        Ok(count_agents_request::Filter {
            by_attestation_type: filter.by_attestation_type,
            by_selector_match: filter.by_selector_match,
            by_banned: filter.by_banned,
            by_can_reattest: filter.by_can_reattest,
            by_expires_before: filter.by_expires_before,
        })
    }
}

/// In the wire's form, Go's layout with the zone twice; what is neither RFC 3339 nor a duration is left to the server.
fn expires_before(text: &str) -> Result<String, &'static str> {
    let time = match (OffsetDateTime::parse(text, &Rfc3339), parse_duration(text)) {
        (Ok(time), _) => time.unix_timestamp(),
        (_, Ok(from_now)) => wall_unix().saturating_add_unsigned(from_now.as_secs()),
        _ => return Ok(text.to_owned()),
    };
    let time = OffsetDateTime::from_unix_timestamp(time).map_err(|_| "later than any time")?;
    let layout = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] +0000 +00");
    time.format(layout).map_err(|_| "later than any time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_durations_or_spires_layout() {
        assert_eq!(expires_before("2026-11-25T22:00:00+01:00").as_deref(), Ok("2026-11-25 21:00:00 +0000 +00"));
        assert_eq!(expires_before("2026-11-25 21:00:00 +0100 +01").as_deref(), Ok("2026-11-25 21:00:00 +0100 +01"));
        assert_eq!(expires_before("").as_deref(), Ok(""));
        assert!(expires_before("24h").is_ok_and(|text| text.ends_with(" +0000 +00")));
    }
}
