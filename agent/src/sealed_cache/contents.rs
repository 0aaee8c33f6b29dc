//! What the two sections hold, and their bytes. Pure.

use std::sync::Arc;

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::types::{Bundle, JwtKey};
use ironroot_api::{SpiffeId, SpiffeIdError, TrustDomain};
use ironroot_attest::{Selector, SelectorSet};
use prost::Message;
use rustls_pki_types::CertificateDer;
use zeroize::{Zeroize, Zeroizing};

use super::CacheRefusal;
use crate::agent_key::WorkloadKey;
use crate::agent_record::{AgentRecord, KeptAuthority, KeptJwtKey, stored_bundle};
use crate::federated_bundles::FederatedBundles;
use crate::server_answers::{
    CertificateTerms, EntryTerms, ForeignBundle, MAX_ENTRIES, MAX_SELECTORS, TrustBundle, Wit, WorkloadSvid,
    restored_workload_svid,
};
use crate::server_number::ServerNumber;
use crate::trusted_time::{BootMark, Moment, Span, TimeRecord, TpmClock};

/// What [`TimeMessage`] holds since a server's claim is kept apart from the confirmed bound.
const TIME_FORM: u32 = 1;

/// What an agent can serve without a server.
#[derive(Debug)]
pub struct CachedIdentities {
    /// The last good trust bundle.
    pub bundle: Arc<TrustBundle>,
    /// Those of other trust domains.
    pub federated: FederatedBundles,
    /// What may be served to whom; no SVID where none had been signed yet.
    pub entries: Vec<(EntryTerms, Option<WorkloadSvid>)>,
    /// When the server last confirmed all this, UNIX seconds.
    pub synced_unix: i64,
    /// What was known of the time when it was written.
    pub time: TimeRecord,
    /// Heads of servers' issuance logs, as they were shown.
    pub issuance_heads: Vec<Vec<u8>>,
}

/// The parts of [`CachedIdentities`] by reference, for writing.
#[derive(Clone, Copy)]
pub struct IdentitiesToCache<'a> {
    /// The bundle the identities were verified with; a restart believes no other.
    pub bundle: &'a TrustBundle,
    /// Those of other trust domains.
    pub federated: &'a FederatedBundles,
    /// When the server last confirmed all this, UNIX seconds.
    pub synced_unix: i64,
    /// What is known of the time.
    pub time: &'a TimeRecord,
    /// The moment of writing, from which a later run counts what was left of each lifetime.
    pub moment: &'a Moment,
    /// Heads of servers' issuance logs, as they were shown.
    pub issuance_heads: &'a [Vec<u8>],
}

