//! The CA: SPIRE's bundle and its journal become a journal of ours. What signs is found as SPIRE finds it at its own start.
//!
//! Source: SPIRE pkg/server/ca/manager/journal.go, slot.go.

mod token_keys;

use std::collections::BTreeMap;

use ironroot_api::certificate::Certificate;
use prost::Message;

use super::above::{Above, RootOfBundle, chain_above};
use super::error::TakeoverError;
use super::journal_blob::{Bundle, Entries, Status, X509Ca};
use super::plan::Rules;
use super::report::{Report, What};
use crate::ca::{Inherited, Place, Purpose, SlotName, Standing, UpstreamChain};
use crate::facts::tier::TierAuthority;
use crate::keys::SoftwareKey;
use crate::store::spire::{SpireBundle, SpireJournal};

/// What becomes of the CA.
#[derive(Debug, Default)]
pub(super) struct Authorities {
    pub(super) sequence_number: u64,
    pub(super) inherited: Vec<Inherited>,
    /// Roots of the authority above the CA, if there is one.
    pub(super) above: Vec<TierAuthority>,
    /// The IDs of the keys that sign.
    pub(super) key_ids: Vec<String>,
}

/// SPIRE's keys; none: they have no place here, and nothing is taken over but what verifies.
pub(super) type Keys = Option<BTreeMap<String, SoftwareKey>>;

/// What the trust domain's bundle and this server's journal say.
pub(super) fn inherited(
    bundles: &[SpireBundle],
    journals: &[SpireJournal],
    keys: &Keys,
    rules: &Rules,
    now_unix: i64,
    report: &mut Report,
) -> Result<Authorities, TakeoverError> {
    let bundle = own_bundle(bundles, rules)?;
    let journal = match keys {
        Some(keys) => own_journal(journals, keys, report)?,
        None => None,
    };
    let mut taking = Taking { now_unix, report, authorities: Authorities::default() };
    taking.authorities.sequence_number = bundle.sequence_number;
    let roots = taking.roots(&bundle)?;
    let (cas, jwt, wit) = match (&journal, keys) {
        (Some(journal), Some(keys)) => (
            taking.signing_cas(journal, keys, &roots)?,
            taking.signing_token_keys(Purpose::Jwt, &journal.jwt_keys, keys)?,
            taking.signing_token_keys(Purpose::Wit, &journal.wit_keys, keys)?,
        ),
        _ => Default::default(),
    };
    taking.take_x509(roots, cas);
    taking.report.jwt_authorities = taking.take_token_keys(Purpose::Jwt, &bundle.jwt_signing_keys, jwt);
    taking.report.wit_authorities = taking.take_token_keys(Purpose::Wit, &bundle.wit_signing_keys, wit);
    Ok(taking.authorities)
}

fn own_bundle(bundles: &[SpireBundle], rules: &Rules) -> Result<Bundle, TakeoverError> {
    let own = rules.trust_domain.id().to_string();
    let found = || bundles.iter().map(|bundle| bundle.trust_domain.as_str()).take(8).collect::<Vec<_>>().join(", ");
    let other = || TakeoverError::OtherTrustDomain {
        expected: rules.trust_domain.to_string(),
        found: if bundles.is_empty() { "none".to_owned() } else { found() },
    };
    let row = bundles.iter().find(|bundle| bundle.trust_domain == own).ok_or_else(other)?;
    let bundle = Bundle::decode(&*row.data).map_err(|_| TakeoverError::Blob { what: "trust domain's bundle" })?;
    if bundle.trust_domain_id == own { Ok(bundle) } else { Err(other()) }
}

/// The journal of the server whose keys these are; the others' authorities are in the bundle.
fn own_journal(
    journals: &[SpireJournal],
    keys: &BTreeMap<String, SoftwareKey>,
    report: &mut Report,
) -> Result<Option<Entries>, TakeoverError> {
    let mut own = None;
    for journal in journals {
        let entries = Entries::decode(&*journal.data).map_err(|_| TakeoverError::Blob { what: "CA journal" })?;
        match own.is_none() && has_a_key(&entries, keys) {
            true => own = Some(entries),
            false => report.leave(
                What::CaJournal,
                format!("in row {}", journal.row),
                "it is of another server, or of other keys",
            ),
        }
    }
    match (own, journals.len()) {
        (None, 0) => Ok(None),
        (None, journals) => Err(TakeoverError::NoJournal { journals }),
        (own, _) => Ok(own),
    }
}

