//! Selectors: what attestation says of a node or a workload, as `type:value`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest selector type accepted, bytes.
pub const MAX_TYPE_BYTES: usize = 255;
/// Longest selector value accepted, bytes.
pub const MAX_VALUE_BYTES: usize = 4096;

/// Type and value of the selector that stands for an agent's own CA: no attestor tells it of a process.
const LOCAL_AUTHORITY: (&str, &str) = ("ironroot", "local_authority");
/// The same of the one by which an entry asks that its key be in hardware.
const HARDWARE_KEY: (&str, &str) = ("ironroot", "hardware_key");

/// Why a text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// No colon between type and value.
    #[error("selector {0:?} is not of the form type:value")]
    NoColon(String),
    /// Empty, too long, or with a colon or control character.
    #[error("selector type {0:?} must be 1 to {MAX_TYPE_BYTES} characters without colon or control characters")]
    Type(String),
    /// Empty, too long, or with a control character.
    #[error("selector value {0:?} must be 1 to {MAX_VALUE_BYTES} characters without control characters")]
    Value(String),
}

/// One attested fact, such as `unix:uid:1000`: type `unix`, value `uid:1000`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    kind: Box<str>,
    value: Box<str>,
}

impl Selector {
    /// Checks bounds and characters.
    pub fn new(kind: &str, value: &str) -> Result<Self, SelectorError> {
        if kind.is_empty() || kind.len() > MAX_TYPE_BYTES || kind.contains(|c: char| c == ':' || c.is_control()) {
            return Err(SelectorError::Type(kind.chars().take(64).collect()));
        }
        if value.is_empty() || value.len() > MAX_VALUE_BYTES || value.contains(char::is_control) {
            return Err(SelectorError::Value(value.chars().take(64).collect()));
        }
        Ok(Self { kind: kind.into(), value: value.into() })
    }

    /// A selector that was accepted once and has been kept since, whatever today's bounds say: only its form is asked for.
    pub fn accepted(text: &str) -> Result<Self, SelectorError> {
        let (kind, value) = split(text)?;
        Ok(Self { kind: kind.into(), value: value.into() })
    }

    /// The type, before the first colon.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Whether it is what the entry of an agent's own CA has, and no process: `ironroot:local_authority`.
    pub fn is_of_local_authority(&self) -> bool {
        (&*self.kind, &*self.value) == LOCAL_AUTHORITY
    }

    /// Whether it says that the key of its entry's SVIDs is to be in hardware: `ironroot:hardware_key`.
    pub fn is_of_hardware_key(&self) -> bool {
        (&*self.kind, &*self.value) == HARDWARE_KEY
    }

    /// Whether it is about the program that a unix process runs: `unix:path:…`, `unix:sha256:…`, `unix:fs_verity:…`.
    pub fn is_of_executable(&self) -> bool {
        let is_of = |form: &&str| self.value.starts_with(form);
        &*self.kind == "unix" && ["path:", "sha256:", "fs_verity:"].iter().any(is_of)
    }

    /// The value, after the first colon.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, value) = split(text)?;
        Self::new(kind, value)
    }
}

fn split(text: &str) -> Result<(&str, &str), SelectorError> {
    text.split_once(':').ok_or_else(|| SelectorError::NoColon(text.chars().take(64).collect()))
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// A set of selectors, sorted and without repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SelectorSet(Vec<Selector>);

impl SelectorSet {
    /// Whether every selector of `self` is in `other`. An entry applies to what has at least its selectors.
    pub fn is_subset_of(&self, other: &SelectorSet) -> bool {
        self.0.iter().all(|s| other.contains(s))
    }

    /// Whether nothing but a program is named, which any local user can run, or make a process look like: no user, no
    /// group, no unit. Where its key is says nothing of a process.
    pub fn names_an_executable_only(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|s| s.is_of_executable() || s.is_of_hardware_key())
    }

    /// Whether the entry of these selectors asks that its key be in hardware.
    pub fn asks_for_hardware_key(&self) -> bool {
        self.0.iter().any(Selector::is_of_hardware_key)
    }

    /// The same set with that beside it: what a process has that holds its key in hardware.
    pub fn with_hardware_key(&self) -> Self {
        let (kind, value) = HARDWARE_KEY;
        let own = Selector { kind: kind.into(), value: value.into() };
        self.0.iter().cloned().chain([own]).collect()
    }

    /// Whether the set is that of an agent's own CA: `ironroot:local_authority` alone.
    pub fn is_of_local_authority(&self) -> bool {
        self.0.len() == 1 && self.0.iter().all(Selector::is_of_local_authority)
    }

    /// Whether the set holds `selector`.
    pub fn contains(&self, selector: &Selector) -> bool {
        self.0.binary_search(selector).is_ok()
    }

    /// The selectors, sorted by type and value, none twice.
    pub fn iter(&self) -> std::slice::Iter<'_, Selector> {
        self.0.iter()
    }

    /// The number of different selectors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Selector> for SelectorSet {
    fn from_iter<I: IntoIterator<Item = Selector>>(selectors: I) -> Self {
        let mut sorted: Vec<Selector> = selectors.into_iter().collect();
        sorted.sort();
        sorted.dedup();
        Self(sorted)
    }
}

