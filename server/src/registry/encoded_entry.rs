//! An entry's wire form, made once when the entry is stored.

use prost::Message;
use prost::bytes::Bytes;

use crate::facts::entry::RegistrationEntry;
use crate::facts::mask::{agent_entry_mask, mask_entry};
use ironroot_api::pb::types;

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

#[cfg(test)]
mod tests {
    use ironroot_api::TrustDomain;

    use super::*;
    use crate::facts::entry::NewEntry;

    #[test]
    fn the_agents_view_is_a_prefix_of_the_whole() {
        let id = |path: &str| Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() });
        let wire = types::Entry {
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
        };
        let trust_domain = TrustDomain::new("example.org").expect("legal");
        let entry = NewEntry::from_pb(&wire, &trust_domain).expect("legal").register(String::new(), 5);
        let encoded = EncodedEntry::of(&entry);
        assert_eq!(types::Entry::decode(encoded.whole()).expect("protobuf"), entry.to_pb());
        let for_agents = types::Entry::decode(encoded.for_agents()).expect("protobuf");
        assert_eq!(for_agents, mask_entry(entry.to_pb(), Some(&agent_entry_mask())));
        assert!(encoded.whole().starts_with(&encoded.for_agents()));
    }
}
