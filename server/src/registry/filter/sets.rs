//! Sets that are compared with those of entries, in SPIRE's four ways.

use ironroot_api::pb::types;
use ironroot_attest::{Selector, SelectorSet};

use super::FilterError;

/// How a stored set relates to the set asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMatch {
    /// The same members.
    Exact,
    /// Every stored member was asked for.
    Subset,
    /// Every member asked for is stored.
    Superset,
    /// At least one member in common.
    Any,
}

impl SetMatch {
    /// From the wire's number; both of SPIRE's match enums use the same ones.
    pub fn from_pb(number: i32) -> Result<Self, FilterError> {
        use types::selector_match::MatchBehavior;
        match MatchBehavior::try_from(number).map_err(|_| FilterError::Match(number))? {
            MatchBehavior::MatchExact => Ok(Self::Exact),
            MatchBehavior::MatchSubset => Ok(Self::Subset),
            MatchBehavior::MatchSuperset => Ok(Self::Superset),
            MatchBehavior::MatchAny => Ok(Self::Any),
        }
    }

    /// Whether `stored` relates so to `asked`. Both without repeats.
    pub fn holds<T: PartialEq>(self, stored: &[&T], asked: &[&T]) -> bool {
        let covers = |big: &[&T], small: &[&T]| small.iter().all(|item| big.contains(item));
        match self {
            Self::Exact => stored.len() == asked.len() && covers(stored, asked),
            Self::Subset => !stored.is_empty() && covers(asked, stored),
            Self::Superset => covers(stored, asked),
            Self::Any => stored.iter().any(|item| asked.contains(item)),
        }
    }
}

/// A selector set to compare stored ones with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorMatch {
    selectors: SelectorSet,
    how: SetMatch,
}

impl SelectorMatch {
    /// From the wire; an empty set is refused.
    pub fn from_pb(filter: &types::SelectorMatch) -> Result<Self, FilterError> {
        if filter.selectors.is_empty() {
            return Err(FilterError::Empty("selectors"));
        }
        let selector = |s: &types::Selector| Selector::new(&s.r#type, &s.value).map_err(FilterError::Selector);
        let selectors = filter.selectors.iter().map(selector).collect::<Result<_, _>>()?;
        Ok(Self { selectors, how: SetMatch::from_pb(filter.r#match)? })
    }

    /// Whether `stored` relates to the filter's set as asked.
    pub fn holds(&self, stored: &SelectorSet) -> bool {
        match self.how {
            SetMatch::Exact => *stored == self.selectors,
            SetMatch::Subset => !stored.is_empty() && stored.is_subset_of(&self.selectors),
            SetMatch::Superset => self.selectors.is_subset_of(stored),
            SetMatch::Any => stored.iter().any(|s| self.selectors.contains(s)),
        }
    }

    /// The selectors that every set has to which it relates as asked; none where it may be few of them.
    pub(super) fn in_each_match(&self) -> Option<&SelectorSet> {
        matches!(self.how, SetMatch::Exact | SetMatch::Superset).then_some(&self.selectors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> types::Selector {
        let (kind, value) = text.split_once(':').expect("type:value");
        types::Selector { r#type: kind.into(), value: value.into() }
    }

    #[test]
    fn sets_match_as_spire_matches_them() {
        let set = |texts: &[&str]| texts.iter().map(|t| t.parse().expect("selector")).collect::<SelectorSet>();
        let matches = |how: i32, asked: &[&str], stored: &[&str]| {
            let selectors = asked.iter().map(|t| selector(t)).collect();
            SelectorMatch::from_pb(&types::SelectorMatch { selectors, r#match: how })
                .expect("legal")
                .holds(&set(stored))
        };
        let (exact, subset, superset, any) = (0, 1, 2, 3);
        for (how, asked, stored, expected) in [
            (exact, &["a:1", "a:2"][..], &["a:2", "a:1"][..], true),
            (exact, &["a:1"], &["a:1", "a:2"], false),
            (subset, &["a:1", "a:2"], &["a:1"], true),
            (subset, &["a:1"], &["a:1", "a:2"], false),
            (subset, &["a:1"], &[], false),
            (superset, &["a:1"], &["a:1", "a:2"], true),
            (superset, &["a:1", "a:3"], &["a:1", "a:2"], false),
            (any, &["a:1", "a:3"], &["a:1", "a:2"], true),
            (any, &["a:3"], &["a:1", "a:2"], false),
        ] {
            assert_eq!(matches(how, asked, stored), expected, "{how} {asked:?} {stored:?}");
        }
        let empty = types::SelectorMatch { selectors: vec![], r#match: exact };
        assert_eq!(SelectorMatch::from_pb(&empty), Err(FilterError::Empty("selectors")));
        let unknown = types::SelectorMatch { selectors: vec![selector("a:1")], r#match: 9 };
        assert_eq!(SelectorMatch::from_pb(&unknown), Err(FilterError::Match(9)));
    }
}