/// Form 0 knew fields 1 and 2 alone, and one bound for everything in `unix`.
#[derive(Clone, PartialEq, Message)]
struct TimeMessage {
    #[prost(int64, tag = "1")]
    unix: i64,
    #[prost(message, optional, tag = "2")]
    tpm_clock: Option<TpmClockMessage>,
    #[prost(uint32, tag = "3")]
    form: u32,
    #[prost(int64, optional, tag = "4")]
    claim: Option<i64>,
    #[prost(int64, optional, tag = "5")]
    kernel: Option<i64>,
    #[prost(string, tag = "6")]
    boot_id: String,
    #[prost(int64, tag = "7")]
    boot_seconds: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct TpmClockMessage {
    #[prost(uint64, tag = "1")]
    clock_ms: u64,
    #[prost(uint32, tag = "2")]
    reset_count: u32,
}

#[derive(Clone, PartialEq, Message)]
struct AuthorityMessage {
    #[prost(bytes = "vec", tag = "1")]
    der: Vec<u8>,
    #[prost(bool, tag = "2")]
    tainted: bool,
}

#[derive(Clone, PartialEq, Message)]
struct CertificateTermsMessage {
    #[prost(string, repeated, tag = "1")]
    dns_names: Vec<String>,
    #[prost(int32, tag = "2")]
    ttl_seconds: i32,
    /// Versions that signed no JWT-SVIDs did not write it.
    #[prost(int32, optional, tag = "3")]
    jwt_ttl_seconds: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct LocalAuthorityMessage {
    #[prost(bytes = "vec", repeated, tag = "1")]
    proof: Vec<Vec<u8>>,
    #[prost(int64, tag = "2")]
    left: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LocalJwtKeyMessage {
    #[prost(string, tag = "1")]
    key_id: String,
    #[prost(int64, tag = "2")]
    not_before: i64,
    #[prost(int64, tag = "3")]
    not_after: i64,
    #[prost(int64, tag = "4")]
    left: i64,
}

#[derive(Clone, PartialEq, Message)]
struct RecordMessage {
    #[prost(bytes = "vec", repeated, tag = "1")]
    chain: Vec<Vec<u8>>,
    #[prost(bool, tag = "2")]
    reattestable: bool,
    #[prost(message, repeated, tag = "3")]
    authorities: Vec<AuthorityMessage>,
    #[prost(message, optional, tag = "4")]
    time: Option<TimeMessage>,
    #[prost(int64, optional, tag = "5")]
    left: Option<i64>,
    /// Versions before boot logs did not write it.
    #[prost(string, tag = "6")]
    attested_boot: String,
    /// Versions before did not write it.
    #[prost(int64, optional, tag = "7")]
    newest_authority: Option<i64>,
    #[prost(message, optional, tag = "8")]
    local_authority: Option<LocalAuthorityMessage>,
    #[prost(message, optional, tag = "9")]
    local_jwt_key: Option<LocalJwtKeyMessage>,
    /// Versions before did not write it.
    #[prost(int64, optional, tag = "10")]
    disbelieved_since: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct SelectorMessage {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct EntryMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    spiffe_id: String,
    #[prost(message, repeated, tag = "3")]
    selectors: Vec<SelectorMessage>,
    #[prost(string, tag = "4")]
    hint: String,
    #[prost(int64, tag = "5")]
    created_at: i64,
    #[prost(int64, tag = "6")]
    revision_number: i64,
    #[prost(bytes = "vec", repeated, tag = "7")]
    chain: Vec<Vec<u8>>,
    #[prost(bytes = "vec", tag = "8")]
    key: Vec<u8>,
    #[prost(int64, optional, tag = "9")]
    left: Option<i64>,
    #[prost(bool, tag = "10")]
    on_demand: bool,
    // 11 was used: trust domains to federate with, by a version that knew no other state of them.
    /// Versions without JWT-SVIDs did not write it.
    #[prost(bool, optional, tag = "12")]
    unique_tokens: Option<bool>,
    /// Versions without Delegated Identity did not write it.
    #[prost(bool, optional, tag = "13")]
    is_privileged: Option<bool>,
    /// Versions that handed out no bundles of other trust domains did not write it.
    #[prost(message, optional, tag = "14")]
    federates_with: Option<NamesMessage>,
    /// The WIT-SVID for the same key; empty: there is none.
    #[prost(string, tag = "15")]
    wit: String,
    #[prost(int64, optional, tag = "16")]
    wit_left: Option<i64>,
    /// Agents that sign nothing by themselves do not write it.
    #[prost(message, optional, tag = "17")]
    certificate: Option<CertificateTermsMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct NamesMessage {
    #[prost(string, repeated, tag = "1")]
    names: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct IdentitiesMessage {
    #[prost(message, repeated, tag = "1")]
    authorities: Vec<AuthorityMessage>,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<EntryMessage>,
    #[prost(int64, tag = "3")]
    synced_unix: i64,
    #[prost(message, optional, tag = "4")]
    time: Option<TimeMessage>,
    #[prost(message, repeated, tag = "5")]
    jwt_authorities: Vec<JwtKey>,
    #[prost(int64, tag = "6")]
    refresh_hint: i64,
    /// Bundles of other trust domains.
    #[prost(message, repeated, tag = "7")]
    federated: Vec<Bundle>,
    #[prost(message, repeated, tag = "8")]
    wit_authorities: Vec<JwtKey>,
    /// Versions before did not write them.
    #[prost(bytes = "vec", repeated, tag = "9")]
    issuance_heads: Vec<Vec<u8>>,
}

/// Wipes the keys in a message when it goes.
struct EntrySecrets(IdentitiesMessage);

impl Drop for EntrySecrets {
    fn drop(&mut self) {
        for entry in &mut self.0.entries {
            entry.key.zeroize();
        }
    }
}

/// A record as protobuf, in the newest form.
pub fn encode_record(record: &AgentRecord) -> Vec<u8> {
    let message = RecordMessage {
        chain: record.chain.clone(),
        reattestable: record.reattestable,
        authorities: record.bundle.as_ref().map(|bundle| authorities(bundle)).unwrap_or_default(),
        time: record.time.as_ref().map(time_message),
        left: record.left,
        attested_boot: record.attested_boot.clone(),
        newest_authority: record.newest_authority,
        disbelieved_since: record.disbelieved_since,
        local_authority: record
            .local_authority
            .as_ref()
            .map(|kept| LocalAuthorityMessage { proof: kept.proof.clone(), left: kept.left }),
        local_jwt_key: record.local_jwt_key.as_ref().map(|kept| LocalJwtKeyMessage {
            key_id: kept.key_id.clone(),
            not_before: kept.span.not_before,
            not_after: kept.span.not_after,
            left: kept.left,
        }),
    };
    message.encode_to_vec()
}

/// The record that [`encode_record`] wrote. [`CacheRefusal::Content`]: the bytes are none, or an authority in it cannot be one.
pub fn decode_record(bytes: &[u8], trust_domain: &TrustDomain) -> Result<AgentRecord, CacheRefusal> {
    let message = RecordMessage::decode(bytes).map_err(|_| CacheRefusal::Content)?;
    let leaf = message.chain.first().and_then(|leaf| Certificate::parse(leaf).ok());
    refuse_other_trust_domain(leaf.and_then(|leaf| leaf.spiffe_id().ok()).as_ref(), trust_domain)?;
    let authorities = message.authorities.iter().map(|a| (a.der.as_slice(), a.tainted));
    let bundle = stored_bundle(authorities, trust_domain).map_err(|_| CacheRefusal::Content)?;
    Ok(AgentRecord {
        chain: message.chain,
        reattestable: message.reattestable,
        bundle: bundle.map(Arc::new),
        time: message.time.map(time_record),
        left: message.left,
        attested_boot: message.attested_boot,
        newest_authority: message.newest_authority,
        disbelieved_since: message.disbelieved_since,
        local_authority: message
            .local_authority
            .map(|LocalAuthorityMessage { proof, left }| KeptAuthority { proof, left }),
        local_jwt_key: message.local_jwt_key.map(|message| {
            let LocalJwtKeyMessage { key_id, not_before, not_after, left } = message;
            KeptJwtKey { key_id, span: Span { not_before, not_after }, left }
        }),
    })
}

/// The bytes of identities, wiped when dropped.
pub fn encode_identities<'a>(
    state: IdentitiesToCache<'_>,
    entries: impl Iterator<Item = (&'a EntryTerms, Option<&'a WorkloadSvid>)>,
) -> Zeroizing<Vec<u8>> {
    let message = EntrySecrets(IdentitiesMessage {
        authorities: authorities(state.bundle),
        entries: entries.map(|(terms, svid)| entry_message(terms, svid, state.moment)).collect(),
        synced_unix: state.synced_unix,
        time: Some(time_message(state.time)),
        jwt_authorities: state.bundle.jwt_authorities().to_wire(),
        refresh_hint: state.bundle.refresh_hint().map_or(0, |hint| hint.as_secs().cast_signed()),
        federated: state.federated.iter().map(|bundle| bundle.to_wire().clone()).collect(),
        wit_authorities: state.bundle.wit_authorities().to_wire(),
        issuance_heads: state.issuance_heads.to_vec(),
    });
    // Exactly the size needed: a buffer that grows would leave copies of keys behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(message.0.encoded_len()));
    message.0.encode_raw(&mut *bytes);
    bytes
}

/// Identities from their bytes. Bounded like a server's answer.
pub fn decode_identities(bytes: &[u8], trust_domain: &TrustDomain) -> Result<CachedIdentities, CacheRefusal> {
    let message = EntrySecrets(IdentitiesMessage::decode(bytes).map_err(|_| CacheRefusal::Content)?);
    let named = message.0.entries.iter().find_map(|entry| SpiffeId::parse(&entry.spiffe_id).ok());
    refuse_other_trust_domain(named.as_ref(), trust_domain)?;
    let authorities = message.0.authorities.iter().map(|a| (a.der.as_slice(), a.tainted));
    let bundle = TrustBundle::new(trust_domain, authorities).map_err(|_| CacheRefusal::Content)?;
    let bundle = bundle.with_jwt(&message.0.jwt_authorities, message.0.refresh_hint);
    let bundle = bundle.with_wit(&message.0.wit_authorities);
    if message.0.entries.len() > MAX_ENTRIES {
        return Err(CacheRefusal::Content);
    }
    let entries = message.0.entries.iter().map(|entry| decode_entry(entry, &bundle));
    let entries = entries.collect::<Option<_>>().ok_or(CacheRefusal::Content)?;
    Ok(CachedIdentities {
        bundle: Arc::new(bundle),
        federated: decode_federated(&message.0.federated).ok_or(CacheRefusal::Content)?,
        entries,
        synced_unix: message.0.synced_unix,
        time: message.0.time.clone().map(time_record).ok_or(CacheRefusal::Content)?,
        issuance_heads: message.0.issuance_heads.clone(),
    })
}

fn refuse_other_trust_domain(named: Option<&SpiffeId>, configured: &TrustDomain) -> Result<(), CacheRefusal> {
    match named.map(SpiffeId::trust_domain).filter(|found| found != configured) {
        Some(found) => Err(CacheRefusal::OtherTrustDomain { found, configured: configured.clone() }),
        None => Ok(()),
    }
}

fn decode_federated(bundles: &[Bundle]) -> Option<FederatedBundles> {
    let mut federated = FederatedBundles::default();
    for bundle in bundles {
        let trust_domain = TrustDomain::new(&bundle.trust_domain).ok()?;
        let bundle = ForeignBundle::from_answer(bundle, &trust_domain).ok()?;
        federated.add(Arc::new(bundle)).then_some(())?;
    }
    Some(federated)
}

fn entry_message(terms: &EntryTerms, svid: Option<&WorkloadSvid>, moment: &Moment) -> EntryMessage {
    let selector = |s: &Selector| SelectorMessage { kind: s.kind().to_owned(), value: s.value().to_owned() };
    let wit = svid.and_then(WorkloadSvid::wit);
    EntryMessage {
        id: terms.id.clone(),
        spiffe_id: terms.spiffe_id.to_string(),
        selectors: terms.selectors.iter().map(selector).collect(),
        hint: terms.hint.clone(),
        created_at: terms.created_at,
        revision_number: terms.revision_number,
        chain: svid.map(|svid| svid.chain().iter().map(|der| der.to_vec()).collect()).unwrap_or_default(),
        key: svid.map(|svid| svid.key().pkcs8_der().to_vec()).unwrap_or_default(),
        left: svid.map(|svid| moment.left(svid.lifetime())),
        on_demand: terms.on_demand,
        unique_tokens: terms.unique_tokens,
        is_privileged: terms.is_privileged,
        federates_with: terms.federates_with.as_ref().map(|with| NamesMessage {
            names: with.iter().map(|trust_domain| trust_domain.as_str().to_owned()).collect(),
        }),
        wit: wit.map(|wit| wit.token().to_owned()).unwrap_or_default(),
        wit_left: wit.map(|wit| moment.left(wit.lifetime())),
        certificate: terms.certificate.as_ref().map(|certificate| CertificateTermsMessage {
            dns_names: certificate.dns_names.clone(),
            ttl_seconds: certificate.ttl_seconds,
            jwt_ttl_seconds: certificate.jwt_ttl_seconds,
        }),
    }
}

fn decode_entry(entry: &EntryMessage, bundle: &TrustBundle) -> Option<(EntryTerms, Option<WorkloadSvid>)> {
    let spiffe_id = SpiffeId::parse(&entry.spiffe_id).ok()?.as_member_of(bundle.trust_domain()).ok()?;
    let selectors = entry.selectors.iter().map(|s| Selector::new(&s.kind, &s.value));
    let selectors: SelectorSet = selectors.collect::<Result<_, _>>().ok()?;
    if selectors.is_empty() || selectors.len() > MAX_SELECTORS {
        return None;
    }
    let svid = if entry.chain.is_empty() {
        None
    } else {
        let chain = entry.chain.iter().map(Vec::as_slice);
        let key = WorkloadKey::new(Zeroizing::new(entry.key.clone()));
        let wit = restored_wit(entry, &spiffe_id, &key, bundle);
        Some(restored_workload_svid(chain, &spiffe_id, key, entry.left).ok()?.with_wit(wit))
    };
    let terms = EntryTerms {
        server: ServerNumber::FIRST,
        id: entry.id.clone(),
        spiffe_id,
        selectors,
        hint: entry.hint.clone(),
        created_at: entry.created_at,
        revision_number: entry.revision_number,
        on_demand: entry.on_demand,
        unique_tokens: entry.unique_tokens,
        is_privileged: entry.is_privileged,
        federates_with: entry.federates_with.as_ref().map(names).transpose().ok()?,
        certificate: entry.certificate.clone().map(|message| {
            let CertificateTermsMessage { dns_names, ttl_seconds, jwt_ttl_seconds } = message;
            CertificateTerms { dns_names, ttl_seconds, jwt_ttl_seconds }
        }),
    };
    Some((terms, svid))
}

/// What is no WIT-SVID by the keys that are stored beside it is left out: the X509-SVID is worth as much without.
fn restored_wit(entry: &EntryMessage, id: &SpiffeId, key: &WorkloadKey, bundle: &TrustBundle) -> Option<Wit> {
    if entry.wit.is_empty() {
        return None;
    }
    Wit::restored(&entry.wit, (id, &key.spki_der()?), bundle.wit_authorities(), entry.wit_left).ok()
}

fn names(message: &NamesMessage) -> Result<Vec<TrustDomain>, SpiffeIdError> {
    message.names.iter().map(|name| TrustDomain::new(name)).collect()
}

fn authorities(bundle: &TrustBundle) -> Vec<AuthorityMessage> {
    let authority = |(der, tainted): (CertificateDer<'_>, bool)| AuthorityMessage { der: der.to_vec(), tainted };
    bundle.tainted_authorities().map(authority).collect()
}

fn time_message(time: &TimeRecord) -> TimeMessage {
    let clock = |c: TpmClock| TpmClockMessage { clock_ms: c.clock_ms, reset_count: c.reset_count };
    let boot = time.boot.clone().unwrap_or_default();
    TimeMessage {
        unix: time.confirmed,
        tpm_clock: time.tpm_clock.map(clock),
        form: TIME_FORM,
        claim: time.claim,
        kernel: time.kernel,
        boot_id: boot.id,
        boot_seconds: boot.seconds,
    }
}

fn time_record(message: TimeMessage) -> TimeRecord {
    let clock = |c: TpmClockMessage| TpmClock { clock_ms: c.clock_ms, reset_count: c.reset_count };
    let tpm_clock = message.tpm_clock.map(clock);
    if message.form < TIME_FORM {
        return TimeRecord::of_an_unconfirmed_bound(message.unix, tpm_clock);
    }
    let boot = BootMark { id: message.boot_id, seconds: message.boot_seconds };
    TimeRecord {
        confirmed: message.unix,
        tpm_clock,
        boot: (!boot.id.is_empty()).then_some(boot),
        claim: message.claim,
        kernel: message.kernel,
    }
}

#[cfg(test)]
mod tests;
