//! An entry as memory keeps it: its wire form, made once, and what the indexes need of it.

use std::mem;
use std::ops::Range;
use std::sync::Arc;

use ironroot_api::pb::entry::EntryRevision;
use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, TrustDomain};
use prost::Message;
use prost::encoding::{WireType, decode_varint, encode_key, encode_varint};

use crate::facts::entry::{EXCHANGE_PARENTS, RegistrationEntry};

/// A registration entry. Everything but a few numbers and its parent is in `wire`, a `spire.api.types.Entry`; the rest is read
/// out of it when it is asked for. A million of them are held, so there is nothing twice: entries below one parent share its ID.
///
/// Protobuf lets fields come in any order, so what agents ask for is a prefix of the rest and needs no second copy:
///
/// ```text
///  id │ SPIFFE ID │ the other fields for agents │ what they do not ask for
///  └──────────── for agents ────────────────────┘
/// ```
#[derive(Debug)]
pub(super) struct StoredEntry {
    /// Place in lists.
    pub seq: i64,
    /// UNIX seconds; 0 means never.
    pub expires_at: i64,
    pub created_at: i64,
    pub revision_number: i64,
    wire: Box<[u8]>,
    parent: Arc<[u8]>,
    agent_bytes: u32,
    pub admin: bool,
    pub downstream: bool,
}

/// Fields of `spire.api.types.Entry`.
const ID: u32 = 1;
const SPIFFE_ID: u32 = 2;
const PARENT_ID: u32 = 3;
/// What names each of them in the wire form, bytes: its number is below 16.
const TAG_BYTES: usize = 1;

impl StoredEntry {
    /// `parent`: the [`id_key`] of its parent, shared with others.
    pub fn new(seq: i64, entry: &RegistrationEntry, parent: Arc<[u8]>) -> Self {
        let mut all = entry.to_pb();
        all.parent_id = None;
        let mut wire = Vec::with_capacity(all.encoded_len());
        put_field(&mut wire, ID, mem::take(&mut all.id).as_bytes());
        all.spiffe_id = None;
        put_field(&mut wire, SPIFFE_ID, &id_key(entry.spiffe_id()));
        let rest = take_what_agents_do_not_ask_for(&mut all);
        append(&mut wire, &all);
        let agent_bytes = u32::try_from(wire.len()).expect("an entry is far smaller than 4 GiB");
        append(&mut wire, &rest);
        Self {
            seq,
            expires_at: entry.expires_at(),
            created_at: entry.created_at(),
            revision_number: entry.revision_number(),
            wire: wire.into(),
            parent,
            agent_bytes,
            admin: entry.admin(),
            downstream: entry.downstream(),
        }
    }

    /// Decodes the entry: it costs as much as parsing the wire's message.
    pub fn entry(&self) -> RegistrationEntry {
        let wire = types::Entry::decode(&self.whole()[..]).expect("it was encoded here");
        RegistrationEntry::accepted(wire).expect("it was encoded from an entry")
    }

    pub fn id(&self) -> &str {
        std::str::from_utf8(&self.wire[content(&self.wire, 0)]).expect("an entry's ID is text")
    }

    pub fn spiffe_id(&self) -> SpiffeId {
        let wire = types::Spiffeid::decode(self.spiffe_id_key()).expect("it was encoded here");
        SpiffeId::from_pb(Some(&wire)).expect("it was encoded from a SPIFFE ID")
    }

    /// Whose identity it is, as [`id_key`] makes it.
    pub fn spiffe_id_key(&self) -> &[u8] {
        let behind_the_id = content(&self.wire, 0).end;
        &self.wire[content(&self.wire, behind_the_id)]
    }

    /// Below whom it is, as [`id_key`] makes it.
    pub fn parent_key(&self) -> &[u8] {
        &self.parent
    }

    /// Whether the entry has ended.
    pub fn is_expired(&self, now_unix: i64) -> bool {
        self.expires_at != 0 && self.expires_at <= now_unix
    }

    /// The wire form, all fields.
    pub fn whole(&self) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.whole_bytes());
        whole.extend_from_slice(&self.wire);
        put_field(&mut whole, PARENT_ID, &self.parent);
        whole
    }

    /// The length of [`whole`](Self::whole), bytes, without making it.
    pub fn whole_bytes(&self) -> usize {
        let parent = self.parent.len();
        self.wire.len() + TAG_BYTES + prost::length_delimiter_len(parent) + parent
    }

    /// The wire form, all fields but the parent.
    pub fn own_fields(&self) -> &[u8] {
        &self.wire
    }

    /// The parent's key, to share it.
    pub fn shared_parent(&self) -> Arc<[u8]> {
        self.parent.clone()
    }

    /// The fields of the mask that SPIRE's agents send: no parent, no TTLs, no DNS names, no expiry.
    pub fn for_agents(&self) -> &[u8] {
        &self.wire[..self.agent_bytes as usize]
    }

    /// What tells this state of the entry from others.
    pub fn revision(&self) -> EntryRevision {
        EntryRevision { id: self.id().to_owned(), revision_number: self.revision_number, created_at: self.created_at }
    }
}

