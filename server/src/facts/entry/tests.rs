//! Bounds, updates and wire form of entries.

use super::*;
use ironroot_api::SpiffeIdError;

fn td() -> TrustDomain {
    TrustDomain::new("example.org").expect("legal")
}

fn id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
}

fn selector(text: &str) -> types::Selector {
    let (kind, value) = text.split_once(':').expect("type:value");
    types::Selector { r#type: kind.into(), value: value.into() }
}

fn smallest() -> types::Entry {
    types::Entry {
        spiffe_id: id("/w"),
        parent_id: id("/spire/agent/x"),
        selectors: vec![selector("unix:uid:1")],
        ..types::Entry::default()
    }
}

fn largest() -> types::Entry {
    types::Entry {
        id: "E-1.a_b".into(),
        selectors: vec![selector("unix:gid:2"), selector("unix:uid:1")],
        x509_svid_ttl: i32::MAX,
        federates_with: vec!["a.test".into(), "b.test".into()],
        admin: true,
        downstream: true,
        expires_at: i64::MAX,
        dns_names: vec!["z.test".into(), "*.a.test".into()],
        revision_number: 7,
        store_svid: true,
        jwt_svid_ttl: 1,
        hint: "h".repeat(MAX_HINT_BYTES),
        created_at: 9,
        additional_attributes: Some(types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: true,
            jwt_svid_include_jti: true,
        }),
        ..smallest()
    }
}

fn refusal(change: impl FnOnce(&mut types::Entry)) -> EntryError {
    let mut entry = smallest();
    change(&mut entry);
    NewEntry::from_pb(&entry, &td()).expect_err("refused")
}

//= FLT-A24
#[test]
fn each_bound_has_its_refusal() {
    use SpiffeIdError as Id;
    let other = || Some(types::Spiffeid { trust_domain: "other.org".into(), path: "/x".into() });
    let other_td = || Id::OtherTrustDomain { found: "other.org".into(), expected: "example.org".into() };
    for bad in ["a b", "é", "a/b", "a:b", &"a".repeat(256)] {
        assert_eq!(refusal(|e| e.id = bad.into()), EntryError::Id, "{bad}");
    }
    assert_eq!(refusal(|e| e.spiffe_id = None), EntryError::SpiffeId(Id::Missing));
    assert_eq!(refusal(|e| e.spiffe_id = id("")), EntryError::SpiffeId(Id::NoPath));
    assert_eq!(refusal(|e| e.spiffe_id = id("/a/../b")), EntryError::SpiffeId(Id::Path));
    assert_eq!(refusal(|e| e.spiffe_id = other()), EntryError::SpiffeId(other_td()));
    for path in ["/spire", "/spire/server", "/spire/agent/x"] {
        assert_eq!(refusal(|e| e.spiffe_id = id(path)), EntryError::Reserved, "{path}");
    }
    assert_eq!(refusal(|e| e.parent_id = None), EntryError::ParentId(Id::Missing));
    assert_eq!(refusal(|e| e.parent_id = id("")), EntryError::ParentId(Id::NoPath));
    assert_eq!(refusal(|e| e.parent_id = other()), EntryError::ParentId(other_td()));
    assert_eq!(refusal(|e| e.selectors.clear()), EntryError::NoSelectors);
    assert!(matches!(refusal(|e| e.selectors[0].value.clear()), EntryError::Selector(_)));
    let many = |e: &mut types::Entry| e.selectors = (0..=MAX_SELECTORS).map(|n| selector(&format!("a:{n}"))).collect();
    assert_eq!(refusal(many), EntryError::TooMany { what: "selectors", limit: MAX_SELECTORS });
    assert_eq!(refusal(|e| e.x509_svid_ttl = -1), EntryError::Negative("X.509-SVID TTL"));
    assert_eq!(refusal(|e| e.jwt_svid_ttl = -1), EntryError::Negative("JWT-SVID TTL"));
    assert_eq!(refusal(|e| e.expires_at = -1), EntryError::Negative("entry expiry"));
    assert!(matches!(refusal(|e| e.federates_with = vec!["A.test".into()]), EntryError::FederatesWith(_)));
    assert_eq!(refusal(|e| e.dns_names = vec!["a b".into()]), EntryError::DnsName("a b".into()));
    assert_eq!(refusal(|e| e.hint = "h".repeat(MAX_HINT_BYTES + 1)), EntryError::Hint);
    assert_eq!(refusal(|e| e.hint = "a\nb".into()), EntryError::Hint);
    let mixed = |e: &mut types::Entry| {
        e.store_svid = true;
        e.selectors.push(selector("other:x"));
    };
    assert_eq!(refusal(mixed), EntryError::MixedSelectorTypes);
}

