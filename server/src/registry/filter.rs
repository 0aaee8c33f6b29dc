//! Which entries a list shows.

mod sets;

use ironroot_attest::SelectorError;
use thiserror::Error;

pub use sets::{SelectorMatch, SetMatch};

use super::stored_entry::StoredEntry;
use crate::facts::entry::RegistrationEntry;
use ironroot_api::pb::{entry, types};
use ironroot_api::{SpiffeId, SpiffeIdError, TrustDomain};

/// Why a filter is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum FilterError {
    /// A SPIFFE ID in the filter is malformed or of another trust domain.
    #[error("malformed {what} filter")]
    Id {
        what: &'static str,
        /// Which rule of SPIFFE IDs it breaks.
        source: SpiffeIdError,
    },
    /// A selector in the filter is malformed.
    #[error("malformed selectors filter")]
    Selector(#[source] SelectorError),
    /// A trust domain in the filter is malformed.
    #[error("malformed federates with filter")]
    FederatesWith(#[source] SpiffeIdError),
    /// A set to compare with is empty.
    #[error("malformed {0} filter: empty set")]
    Empty(&'static str),
    /// An unknown way to compare.
    #[error("unknown match behaviour {0}")]
    Match(i32),
    /// A time in the filter is not of the form `2006-01-02 15:04:05 -0700 -07`.
    #[error("malformed expires before filter: must be like \"2006-01-02 15:04:05 -0700 -07\"")]
    ExpiresBefore,
}

/// Conditions that all must hold. Default: none, every entry matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// Entries for this SPIFFE ID.
    pub spiffe_id: Option<SpiffeId>,
    /// Entries under this parent.
    pub parent_id: Option<SpiffeId>,
    /// Entries whose selectors relate so.
    pub selectors: Option<SelectorMatch>,
    /// Entries whose federated trust domains relate so.
    pub federates_with: Option<(Vec<TrustDomain>, SetMatch)>,
    /// Entries with this hint.
    pub hint: Option<String>,
    /// Only entries of downstream servers.
    pub downstream: bool,
}

impl EntryFilter {
    /// From a list request; no filter means every entry.
    pub fn from_pb(
        filter: Option<&entry::list_entries_request::Filter>,
        trust_domain: &TrustDomain,
    ) -> Result<Self, FilterError> {
        let Some(filter) = filter else { return Ok(Self::default()) };
        let id = |id: Option<&types::Spiffeid>, what| {
            let parse = |id| SpiffeId::from_pb(Some(id)).and_then(|id| id.as_member_of(trust_domain));
            id.map(parse).transpose().map_err(|source| FilterError::Id { what, source })
        };
        Ok(Self {
            spiffe_id: id(filter.by_spiffe_id.as_ref(), "SPIFFE ID")?,
            parent_id: id(filter.by_parent_id.as_ref(), "parent ID")?,
            selectors: filter.by_selectors.as_ref().map(SelectorMatch::from_pb).transpose()?,
            federates_with: filter.by_federates_with.as_ref().map(federates_with).transpose()?,
            // SPIRE's command line always sends both; its server reads empty and false as "any".
            hint: filter.by_hint.clone().filter(|hint| !hint.is_empty()),
            downstream: filter.by_downstream == Some(true),
        })
    }

    /// From a count request, which has the same conditions.
    pub fn from_count_pb(
        filter: Option<&entry::count_entries_request::Filter>,
        trust_domain: &TrustDomain,
    ) -> Result<Self, FilterError> {
        let same = filter.cloned().map(|f| entry::list_entries_request::Filter {
            by_spiffe_id: f.by_spiffe_id,
            by_parent_id: f.by_parent_id,
            by_selectors: f.by_selectors,
            by_federates_with: f.by_federates_with,
            by_hint: f.by_hint,
            by_downstream: f.by_downstream,
        });
        Self::from_pb(same.as_ref(), trust_domain)
    }

    /// Whether every condition holds of an entry that the index of one of them led to. Of a million entries few are decoded.
    pub(super) fn matches_stored(&self, stored: &StoredEntry) -> bool {
        let index_alone = self.selectors.is_none()
            && self.federates_with.is_none()
            && self.hint.is_none()
            && (self.spiffe_id.is_none() || self.parent_id.is_none());
        (!self.downstream || stored.downstream)
            && self.may_match(stored.own_fields())
            && (index_alone || self.matches(&stored.entry()))
    }

    /// Whether the texts that a matching entry must have are in its wire form.
    fn may_match(&self, wire: &[u8]) -> bool {
        let holds = |text: &str| text.is_empty() || wire.windows(text.len()).any(|part| part == text.as_bytes());
        let selectors = self.selectors.as_ref().and_then(SelectorMatch::in_each_match);
        self.hint.as_deref().is_none_or(holds) && selectors.is_none_or(|all| all.iter().all(|s| holds(s.value())))
    }

    /// Whether every condition holds.
    pub fn matches(&self, entry: &RegistrationEntry) -> bool {
        let federates = |(domains, how): &(Vec<TrustDomain>, SetMatch)| {
            let (stored, asked): (Vec<_>, Vec<_>) = (entry.federates_with().iter().collect(), domains.iter().collect());
            how.holds(&stored, &asked)
        };
        self.spiffe_id.as_ref().is_none_or(|id| id == entry.spiffe_id())
            && self.parent_id.as_ref().is_none_or(|id| id == entry.parent_id())
            && self.selectors.as_ref().is_none_or(|m| m.holds(entry.selectors()))
            && self.federates_with.as_ref().is_none_or(federates)
            && self.hint.as_ref().is_none_or(|hint| hint == entry.hint())
            && (!self.downstream || entry.downstream())
    }
}

fn federates_with(filter: &types::FederatesWithMatch) -> Result<(Vec<TrustDomain>, SetMatch), FilterError> {
    if filter.trust_domains.is_empty() {
        return Err(FilterError::Empty("federates with"));
    }
    let parse = |name: &String| TrustDomain::new(name).map_err(FilterError::FederatesWith);
    let mut domains = filter.trust_domains.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    domains.sort();
    domains.dedup();
    Ok((domains, SetMatch::from_pb(filter.r#match)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::entry::NewEntry;

    #[test]
    fn no_hint_and_not_downstream_mean_any_entry() {
        let trust_domain = TrustDomain::new("td").unwrap();
        let id = |path: &str| Some(types::Spiffeid { trust_domain: "td".into(), path: path.into() });
        let stored = |hint: &str, downstream| {
            let selectors = vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }];
            let (id, parent_id, hint) = (id("/w"), id("/p"), hint.to_owned());
            let entry = types::Entry {
                id: "e".into(),
                spiffe_id: id,
                parent_id,
                selectors,
                hint,
                downstream,
                ..Default::default()
            };
            NewEntry::from_pb(&entry, &trust_domain).unwrap().register(String::new(), 0)
        };
        let stored = [stored("", false), stored("h", false), stored("", true)];
        for (by_hint, by_downstream, expected) in [
            (Some(""), Some(false), &[0, 1, 2][..]),
            (None, None, &[0, 1, 2]),
            (Some("h"), Some(false), &[1]),
            (Some(""), Some(true), &[2]),
        ] {
            let by_hint = by_hint.map(str::to_owned);
            let list =
                entry::list_entries_request::Filter { by_hint: by_hint.clone(), by_downstream, ..Default::default() };
            let count = entry::count_entries_request::Filter { by_hint, by_downstream, ..Default::default() };
            let list = EntryFilter::from_pb(Some(&list), &trust_domain).unwrap();
            assert_eq!(list, EntryFilter::from_count_pb(Some(&count), &trust_domain).unwrap());
            let found: Vec<usize> = (0..stored.len()).filter(|place| list.matches(&stored[*place])).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn federated_trust_domains_are_compared_in_four_ways() {
        let trust_domain = TrustDomain::new("td").unwrap();
        let id = |path: &str| Some(types::Spiffeid { trust_domain: "td".into(), path: path.into() });
        let stored_entry = |domains: &[&str]| {
            let entry = types::Entry {
                id: "e".into(),
                spiffe_id: id("/w"),
                parent_id: id("/p"),
                selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }],
                federates_with: domains.iter().map(|d| (*d).to_owned()).collect(),
                ..Default::default()
            };
            NewEntry::from_pb(&entry, &trust_domain).unwrap().register(String::new(), 0)
        };
        let stored = [&["one"][..], &["one", "two"], &["one", "two", "three"], &[]].map(stored_entry);
        for (number, expected) in [(0, &[1][..]), (1, &[0, 1]), (2, &[1, 2]), (3, &[0, 1, 2])] {
            let trust_domains = vec!["two".into(), "spiffe://one".into(), "two".into()];
            let filter = entry::list_entries_request::Filter {
                by_federates_with: Some(types::FederatesWithMatch { trust_domains, r#match: number }),
                ..Default::default()
            };
            let filter = EntryFilter::from_pb(Some(&filter), &trust_domain).unwrap();
            let found: Vec<usize> = (0..stored.len()).filter(|place| filter.matches(&stored[*place])).collect();
            assert_eq!(found, expected, "match {number}");
        }
    }
}
