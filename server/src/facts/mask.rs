//! Masks: which fields of an answer are filled, which fields of an update are taken.
//!
//! No mask means all fields. The ID is always kept. Source: SPIRE API SDK, comments of `EntryMask` and `AgentMask`.

use ironroot_api::pb::types;

/// The mask SPIRE's agents ask for entries with.
pub fn agent_entry_mask() -> types::EntryMask {
    types::EntryMask {
        spiffe_id: true,
        selectors: true,
        federates_with: true,
        admin: true,
        downstream: true,
        revision_number: true,
        store_svid: true,
        hint: true,
        created_at: true,
        additional_attributes: true,
        parent_id: false,
        x509_svid_ttl: false,
        expires_at: false,
        dns_names: false,
        jwt_svid_ttl: false,
    }
}

/// `entry` with only its ID and the fields that `mask` names.
pub fn mask_entry(entry: types::Entry, mask: Option<&types::EntryMask>) -> types::Entry {
    match mask {
        None => entry,
        Some(mask) => {
            let id = entry.id.clone();
            types::Entry { id, ..merge_entry(types::Entry::default(), &entry, mask) }
        }
    }
}

/// `base` with the fields that `mask` names taken from `from`. The ID is the base's.
pub fn merge_entry(mut base: types::Entry, from: &types::Entry, mask: &types::EntryMask) -> types::Entry {
    macro_rules! take {
        ($($field:ident)*) => { $(if mask.$field { base.$field.clone_from(&from.$field); })* };
    }
    take!(spiffe_id parent_id selectors x509_svid_ttl federates_with admin downstream expires_at dns_names);
    take!(revision_number store_svid jwt_svid_ttl hint created_at additional_attributes);
    base
}

/// `agent` with only its ID and the fields that `mask` names.
pub fn mask_agent(agent: types::Agent, mask: Option<&types::AgentMask>) -> types::Agent {
    let Some(mask) = mask else { return agent };
    let mut masked = types::Agent { id: agent.id.clone(), ..types::Agent::default() };
    macro_rules! take {
        ($($field:ident)*) => { $(if mask.$field { masked.$field = agent.$field; })* };
    }
    take!(attestation_type x509svid_serial_number x509svid_expires_at selectors banned can_reattest agent_version);
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry whose every field differs from its default.
    fn full_entry() -> types::Entry {
        let id = |path: &str| Some(types::Spiffeid { trust_domain: "td".into(), path: path.into() });
        types::Entry {
            id: "e".into(),
            spiffe_id: id("/w"),
            parent_id: id("/p"),
            selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }],
            x509_svid_ttl: 1,
            federates_with: vec!["other".into()],
            admin: true,
            downstream: true,
            expires_at: 2,
            dns_names: vec!["d".into()],
            revision_number: 3,
            store_svid: true,
            jwt_svid_ttl: 4,
            hint: "h".into(),
            created_at: 5,
            additional_attributes: Some(types::entry::AdditionalAttributes {
                disable_x509_svid_prefetch: true,
                jwt_svid_include_jti: false,
            }),
        }
    }

    //= REG-10
    /// SPIRE once copied `admin` into `downstream` while masking (#6636): each bit must move its own field and no other.
    #[test]
    fn each_mask_bit_moves_exactly_its_own_field() {
        macro_rules! check {
            ($($field:ident)*) => { $({
                let mask = types::EntryMask { $field: true, ..types::EntryMask::default() };
                let expected = types::Entry { id: "e".into(), $field: full_entry().$field, ..types::Entry::default() };
                assert_eq!(mask_entry(full_entry(), Some(&mask)), expected, stringify!($field));
            })* };
        }
        check!(spiffe_id parent_id selectors x509_svid_ttl federates_with admin downstream expires_at dns_names);
        check!(revision_number store_svid jwt_svid_ttl hint created_at additional_attributes);
    }

    #[test]
    fn no_mask_keeps_all_and_an_empty_mask_keeps_the_id() {
        assert_eq!(mask_entry(full_entry(), None), full_entry());
        let empty = mask_entry(full_entry(), Some(&types::EntryMask::default()));
        assert_eq!(empty, types::Entry { id: "e".into(), ..types::Entry::default() });
    }

    #[test]
    fn masks_agents_field_by_field() {
        let agent = types::Agent {
            id: Some(types::Spiffeid { trust_domain: "td".into(), path: "/spire/agent/x".into() }),
            attestation_type: "tpm2".into(),
            x509svid_serial_number: "1".into(),
            x509svid_expires_at: 2,
            selectors: vec![types::Selector { r#type: "tpm2".into(), value: "x".into() }],
            banned: true,
            can_reattest: true,
            agent_version: "v".into(),
        };
        macro_rules! check {
            ($($field:ident)*) => { $({
                let mask = types::AgentMask { $field: true, ..types::AgentMask::default() };
                let base = types::Agent { id: agent.id.clone(), ..types::Agent::default() };
                let expected = types::Agent { $field: agent.$field.clone(), ..base };
                assert_eq!(mask_agent(agent.clone(), Some(&mask)), expected, stringify!($field));
            })* };
        }
        check!(attestation_type x509svid_serial_number x509svid_expires_at selectors banned can_reattest agent_version);
        assert_eq!(mask_agent(agent.clone(), None), agent);
    }
}
