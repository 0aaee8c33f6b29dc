//! Which selectors stand in the log: their values may be what their owners would not have written down.

use std::str::FromStr;

use ironroot_attest::Selector;
use thiserror::Error;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LoggedSelectors {
    /// All of them.
    #[default]
    All,
    /// Those that begin so; of others only how many they are.
    Beginning(Vec<SelectorPrefix>),
}

impl LoggedSelectors {
    /// Whether this one does.
    pub(super) fn has(&self, selector: &Selector) -> bool {
        match self {
            Self::All => true,
            Self::Beginning(prefixes) => prefixes.iter().any(|prefix| prefix.begins(selector)),
        }
    }
}

/// How selectors begin: whole words between colons, such as `k8s:ns`. Source: SPIRE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorPrefix(String);

/// Begins no selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no selector begins so: give whole words such as \"unix\", \"unix:user\" or \"k8s:ns\"")]
pub struct NoSelectorPrefix;

impl SelectorPrefix {
    fn begins(&self, selector: &Selector) -> bool {
        let text = selector.to_string();
        text.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }
}

impl FromStr for SelectorPrefix {
    type Err = NoSelectorPrefix;

    fn from_str(text: &str) -> Result<Self, NoSelectorPrefix> {
        let is_some = !text.is_empty() && !text.starts_with(':') && !text.ends_with(':');
        if is_some { Ok(Self(text.to_owned())) } else { Err(NoSelectorPrefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_whole_words_and_no_other_selectors_are_logged() {
        let beginning = |prefixes: &[&str]| {
            LoggedSelectors::Beginning(prefixes.iter().map(|prefix| prefix.parse().expect("a prefix")).collect())
        };
        for (logged, selector, expected) in [
            (LoggedSelectors::All, "docker:env:A=b", true),
            (beginning(&[]), "unix:uid:1", false),
            (beginning(&["unix"]), "unix:uid:1", true),
            (beginning(&["unix:uid"]), "unix:uid:1", true),
            (beginning(&["unix:uid:1"]), "unix:uid:1", true),
            (beginning(&["unix:uid:1"]), "unix:uid:12", false),
            (beginning(&["unix:u"]), "unix:uid:1", false),
            (beginning(&["k8s:ns", "k8s:sa"]), "k8s:sa:default", true),
            (beginning(&["k8s:ns", "k8s:sa"]), "k8s:pod-label:a:b", false),
        ] {
            assert_eq!(logged.has(&selector.parse().expect("a selector")), expected, "{logged:?} {selector}");
        }
        for wrong in ["", ":", "unix:", ":uid"] {
            assert!(wrong.parse::<SelectorPrefix>().is_err(), "{wrong:?}");
        }
    }
}