fn has_a_key(entries: &Entries, keys: &BTreeMap<String, SoftwareKey>) -> bool {
    let cas = entries.x509_cas.iter().filter_map(|ca| {
        let spki = Certificate::parse(&ca.certificate).ok()?.spki_der();
        Some((id_of(Purpose::X509Ca, &ca.slot_id), spki))
    });
    let of_tokens = [(Purpose::Jwt, &entries.jwt_keys), (Purpose::Wit, &entries.wit_keys)].into_iter();
    let of_tokens = of_tokens.flat_map(|(purpose, keys)| keys.iter().map(move |key| (purpose, key)));
    let tokens = of_tokens.map(|(purpose, key)| (id_of(purpose, &key.slot_id), key.public_key.clone()));
    cas.chain(tokens).any(|(id, spki)| keys.get(&id).is_some_and(|key| key.spki_der() == spki))
}

/// What SPIRE's key manager, and ours in a file, calls the key of a slot.
fn id_of(purpose: Purpose, slot: &str) -> String {
    format!("{purpose}-{slot}")
}

fn slot_of(text: &str) -> Option<SlotName> {
    match text {
        "A" => Some(SlotName::A),
        "B" => Some(SlotName::B),
        _ => None,
    }
}

/// A CA whose key is here: how far its life is, and its certificate.
struct SigningCa {
    standing: Standing,
    certificate: Certificate,
    issued_at: i64,
    above: Option<Above>,
}

struct Taking<'a> {
    now_unix: i64,
    report: &'a mut Report,
    authorities: Authorities,
}

