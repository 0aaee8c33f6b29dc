//! Registration entries, as far as an agent needs them.

use std::collections::BTreeSet;

use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_attest::{Selector, SelectorSet};

use super::AnswerRefusal;
use crate::federated_bundles::MAX_FEDERATED;
use crate::server_number::ServerNumber;

/// Most entries this agent serves.
pub const MAX_ENTRIES: usize = 20_000;
/// Most selectors of one entry.
pub const MAX_SELECTORS: usize = 1_000;
/// Longest entry ID, bytes.
const MAX_ID_BYTES: usize = 255;
/// Longest hint, bytes: four times SPIRE's 1024 characters.
const MAX_HINT_BYTES: usize = 4096;

/// DNS names of one entry that this agent signs for, and bytes of each. Source: RFC 1035 §2.3.4, less the dot at the end.
const MAX_DNS_NAMES: usize = 256;
const MAX_DNS_NAME_BYTES: usize = 253;

/// Who gets which ID: the part of a registration entry that an agent acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryTerms {
    /// Whose entry it is.
    pub server: ServerNumber,
    /// That server's ID of the registration entry; at most one of its entries has it.
    pub id: String,
    /// The ID to serve.
    pub spiffe_id: SpiffeId,
    /// What a workload must have. Never empty: an entry without selectors would apply to every process.
    pub selectors: SelectorSet,
    /// Tells a workload with several identities which is which.
    pub hint: String,
    /// UNIX seconds; breaks ties between equal hints.
    pub created_at: i64,
    /// Rises with each update of the entry.
    pub revision_number: i64,
    /// Its SVID is made when a workload first asks for it, and not before. Source: SPIRE, disable_x509_svid_prefetch.
    pub on_demand: bool,
    /// Whether each of its JWT-SVIDs is made anew, because it has an ID of its own. Source: SPIRE, jwt_svid_include_jti. `None`: a
    /// version of this agent that made none has not kept it; the server says it at the next sync.
    pub unique_tokens: Option<bool>,
    /// Whether it makes its workload an administrator of the server, or a server below it: such an identity is never handed on.
    /// Source: SPIRE, admin and downstream. `None`: likewise.
    pub is_privileged: Option<bool>,
    /// What its certificates say besides. `None`: this agent signs none by itself, or a version of it that signed none has kept the entry.
    pub certificate: Option<CertificateTerms>,
    /// The other trust domains whose bundles its workloads get. `None`: a version of this agent that handed none out has not kept it.
    pub federates_with: Option<Vec<TrustDomain>>,
}

/// What an agent needs to know of an entry to sign for it with a CA of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateTerms {
    /// DNS names of its X509-SVIDs, the first of which is their common name.
    pub dns_names: Vec<String>,
    /// How long they last, seconds; 0: as long as whoever signs them makes them.
    pub ttl_seconds: i32,
    /// The same, of JWT-SVIDs. `None`: a version of this agent that signed none has kept the entry.
    pub jwt_ttl_seconds: Option<i32>,
}

/// What of its entries an agent asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFields {
    /// What it serves by.
    Served,
    /// Also what it signs by.
    Signed,
}

/// Names an entry among those of all the agent's servers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    /// Whose entry it is.
    pub server: ServerNumber,
    /// See [`EntryTerms::id`].
    pub id: String,
}

#[cfg(test)]
impl EntryTerms {
    /// The entry of this ID for `spiffe://td<path>`, with user 1; tests say what else is true of it.
    pub(crate) fn example(id: &str, path: &str) -> Self {
        Self {
            server: ServerNumber::FIRST,
            id: id.to_owned(),
            spiffe_id: SpiffeId::from_parts("td", path).expect("legal"),
            selectors: std::iter::once("unix:uid:1".parse().expect("legal")).collect(),
            hint: String::new(),
            created_at: 1,
            revision_number: 0,
            on_demand: false,
            unique_tokens: Some(false),
            is_privileged: Some(false),
            federates_with: Some(Vec::new()),
            certificate: None,
        }
    }
}

impl EntryTerms {
    /// What names it among the entries of all servers.
    pub fn key(&self) -> EntryKey {
        EntryKey { server: self.server, id: self.id.clone() }
    }