/// A SPIFFE ID as the indexes have it: the bytes of `spire.api.types.SPIFFEID`.
pub(super) fn id_key(id: &SpiffeId) -> Vec<u8> {
    let mut key = Vec::with_capacity(id.as_str().len());
    for (field, text) in (1..).zip([id.trust_domain_name(), id.path()]) {
        // As of every message: what is empty is not written.
        if !text.is_empty() {
            put_field(&mut key, field, text.as_bytes());
        }
    }
    key
}

/// What node aliases have as their parent: the ID of the trust domain's server, as a key of the indices.
pub(super) fn server_key(trust_domain: &TrustDomain) -> Vec<u8> {
    id_key(&trust_domain.server_id())
}

/// Whether what has this key is the parent of entries for tokens of other issuers: see
/// [`exchange_parent`](crate::token_exchange::exchange_parent).
pub(super) fn is_of_exchange(key: &[u8]) -> bool {
    let behind_the_trust_domain = content(key, 0).end;
    behind_the_trust_domain < key.len()
        && key[content(key, behind_the_trust_domain)].starts_with(EXCHANGE_PARENTS.as_bytes())
}

/// Appends the fields of `message`.
fn append(wire: &mut Vec<u8>, message: &types::Entry) {
    message.encode(wire).expect("a vector grows");
}

/// Appends a text or an inner message.
fn put_field(wire: &mut Vec<u8>, number: u32, content: &[u8]) {
    encode_key(number, WireType::LengthDelimited, wire);
    encode_varint(content.len() as u64, wire);
    wire.extend_from_slice(content);
}

/// Where the content of the text or the inner message is whose field begins at `at`.
fn content(wire: &[u8], at: usize) -> Range<usize> {
    let mut rest = &wire[at + TAG_BYTES..];
    let length = decode_varint(&mut rest).expect("it was encoded here");
    let start = wire.len() - rest.len();
    start..start + usize::try_from(length).expect("an entry is far smaller than 4 GiB")
}

/// The fields that [`agent_entry_mask`](crate::facts::mask::agent_entry_mask) does not name, without the parent.
fn take_what_agents_do_not_ask_for(all: &mut types::Entry) -> types::Entry {
    types::Entry {
        x509_svid_ttl: mem::take(&mut all.x509_svid_ttl),
        jwt_svid_ttl: mem::take(&mut all.jwt_svid_ttl),
        expires_at: mem::take(&mut all.expires_at),
        dns_names: mem::take(&mut all.dns_names),
        ..types::Entry::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::entry::NewEntry;
    use crate::facts::mask::{agent_entry_mask, mask_entry};

    fn wire() -> types::Entry {
        let id = |path: &str| Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() });
        types::Entry {
            id: "e".into(),
            spiffe_id: id("/w"),
            parent_id: id("/p"),
            selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }],
            x509_svid_ttl: 60,
            jwt_svid_ttl: 61,
            expires_at: 62,
            dns_names: vec!["a.test".into()],
            hint: "h".into(),
            downstream: true,
            ..types::Entry::default()
        }
    }

    fn entry(wire: &types::Entry) -> RegistrationEntry {
        let trust_domain = TrustDomain::new("example.org").expect("legal");
        NewEntry::from_pb(wire, &trust_domain).expect("legal").register(String::new(), 5)
    }

    #[test]
    fn the_agents_view_is_a_prefix_of_the_whole() {
        let entry = entry(&wire());
        let stored = StoredEntry::new(1, &entry, id_key(entry.parent_id()).into());
        assert_eq!(types::Entry::decode(&stored.whole()[..]).expect("protobuf"), entry.to_pb());
        let for_agents = types::Entry::decode(stored.for_agents()).expect("protobuf");
        assert_eq!(for_agents, mask_entry(entry.to_pb(), Some(&agent_entry_mask())));
        assert!(stored.whole().starts_with(stored.for_agents()));
    }

    #[test]
    fn a_key_is_the_message_of_its_id() {
        let longest = format!("/{}", "x".repeat(2000));
        for path in ["", "/w", &longest] {
            let id = TrustDomain::new("example.org").expect("legal").id_with_path(path).expect("legal");
            assert_eq!(id_key(&id), id.to_pb().encode_to_vec());
        }
    }

    #[test]
    fn what_indexes_need_is_read_out_of_the_wire_form() {
        let long = "x".repeat(255);
        for (id, parent) in [("e", "/p"), (&*long, "/spire/server")] {
            let parent_id = Some(types::Spiffeid { trust_domain: "example.org".into(), path: parent.into() });
            let entry = entry(&types::Entry { id: id.into(), parent_id, ..wire() });
            let stored = StoredEntry::new(1, &entry, id_key(entry.parent_id()).into());
            assert_eq!((stored.id(), stored.spiffe_id()), (id, entry.spiffe_id().clone()));
            assert_eq!(stored.spiffe_id_key(), id_key(entry.spiffe_id()));
            assert_eq!(stored.parent_key(), id_key(entry.parent_id()));
            assert_eq!(stored.entry(), entry);
        }
    }

    #[test]
    fn expires_at_the_second_it_names_and_zero_is_never() {
        let at = |expires_at| {
            let entry = entry(&types::Entry { expires_at, ..wire() });
            StoredEntry::new(1, &entry, id_key(entry.parent_id()).into())
        };
        assert!(!at(0).is_expired(i64::MAX));
        assert!(!at(10).is_expired(9) && at(10).is_expired(10));
    }
}