impl Taking<'_> {
    fn roots(&mut self, bundle: &Bundle) -> Result<Vec<RootOfBundle>, TakeoverError> {
        let mut roots = Vec::new();
        for root in &bundle.root_cas {
            let parsed = Certificate::parse_concatenated(&root.der_bytes);
            let certificates = parsed.map_err(|error| TakeoverError::Authority(error.to_string()))?;
            roots.extend(
                certificates.into_iter().map(|certificate| RootOfBundle { certificate, is_tainted: root.tainted_key }),
            );
        }
        Ok(roots)
    }

    /// The active CA and the one beside it, whose keys must be here.
    fn signing_cas(
        &mut self,
        journal: &Entries,
        keys: &BTreeMap<String, SoftwareKey>,
        roots: &[RootOfBundle],
    ) -> Result<Vec<SigningCa>, TakeoverError> {
        let mut signing: Vec<SigningCa> = Vec::new();
        let newest_first = || journal.x509_cas.iter().rev();
        let active = newest_first().find(|ca| ca.status == Status::Active as i32);
        for ca in active.into_iter().chain(newest_first().filter(|ca| ca.status != Status::Active as i32)) {
            let Some((slot, certificate)) = self.live_ca(ca)? else { continue };
            let is_active = ca.status == Status::Active as i32;
            let place = Place::ca(slot);
            if !has_key(keys, place, &certificate.spki_der(), is_active)?
                || signing.iter().any(|other| other.is_in(place))
            {
                continue;
            }
            let above = match chain_above(&ca.upstream_chain, &certificate, roots)? {
                Ok(above) => above,
                Err(why) if is_active => {
                    let why = format!("it signs nothing here: {why}");
                    self.report.leave(What::X509Authority, certificate.serial_decimal(), why);
                    continue;
                }
                Err(_) => continue,
            };
            let Some(standing) = standing(ca.status, place) else { continue };
            signing.push(SigningCa { standing, certificate, issued_at: ca.issued_at, above });
        }
        Ok(signing)
    }

    /// Its slot and certificate, unless its time is over.
    fn live_ca(&self, ca: &X509Ca) -> Result<Option<(SlotName, Certificate)>, TakeoverError> {
        let Some(slot) = slot_of(&ca.slot_id) else { return Ok(None) };
        let certificate = Certificate::parse(&ca.certificate).map_err(|e| TakeoverError::Authority(e.to_string()))?;
        Ok((certificate.not_after_unix() > self.now_unix).then_some((slot, certificate)))
    }

    /// The bundle's, in its order, those that sign among them; then CAs below an authority above, which no bundle holds. What else such a
    /// bundle has is that authority's.
    fn take_x509(&mut self, roots: Vec<RootOfBundle>, mut signing: Vec<SigningCa>) {
        let is_below = signing.iter().any(|ca| ca.above.is_some());
        let mut live = Vec::new();
        for (place, root) in roots.into_iter().enumerate() {
            if root.certificate.not_after_unix() <= self.now_unix {
                self.report.leave(What::X509Authority, root.certificate.serial_decimal(), "it has ended");
                continue;
            }
            live.push(place);
            let is_own = |ca: &SigningCa| ca.above.is_none() && ca.certificate.der() == root.certificate.der();
            match signing.iter().position(is_own).map(|own| signing.swap_remove(own)) {
                Some(own) => self.take_certificate(own, root.is_tainted),
                None if is_below => self.authorities.above.push(root.of_the_authority_above()),
                None => self.take_root(root),
            }
        }
        // One whose root has just been left out has ended with it.
        signing.retain(|ca| ca.above.as_ref().is_some_and(|above| live.contains(&above.root)));
        signing.into_iter().for_each(|ca| self.take_certificate(ca, false));
        self.report.x509_authorities = live.len();
    }

    fn take_root(&mut self, root: RootOfBundle) {
        let (issued_at, not_after) = (root.certificate.not_before_unix(), root.certificate.not_after_unix());
        let (credential, standing) = (root.certificate.into(), Standing::Verifies(Purpose::X509Ca));
        self.take(Inherited {
            credential,
            issued_at,
            not_after,
            standing,
            upstream: None,
            is_tainted: root.is_tainted,
        });
    }

    fn take_certificate(&mut self, ca: SigningCa, is_tainted: bool) {
        let SigningCa { standing, certificate, issued_at, above } = ca;
        let (not_after, credential) = (certificate.not_after_unix(), certificate.into());
        let upstream = above.map(|above| UpstreamChain::new(above.between.into_iter().map(Into::into)));
        self.take(Inherited { credential, issued_at, not_after, standing, upstream, is_tainted });
    }

    fn take(&mut self, inherited: Inherited) {
        self.authorities.key_ids.extend(place_of(inherited.standing).map(|place| place.to_string()));
        self.authorities.inherited.push(inherited);
    }
}

impl SigningCa {
    fn is_in(&self, place: Place) -> bool {
        place_of(self.standing) == Some(place)
    }
}

fn place_of(standing: Standing) -> Option<Place> {
    match standing {
        Standing::Prepared(place) | Standing::Active(place) | Standing::Old(place) => Some(place),
        Standing::Verifies(_) => None,
    }
}

fn standing(status: i32, place: Place) -> Option<Standing> {
    match Status::try_from(status) {
        Ok(Status::Active) => Some(Standing::Active(place)),
        Ok(Status::Prepared) => Some(Standing::Prepared(place)),
        Ok(Status::Old) => Some(Standing::Old(place)),
        Ok(Status::Unknown) | Err(_) => None,
    }
}

/// Whether the key of this place is the one of that public half. Where it must be, it is an error if it is not: SPIRE's own server
/// would make a new CA then.
fn has_key(
    keys: &BTreeMap<String, SoftwareKey>,
    place: Place,
    spki: &[u8],
    must_be: bool,
) -> Result<bool, TakeoverError> {
    let found = match keys.get(&place.to_string()) {
        Some(key) if key.spki_der() == spki => return Ok(true),
        Some(_) => "another key of that name",
        None => "no key of that name",
    };
    if must_be { Err(TakeoverError::KeyMissing { id: place.to_string(), found }) } else { Ok(false) }
}
