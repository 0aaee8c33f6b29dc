//! What a registration entry may say.

use std::collections::HashSet;

use ironroot_attest::{Selector, SelectorError, SelectorSet};
use thiserror::Error;

use super::is_dns_name;
use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, SpiffeIdError, TrustDomain};

/// Longest entry ID accepted, bytes. Source: SPIRE's data store.
pub const MAX_ENTRY_ID_BYTES: usize = 255;
/// Longest hint accepted, bytes. Source: SPIRE's entry API.
pub const MAX_HINT_BYTES: usize = 1024;
/// Most selectors of an entry. Ours: an agent compares them at each workload connection.
pub const MAX_SELECTORS: usize = 256;
/// Most DNS names of an entry. Ours: they all go into one certificate.
pub const MAX_DNS_NAMES: usize = 256;
/// Most trust domains an entry federates with. Ours: an agent fetches a bundle for each.
pub const MAX_FEDERATES_WITH: usize = 256;

/// Why a registration entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum EntryError {
    #[error("invalid entry ID: must be 1 to {MAX_ENTRY_ID_BYTES} characters of a-z, A-Z, 0-9, '.', '-' and '_'")]
    Id,
    #[error("invalid SPIFFE ID")]
    SpiffeId(#[source] SpiffeIdError),
    /// SPIFFE ID in the part of the trust domain that servers and agents live in.
    #[error("invalid SPIFFE ID: the path \"/spire\" is reserved for servers and agents")]
    Reserved,
    #[error("invalid parent ID")]
    ParentId(#[source] SpiffeIdError),
    /// No selectors: the entry would apply to every process.
    #[error("selector list is empty")]
    NoSelectors,
    #[error("invalid selector")]
    Selector(#[source] SelectorError),
    /// More of something than an entry may have.
    #[error("more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        limit: usize,
    },
    /// An entry whose SVID is pushed into a store names its store in the selector type, so there can be only one.
    #[error("selectors must all be of one type when store_svid is set")]
    MixedSelectorTypes,
    /// A number or time below zero.
    #[error("{0} is negative")]
    Negative(&'static str),
    /// Bad trust domain to federate with.
    #[error("invalid federated trust domain")]
    FederatesWith(#[source] SpiffeIdError),
    #[error("invalid DNS name {0:?}")]
    DnsName(String),
    /// Hint too long or with control characters.
    #[error("invalid hint: at most {MAX_HINT_BYTES} bytes, no control characters")]
    Hint,
}

pub(super) fn entry_id(id: &str) -> Result<&str, EntryError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if id.is_empty() || id.len() > MAX_ENTRY_ID_BYTES || !id.bytes().all(legal) {
        return Err(EntryError::Id);
    }
    Ok(id)
}

pub(super) fn spiffe_id(id: Option<&types::Spiffeid>, trust_domain: &TrustDomain) -> Result<SpiffeId, EntryError> {
    let id = SpiffeId::from_pb(id).and_then(|id| id.as_member_of(trust_domain)).map_err(EntryError::SpiffeId)?;
    if id.is_reserved() { Err(EntryError::Reserved) } else { Ok(id) }
}

pub(super) fn parent_id(id: Option<&types::Spiffeid>, trust_domain: &TrustDomain) -> Result<SpiffeId, EntryError> {
    SpiffeId::from_pb(id).and_then(|id| id.as_member_of(trust_domain)).map_err(EntryError::ParentId)
}

pub(super) fn selectors(selectors: &[types::Selector]) -> Result<SelectorSet, EntryError> {
    if selectors.is_empty() {
        return Err(EntryError::NoSelectors);
    }
    at_most(MAX_SELECTORS, selectors, "selectors")?;
    selectors.iter().map(|s| Selector::new(&s.r#type, &s.value)).collect::<Result<_, _>>().map_err(EntryError::Selector)
}

pub(super) fn one_type(selectors: &SelectorSet) -> Result<(), EntryError> {
    let mut kinds = selectors.iter().map(Selector::kind);
    let first = kinds.next();
    if kinds.all(|kind| Some(kind) == first) { Ok(()) } else { Err(EntryError::MixedSelectorTypes) }
}

pub(super) fn federates_with(names: &[String]) -> Result<Vec<TrustDomain>, EntryError> {
    at_most(MAX_FEDERATES_WITH, names, "federated trust domains")?;
    let mut domains =
        names.iter().map(|n| TrustDomain::new(n)).collect::<Result<Vec<_>, _>>().map_err(EntryError::FederatesWith)?;
    domains.sort();
    domains.dedup();
    Ok(domains)
}

/// In the order given, each once: the first name becomes the common name of the certificate.
pub(super) fn dns_names(names: &[String]) -> Result<Vec<String>, EntryError> {
    at_most(MAX_DNS_NAMES, names, "DNS names")?;
    match names.iter().find(|name| !is_dns_name(name)) {
        Some(bad) => Err(EntryError::DnsName(bad.chars().take(64).collect())),
        None => {
            let mut seen = HashSet::new();
            Ok(names.iter().filter(|name| seen.insert(*name)).cloned().collect())
        }
    }
}

pub(super) fn hint(hint: &str) -> Result<&str, EntryError> {
    //= WLA-07 SPIFFE Workload API 5.2.1: "SHOULD NOT support values of more than 1024 bytes in length"
    if hint.len() > MAX_HINT_BYTES || hint.contains(char::is_control) { Err(EntryError::Hint) } else { Ok(hint) }
}

pub(super) fn not_negative(number: i64, what: &'static str) -> Result<i64, EntryError> {
    if number < 0 { Err(EntryError::Negative(what)) } else { Ok(number) }
}

pub(super) fn seconds(number: i32, what: &'static str) -> Result<u32, EntryError> {
    u32::try_from(number).map_err(|_| EntryError::Negative(what))
}

fn at_most<T>(limit: usize, list: &[T], what: &'static str) -> Result<(), EntryError> {
    //= FLT-A24 agent faults: "refused beyond it"
    if list.len() > limit { Err(EntryError::TooMany { what, limit }) } else { Ok(()) }
}
