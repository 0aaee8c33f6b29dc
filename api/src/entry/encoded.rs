//! An entry's wire form, made once when the entry is stored.

use prost::Message;
use prost::bytes::Bytes;

use super::RegistrationEntry;
use crate::mask::{agent_entry_mask, mask_entry};
use crate::pb::types;

/// `spire.api.types.Entry` as bytes, the fields that agents ask for first.
///
/// Protobuf lets fields come in any order, so what an agent sees is a prefix of the whole and needs no second copy.
#[derive(Clone, Debug)]
pub struct EncodedEntry {
    whole: Bytes,
    agent_bytes: usize,
}

impl EncodedEntry {
    /// Encodes `entry`.
    pub fn of(entry: &RegistrationEntry) -> Self {
        let all = entry.to_pb();
        let for_agents = mask_entry(all.clone(), Some(&agent_entry_mask()));
        let mut bytes = for_agents.encode_to_vec();
        let agent_bytes = bytes.len();
        bytes.extend(without_agent_fields(all).encode_to_vec());
        Self { whole: bytes.into(), agent_bytes }
    }

    /// All fields.
    pub fn whole(&self) -> Bytes {
        self.whole.clone()
    }

    /// The fields of the mask that SPIRE's agents send: no parent, no TTLs, no DNS names, no expiry.
    pub fn for_agents(&self) -> Bytes {
        self.whole.slice(..self.agent_bytes)
    }
}

fn without_agent_fields(all: types::Entry) -> types::Entry {
    types::Entry {
        parent_id: all.parent_id,
        x509_svid_ttl: all.x509_svid_ttl,
        jwt_svid_ttl: all.jwt_svid_ttl,
        expires_at: all.expires_at,
        dns_names: all.dns_names,
        ..types::Entry::default()
    }
}