impl Extend<Selector> for SelectorSet {
    fn extend<I: IntoIterator<Item = Selector>>(&mut self, selectors: I) {
        *self = self.0.drain(..).chain(selectors).collect();
    }
}

impl<'a> IntoIterator for &'a SelectorSet {
    type Item = &'a Selector;
    type IntoIter = std::slice::Iter<'a, Selector>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> SelectorSet {
        texts.iter().map(|t| t.parse().expect("legal selector")).collect()
    }

    #[test]
    fn value_keeps_its_colons() {
        let selector: Selector = "unix:uid:1000".parse().expect("legal");
        assert_eq!((selector.kind(), selector.value()), ("unix", "uid:1000"));
        assert_eq!(selector.to_string(), "unix:uid:1000");
    }

    #[test]
    fn what_was_accepted_once_is_read_back_past_the_bounds() {
        let long = format!("unix:path:/{}", "x".repeat(MAX_VALUE_BYTES));
        assert!(matches!(long.parse::<Selector>(), Err(SelectorError::Value(_))));
        assert_eq!(Selector::accepted(&long).expect("has the form").to_string(), long);
        assert!(matches!(Selector::accepted("unix"), Err(SelectorError::NoColon(_))));
    }

    #[test]
    fn refuses_what_could_be_misread() {
        assert!(matches!("unix".parse::<Selector>(), Err(SelectorError::NoColon(_))));
        assert!(matches!(":x".parse::<Selector>(), Err(SelectorError::Type(_))));
        assert!(matches!("unix:".parse::<Selector>(), Err(SelectorError::Value(_))));
        assert!(matches!("unix:a\nb".parse::<Selector>(), Err(SelectorError::Value(_))));
        assert!(matches!(Selector::new("a:b", "c"), Err(SelectorError::Type(_))));
    }

    #[test]
    fn a_program_alone_names_nobody_and_a_user_or_unit_beside_it_does() {
        for (texts, alone) in [
            (&["unix:path:/a"][..], true),
            (&["unix:sha256:00", "unix:path:/a"], true),
            (&["unix:fs_verity:sha256:00"], true),
            (&["unix:fs_verity:sha256:00", "unix:uid:1"], false),
            (&["unix:path:/a", "unix:uid:1"], false),
            (&["unix:sha256:00", "systemd:id:a.service"], false),
            (&["unix:pathological:1"], false),
            (&["docker:path:/a"], false),
            (&["ironroot:hardware_key"], true),
            (&["ironroot:hardware_key", "unix:path:/a"], true),
            (&["ironroot:hardware_key", "unix:uid:1"], false),
            (&[], false),
        ] {
            assert_eq!(set(texts).names_an_executable_only(), alone, "{texts:?}");
        }
    }

    #[test]
    fn where_a_key_is_is_asked_for_beside_what_a_process_must_have() {
        let asking = set(&["unix:uid:1", "ironroot:hardware_key"]);
        assert!(asking.asks_for_hardware_key() && !set(&["unix:uid:1", "x:hardware_key"]).asks_for_hardware_key());
        let process = set(&["unix:uid:1", "unix:gid:2"]);
        assert!(!asking.is_subset_of(&process) && asking.is_subset_of(&process.with_hardware_key()));
    }

    #[test]
    fn subset_is_what_an_entry_needs() {
        let workload = set(&["unix:uid:1", "unix:gid:2", "unix:uid:1"]);
        assert_eq!(workload.len(), 2);
        assert!(set(&["unix:gid:2"]).is_subset_of(&workload));
        assert!(!set(&["unix:gid:2", "unix:user:x"]).is_subset_of(&workload));
        assert!(set(&[]).is_subset_of(&workload));
    }
}
