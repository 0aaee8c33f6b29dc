//! How sets are compared.

use std::str::FromStr;

use ironroot_api::pb::types::{FederatesWithMatch, Selector as PbSelector, SelectorMatch};
use ironroot_api::pb::types::{federates_with_match, selector_match as selector_match_pb};
use ironroot_attest::Selector;

/// How a set compares with the one that was given. Source: SPIRE's `-matchSelectorsOn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) enum MatchMode {
    Exact,
    Any,
    #[default]
    Superset,
    Subset,
}

impl FromStr for MatchMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "exact" => Ok(Self::Exact),
            "any" => Ok(Self::Any),
            "superset" => Ok(Self::Superset),
            "subset" => Ok(Self::Subset),
            _ => Err("use exact, any, superset or subset"),
        }
    }
}

/// The wire form; none if no selector was given.
pub(in crate::cli) fn selector_match(selectors: &[Selector], mode: MatchMode) -> Option<SelectorMatch> {
    use selector_match_pb::MatchBehavior;
    let mode = match mode {
        MatchMode::Exact => MatchBehavior::MatchExact,
        MatchMode::Any => MatchBehavior::MatchAny,
        MatchMode::Superset => MatchBehavior::MatchSuperset,
        MatchMode::Subset => MatchBehavior::MatchSubset,
    };
    (!selectors.is_empty()).then(|| SelectorMatch { selectors: to_pb(selectors), r#match: mode.into() })
}

/// The wire form; none if no trust domain was given.
pub(super) fn federates_with(trust_domains: &[String], mode: MatchMode) -> Option<FederatesWithMatch> {
    use federates_with_match::MatchBehavior;
    let mode = match mode {
        MatchMode::Exact => MatchBehavior::MatchExact,
        MatchMode::Any => MatchBehavior::MatchAny,
        MatchMode::Superset => MatchBehavior::MatchSuperset,
        MatchMode::Subset => MatchBehavior::MatchSubset,
    };
    let trust_domains = trust_domains.to_vec();
    (!trust_domains.is_empty()).then(|| FederatesWithMatch { trust_domains, r#match: mode.into() })
}

/// The wire form.
pub(super) fn to_pb(selectors: &[Selector]) -> Vec<PbSelector> {
    let one = |s: &Selector| PbSelector { r#type: s.kind().to_owned(), value: s.value().to_owned() };
    selectors.iter().map(one).collect()
}