    /// Checks an entry of a sync answer, as one of the first server's. `Ok(None)`: an entry that is not for the Workload API.
    /// `fields`: what of it was asked for.
    pub fn from_answer(
        entry: &types::Entry,
        trust_domain: &TrustDomain,
        fields: EntryFields,
    ) -> Result<Option<Self>, AnswerRefusal> {
        if entry.store_svid {
            return Ok(None);
        }
        let id = entry.spiffe_id.as_ref().ok_or(AnswerRefusal::Missing("SPIFFE ID"))?;
        let spiffe_id = SpiffeId::from_parts(&id.trust_domain, &id.path)?.as_member_of(trust_domain)?;
        if entry.id.is_empty() || entry.id.len() > MAX_ID_BYTES {
            return Err(AnswerRefusal::Entry("ID"));
        }
        if entry.hint.len() > MAX_HINT_BYTES {
            return Err(AnswerRefusal::Entry("hint"));
        }
        let selectors = selectors(&entry.selectors)?;
        let on_demand = entry.additional_attributes.is_some_and(|more| more.disable_x509_svid_prefetch);
        Ok(Some(Self {
            server: ServerNumber::FIRST,
            id: entry.id.clone(),
            spiffe_id,
            hint: entry.hint.clone(),
            created_at: entry.created_at,
            revision_number: entry.revision_number,
            // No workload asks for the SVID that the agent's own CA is had with, nor the agent for one whose key is a workload's.
            on_demand: on_demand || selectors.is_of_local_authority() || selectors.asks_for_hardware_key(),
            selectors,
            unique_tokens: Some(entry.additional_attributes.is_some_and(|more| more.jwt_svid_include_jti)),
            is_privileged: Some(entry.admin || entry.downstream),
            federates_with: Some(federates_with(&entry.federates_with)?),
            certificate: (fields == EntryFields::Signed).then(|| certificate_terms(entry)).transpose()?,
        }))
    }

    /// Whether another state of the entry is the same version of it. A recreated entry counts its revisions from zero
    /// again, hence both. Not if something of it is not known: then it is asked for again.
    pub fn is_same_version(&self, revision_number: i64, created_at: i64, fields: EntryFields) -> bool {
        self.is_whole(fields) && self.revision_number == revision_number && self.created_at == created_at
    }

    /// Whether `told` is the same version, with what was not known before.
    pub fn is_completed_by(&self, told: &Self) -> bool {
        let completed = Self {
            unique_tokens: self.unique_tokens.or(told.unique_tokens),
            is_privileged: self.is_privileged.or(told.is_privileged),
            federates_with: self.federates_with.clone().or_else(|| told.federates_with.clone()),
            certificate: self.completed_certificate(told),
            ..self.clone()
        };
        self != told && *told == completed
    }

    fn completed_certificate(&self, told: &Self) -> Option<CertificateTerms> {
        let Some(known) = self.certificate.clone() else { return told.certificate.clone() };
        let told = told.certificate.as_ref().and_then(|told| told.jwt_ttl_seconds);
        Some(CertificateTerms { jwt_ttl_seconds: known.jwt_ttl_seconds.or(told), ..known })
    }

    /// Whether everything of it is known: earlier versions of this agent kept less.
    fn is_whole(&self, fields: EntryFields) -> bool {
        let is_known = |certificate: &CertificateTerms| certificate.jwt_ttl_seconds.is_some();
        let is_signable = fields == EntryFields::Served || self.certificate.as_ref().is_some_and(is_known);
        is_signable && self.unique_tokens.is_some() && self.is_privileged.is_some() && self.federates_with.is_some()
    }

    /// Whether its key is to be in hardware: this agent makes no key for it, and hands none out.
    pub fn asks_for_hardware_key(&self) -> bool {
        self.selectors.asks_for_hardware_key()
    }

    /// Whether it is that by which the agent has a CA of its own: no workload has its selectors.
    pub fn is_of_local_authority(&self) -> bool {
        self.selectors.is_of_local_authority()
    }
}

fn certificate_terms(entry: &types::Entry) -> Result<CertificateTerms, AnswerRefusal> {
    let names = &entry.dns_names;
    if names.len() > MAX_DNS_NAMES || names.iter().any(|name| name.len() > MAX_DNS_NAME_BYTES || !name.is_ascii()) {
        return Err(AnswerRefusal::Entry("DNS name"));
    }
    let (ttl_seconds, jwt_ttl_seconds) = (entry.x509_svid_ttl.max(0), Some(entry.jwt_svid_ttl.max(0)));
    Ok(CertificateTerms { dns_names: names.clone(), ttl_seconds, jwt_ttl_seconds })
}

fn federates_with(names: &[String]) -> Result<Vec<TrustDomain>, AnswerRefusal> {
    if names.len() > MAX_FEDERATED {
        return Err(AnswerRefusal::Entry("number of trust domains to federate with"));
    }
    let parsed: Result<BTreeSet<TrustDomain>, _> = names.iter().map(|name| TrustDomain::new(name)).collect();
    Ok(parsed.map_err(|_| AnswerRefusal::Entry("trust domain to federate with"))?.into_iter().collect())
}

fn selectors(wire: &[types::Selector]) -> Result<SelectorSet, AnswerRefusal> {
    if wire.is_empty() || wire.len() > MAX_SELECTORS {
        return Err(AnswerRefusal::Entry("number of selectors"));
    }
    let parsed: Result<SelectorSet, _> = wire.iter().map(|s| Selector::new(&s.r#type, &s.value)).collect();
    parsed.map_err(|_| AnswerRefusal::Entry("selector"))
}
