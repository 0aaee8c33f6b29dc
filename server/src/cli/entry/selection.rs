//! How sets are compared.

use ironroot_api::pb::types::{FederatesWithMatch, Selector as PbSelector, SelectorMatch};
use ironroot_api::pb::types::{federates_with_match, selector_match as selector_match_pb};
use ironroot_attest::Selector;
use ironroot_shell::command_line::CommandError;

/// How a set compares with the one that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MatchMode {
    Exact,
    Any,
    Superset,
    Subset,
}

impl MatchMode {
    /// Of what stands behind `-matchSelectorsOn`, once there is something to compare: SPIRE passes over it where nothing is.
    fn parse(flag: &str, text: &str) -> Result<Self, CommandError> {
        match text {
            "exact" => Ok(Self::Exact),
            "any" => Ok(Self::Any),
            "superset" => Ok(Self::Superset),
            "subset" => Ok(Self::Subset),
            _ => Err(CommandError::Usage(format!("-{flag} {text:?}: use exact, any, superset or subset"))),
        }
    }
}

/// The wire form; none if no selector was given.
pub(in crate::cli) fn selector_match(
    selectors: &[Selector],
    mode: &str,
) -> Result<Option<SelectorMatch>, CommandError> {
    use selector_match_pb::MatchBehavior;
    if selectors.is_empty() {
        return Ok(None);
    }
    let mode = match MatchMode::parse("matchSelectorsOn", mode)? {
        MatchMode::Exact => MatchBehavior::MatchExact,
        MatchMode::Any => MatchBehavior::MatchAny,
        MatchMode::Superset => MatchBehavior::MatchSuperset,
        MatchMode::Subset => MatchBehavior::MatchSubset,
    };
    Ok(Some(SelectorMatch { selectors: to_pb(selectors), r#match: mode.into() }))
}

/// The wire form; none if no trust domain was given.
pub(super) fn federates_with(trust_domains: &[String], mode: &str) -> Result<Option<FederatesWithMatch>, CommandError> {
    use federates_with_match::MatchBehavior;
    if trust_domains.is_empty() {
        return Ok(None);
    }
    let mode = match MatchMode::parse("matchFederatesWithOn", mode)? {
        MatchMode::Exact => MatchBehavior::MatchExact,
        MatchMode::Any => MatchBehavior::MatchAny,
        MatchMode::Superset => MatchBehavior::MatchSuperset,
        MatchMode::Subset => MatchBehavior::MatchSubset,
    };
    Ok(Some(FederatesWithMatch { trust_domains: trust_domains.to_vec(), r#match: mode.into() }))
}

/// The wire form.
pub(super) fn to_pb(selectors: &[Selector]) -> Vec<PbSelector> {
    let one = |s: &Selector| PbSelector { r#type: s.kind().to_owned(), value: s.value().to_owned() };
    selectors.iter().map(one).collect()
}