#[test]
fn parents_may_be_the_server_agents_and_other_entries() {
    for parent in ["/spire/server", "/spire/agent/tpm2/x", "/w"] {
        let entry = types::Entry { parent_id: id(parent), ..smallest() };
        assert!(NewEntry::from_pb(&entry, &td()).is_ok(), "{parent}");
    }
}

#[test]
fn a_new_entry_starts_at_revision_zero_whatever_the_message_says() {
    let entry = NewEntry::from_pb(&largest(), &td()).expect("legal").register("generated".into(), 5);
    assert_eq!((entry.id(), entry.revision_number(), entry.created_at()), ("E-1.a_b", 0, 5));
    let entry = NewEntry::from_pb(&smallest(), &td()).expect("legal").register("generated".into(), 5);
    assert_eq!(entry.id(), "generated");
}

/// The entry at the moment that the message names, at revision 0.
fn stored(wire: &types::Entry) -> RegistrationEntry {
    NewEntry::from_pb(wire, &td()).expect("legal").register("generated".into(), wire.created_at)
}

#[test]
fn a_dns_name_that_is_given_twice_stands_once_in_the_entry() {
    let dns_names = ["b", "a", "b", "_srv._tcp.c"].map(str::to_owned).to_vec();
    let entry = types::Entry { id: "e".into(), dns_names, ..smallest() };
    let entry = stored(&entry);
    assert_eq!(entry.dns_names(), ["b", "a", "_srv._tcp.c"]);
}

#[test]
fn wire_form_round_trips_and_keeps_the_order_of_dns_names() {
    for wire in [largest(), types::Entry { id: "x".into(), ..smallest() }] {
        let entry = stored(&wire);
        assert_eq!(entry.to_pb(), types::Entry { revision_number: 0, ..wire });
    }
}

#[test]
fn an_update_takes_what_the_mask_names_and_counts_up() {
    let stored = stored(&largest());
    let from = types::Entry { id: "E-1.a_b".into(), hint: "new".into(), created_at: 99, ..smallest() };
    let mask = types::EntryMask { hint: true, revision_number: true, created_at: true, ..Default::default() };
    let updated = stored.updated(&from, Some(&mask), &td()).expect("legal");
    assert_eq!(updated.to_pb(), types::Entry { hint: "new".into(), revision_number: 1, ..largest() });
    let replaced = stored.updated(&from, None, &td()).expect("legal");
    assert_eq!(replaced.to_pb(), types::Entry { revision_number: 1, created_at: 9, ..from.clone() });
    let emptied = types::EntryMask { selectors: true, ..Default::default() };
    let none = types::Entry { selectors: vec![], ..from };
    assert_eq!(stored.updated(&none, Some(&emptied), &td()), Err(EntryError::NoSelectors));
}

#[test]
fn a_masked_update_is_checked_as_a_whole() {
    let stored = stored(&types::Entry { id: "x".into(), ..smallest() });
    let from = types::Entry { selectors: vec![selector("a:1"), selector("b:2")], store_svid: true, ..smallest() };
    let both = types::EntryMask { selectors: true, store_svid: true, ..Default::default() };
    assert_eq!(stored.updated(&from, Some(&both), &td()), Err(EntryError::MixedSelectorTypes));
}
