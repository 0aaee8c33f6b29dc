//! An entry as the database keeps it: a format of its own.
//!
//! Not the wire form: what may be said today and what was accepted once are two questions. Reading back asks for form only, so
//! that a bound that gets tighter does not keep a server from starting; whoever changes such an entry is told of the bound then.

use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, SpiffeIdError, TrustDomain};
use ironroot_attest::{Selector, SelectorError};
use prost::Message;
use thiserror::Error;

use super::RegistrationEntry;
use super::terms::Terms;

/// A row of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// The entry's own ID.
    pub id: String,
    /// Who the identity is for: a whole SPIFFE ID.
    pub spiffe_id: String,
    /// Under whom it is served: a whole SPIFFE ID.
    pub parent_id: String,
    /// When it ends, UNIX seconds; 0 means never.
    pub expires_at: i64,
    /// The rest, encoded.
    pub terms: Vec<u8>,
}

/// Why a row is no entry: it is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EntryRowError {
    /// The encoded part.
    #[error("terms cannot be decoded")]
    Terms(#[source] prost::DecodeError),
    /// One of the SPIFFE IDs. Their form is the standard's and does not change.
    #[error("malformed SPIFFE ID")]
    SpiffeId(#[source] SpiffeIdError),
    /// A selector without a type or a value.
    #[error("malformed selector")]
    Selector(#[source] SelectorError),
    /// The name of a trust domain that the entry federates with.
    #[error("malformed trust domain")]
    TrustDomain(#[source] SpiffeIdError),
}

/// What the row's columns do not say. A tag that has shipped is never used for anything else.
#[derive(Clone, PartialEq, Eq, Message)]
struct StoredTerms {
    /// As `type:value`, in order.
    #[prost(string, repeated, tag = "1")]
    selectors: Vec<String>,
    /// Seconds; 0 for the server's default.
    #[prost(uint32, tag = "2")]
    x509_svid_ttl: u32,
    /// Seconds; 0 for the server's default.
    #[prost(uint32, tag = "3")]
    jwt_svid_ttl: u32,
    #[prost(string, repeated, tag = "4")]
    federates_with: Vec<String>,
    #[prost(bool, tag = "5")]
    admin: bool,
    #[prost(bool, tag = "6")]
    downstream: bool,
    #[prost(string, repeated, tag = "7")]
    dns_names: Vec<String>,
    #[prost(bool, tag = "8")]
    store_svid: bool,
    #[prost(string, tag = "9")]
    hint: String,
    #[prost(message, optional, tag = "10")]
    attributes: Option<StoredAttributes>,
    #[prost(int64, tag = "11")]
    revision_number: i64,
    /// UNIX seconds.
    #[prost(int64, tag = "12")]
    created_at: i64,
}

/// How agents treat the entry's SVIDs.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct StoredAttributes {
    #[prost(bool, tag = "1")]
    disable_x509_svid_prefetch: bool,
    #[prost(bool, tag = "2")]
    jwt_svid_include_jti: bool,
}

impl RegistrationEntry {
    /// As it is written into the database.
    pub fn to_row(&self) -> EntryRow {
        let attributes = self.terms.additional_attributes.map(|wire| StoredAttributes {
            disable_x509_svid_prefetch: wire.disable_x509_svid_prefetch,
            jwt_svid_include_jti: wire.jwt_svid_include_jti,
        });
        let terms = StoredTerms {
            selectors: self.terms.selectors.iter().map(Selector::to_string).collect(),
            x509_svid_ttl: self.terms.x509_svid_ttl,
            jwt_svid_ttl: self.terms.jwt_svid_ttl,
            federates_with: self.terms.federates_with.iter().map(|td| td.as_str().to_owned()).collect(),
            admin: self.terms.admin,
            downstream: self.terms.downstream,
            dns_names: self.terms.dns_names.clone(),
            store_svid: self.terms.store_svid,
            hint: self.terms.hint.clone(),
            attributes,
            revision_number: self.revision_number,
            created_at: self.created_at,
        };
        EntryRow {
            id: self.id.clone(),
            spiffe_id: self.terms.spiffe_id.to_string(),
            parent_id: self.terms.parent_id.to_string(),
            expires_at: self.terms.expires_at,
            terms: terms.encode_to_vec(),
        }
    }

    /// The entry whose [`to_pb`](Self::to_pb) this is: no bounds, as in [`from_row`](Self::from_row).
    pub fn accepted(wire: types::Entry) -> Result<Self, EntryRowError> {
        let id = |wire: Option<&types::Spiffeid>| SpiffeId::from_pb(wire).map_err(EntryRowError::SpiffeId);
        let ids = (id(wire.spiffe_id.as_ref())?, id(wire.parent_id.as_ref())?);
        Self::of_parts(wire.id.clone(), ids, wire.expires_at, terms_of(wire))
    }

    /// The entry that [`to_row`](Self::to_row) wrote. None of today's bounds count: what was taken once stays.
    pub fn from_row(row: EntryRow) -> Result<Self, EntryRowError> {
        let terms = StoredTerms::decode(&*row.terms).map_err(EntryRowError::Terms)?;
        let id = |text: &str| SpiffeId::parse(text).map_err(EntryRowError::SpiffeId);
        Self::of_parts(row.id, (id(&row.spiffe_id)?, id(&row.parent_id)?), row.expires_at, terms)
    }

    fn of_parts(
        id: String,
        (spiffe_id, parent_id): (SpiffeId, SpiffeId),
        expires_at: i64,
        stored: StoredTerms,
    ) -> Result<Self, EntryRowError> {
        let selectors = stored.selectors.iter().map(|text| Selector::accepted(text));
        let federates_with = stored.federates_with.iter().map(|name| TrustDomain::new(name));
        let terms = Terms {
            spiffe_id,
            parent_id,
            selectors: selectors.collect::<Result<_, _>>().map_err(EntryRowError::Selector)?,
            x509_svid_ttl: stored.x509_svid_ttl,
            jwt_svid_ttl: stored.jwt_svid_ttl,
            federates_with: federates_with.collect::<Result<_, _>>().map_err(EntryRowError::TrustDomain)?,
            admin: stored.admin,
            downstream: stored.downstream,
            expires_at,
            dns_names: stored.dns_names,
            store_svid: stored.store_svid,
            hint: stored.hint,
            additional_attributes: stored.attributes.map(|stored| types::entry::AdditionalAttributes {
                disable_x509_svid_prefetch: stored.disable_x509_svid_prefetch,
                jwt_svid_include_jti: stored.jwt_svid_include_jti,
            }),
        };
        Ok(Self { id, terms, revision_number: stored.revision_number, created_at: stored.created_at })
    }
}

/// What schemas before version 5 kept, a whole message of the wire, as today's encoded terms. Nothing is checked but its form.
pub fn terms_of_wire_form(wire: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
    Ok(terms_of(types::Entry::decode(wire)?).encode_to_vec())
}

/// The trust domains that encoded terms federate with.
pub fn federates_with_of_terms(terms: &[u8]) -> Result<Vec<String>, prost::DecodeError> {
    Ok(StoredTerms::decode(terms)?.federates_with)
}

fn terms_of(wire: types::Entry) -> StoredTerms {
    let selectors = wire.selectors.iter().map(|selector| format!("{}:{}", selector.r#type, selector.value));
    StoredTerms {
        selectors: selectors.collect(),
        x509_svid_ttl: wire.x509_svid_ttl.max(0).unsigned_abs(),
        jwt_svid_ttl: wire.jwt_svid_ttl.max(0).unsigned_abs(),
        federates_with: wire.federates_with,
        admin: wire.admin,
        downstream: wire.downstream,
        dns_names: wire.dns_names,
        store_svid: wire.store_svid,
        hint: wire.hint,
        attributes: wire.additional_attributes.map(|wire| StoredAttributes {
            disable_x509_svid_prefetch: wire.disable_x509_svid_prefetch,
            jwt_svid_include_jti: wire.jwt_svid_include_jti,
        }),
        revision_number: wire.revision_number,
        created_at: wire.created_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::entry::NewEntry;

    fn row() -> EntryRow {
        let id = |path: &str| Some(types::Spiffeid { trust_domain: "td".into(), path: path.into() });
        let attributes =
            types::entry::AdditionalAttributes { disable_x509_svid_prefetch: true, jwt_svid_include_jti: true };
        let wire = types::Entry {
            id: "e".into(),
            spiffe_id: id("/w"),
            parent_id: id("/p"),
            selectors: vec![types::Selector { r#type: "unix".into(), value: "path:/a:b".into() }],
            x509_svid_ttl: 1,
            jwt_svid_ttl: 2,
            federates_with: vec!["other".into()],
            admin: true,
            downstream: true,
            expires_at: 3,
            dns_names: vec!["d".into()],
            store_svid: true,
            hint: "h".into(),
            additional_attributes: Some(attributes),
            ..types::Entry::default()
        };
        let entry = NewEntry::from_pb(&wire, &TrustDomain::new("td").expect("legal")).expect("legal");
        let row = entry.register(String::new(), 4).to_row();
        let again = RegistrationEntry::from_row(row.clone()).expect("reads");
        assert_eq!(again.to_pb(), types::Entry { created_at: 4, ..wire.clone() });
        assert_eq!(terms_of_wire_form(&again.to_pb().encode_to_vec()).expect("a message"), row.terms);
        row
    }

    #[test]
    fn every_field_is_read_back_as_it_was_written() {
        row();
    }

    /// The bytes that are in databases: a change of the format must still read them.
    #[test]
    fn the_format_of_today_stays_readable() {
        let expected = "0a0e756e69783a706174683a2f613a6210011802220\
                        56f7468657228013001\
                        3a01644001\
                        4a016852040801100160\
                        04";
        let found: String = row().terms.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn damage_is_told_by_what_is_damaged() {
        let damaged = |change: &dyn Fn(&mut EntryRow)| {
            let mut row = row();
            change(&mut row);
            RegistrationEntry::from_row(row).expect_err("damaged")
        };
        let terms = |terms: StoredTerms| move |row: &mut EntryRow| row.terms = terms.encode_to_vec();
        let selectors = StoredTerms { selectors: vec!["unix".into()], ..Default::default() };
        let domains = StoredTerms { federates_with: vec!["".into()], ..Default::default() };
        assert!(matches!(damaged(&|row| row.terms = vec![0xff]), EntryRowError::Terms(_)));
        assert!(matches!(damaged(&|row| row.spiffe_id = "web".into()), EntryRowError::SpiffeId(_)));
        assert!(matches!(damaged(&|row| row.parent_id.clear()), EntryRowError::SpiffeId(_)));
        assert!(matches!(damaged(&terms(selectors)), EntryRowError::Selector(_)));
        assert!(matches!(damaged(&terms(domains)), EntryRowError::TrustDomain(_)));
    }
}
