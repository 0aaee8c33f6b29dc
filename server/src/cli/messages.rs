//! The server's messages in JSON, with the names and forms of protocol buffers' own JSON: every field is there, set or not,
//! except messages that are absent.

use ironroot_api::pb::types::federation_relationship::BundleEndpointProfile;
use ironroot_api::pb::types::{
    Agent, Bundle, Entry, FederationRelationship, JwtKey, Jwtsvid, Selector, Spiffeid, Status, WitKey, Witsvid,
};
use ironroot_shell::command_line::{base64, int64};
use serde_json::{Map, Value, json};

pub(super) fn entry(entry: &Entry) -> Value {
    let mut fields = object(json!({
        "id": entry.id,
        "selectors": selectors(&entry.selectors),
        "x509_svid_ttl": entry.x509_svid_ttl,
        "federates_with": entry.federates_with,
        "admin": entry.admin,
        "downstream": entry.downstream,
        "expires_at": int64(entry.expires_at),
        "dns_names": entry.dns_names,
        "revision_number": int64(entry.revision_number),
        "store_svid": entry.store_svid,
        "jwt_svid_ttl": entry.jwt_svid_ttl,
        "hint": entry.hint,
        "created_at": int64(entry.created_at),
    }));
    put(&mut fields, "spiffe_id", entry.spiffe_id.as_ref().map(spiffe_id));
    put(&mut fields, "parent_id", entry.parent_id.as_ref().map(spiffe_id));
    let attributes = entry.additional_attributes.as_ref().map(|attributes| {
        json!({
            "disable_x509_svid_prefetch": attributes.disable_x509_svid_prefetch,
            "jwt_svid_include_jti": attributes.jwt_svid_include_jti,
        })
    });
    put(&mut fields, "additional_attributes", attributes);
    Value::Object(fields)
}

/// One result of a batch call.
pub(super) fn result(status: Option<&Status>, name: &str, value: Option<Value>) -> Value {
    let mut fields = Map::new();
    put(&mut fields, "status", status.map(|status| json!({ "code": status.code, "message": status.message })));
    put(&mut fields, name, value);
    Value::Object(fields)
}

pub(super) fn agent(agent: &Agent) -> Value {
    let mut fields = object(json!({
        "attestation_type": agent.attestation_type,
        "x509svid_serial_number": agent.x509svid_serial_number,
        "x509svid_expires_at": int64(agent.x509svid_expires_at),
        "selectors": selectors(&agent.selectors),
        "banned": agent.banned,
        "can_reattest": agent.can_reattest,
        "agent_version": agent.agent_version,
    }));
    put(&mut fields, "id", agent.id.as_ref().map(spiffe_id));
    Value::Object(fields)
}

pub(super) fn jwt_svid(svid: &Jwtsvid) -> Value {
    let mut fields = object(json!({
        "token": svid.token,
        "expires_at": int64(svid.expires_at),
        "issued_at": int64(svid.issued_at),
        "hint": svid.hint,
    }));
    put(&mut fields, "id", svid.id.as_ref().map(spiffe_id));
    Value::Object(fields)
}

pub(super) fn wit_svid(svid: &Witsvid) -> Value {
    let Witsvid { token, id, expires_at, issued_at, hint } = svid.clone();
    jwt_svid(&Jwtsvid { token, id, expires_at, issued_at, hint })
}

pub(super) fn bundle(bundle: &Bundle) -> Value {
    let x509: Vec<Value> = bundle
        .x509_authorities
        .iter()
        .map(|authority| json!({ "asn1": base64(&authority.asn1), "tainted": authority.tainted }))
        .collect();
    let jwt: Vec<Value> = bundle.jwt_authorities.iter().map(jwt_key).collect();
    let wit: Vec<Value> = bundle.wit_authorities.iter().map(wit_key).collect();
    json!({
        "trust_domain": bundle.trust_domain,
        "x509_authorities": x509,
        "jwt_authorities": jwt,
        "wit_authorities": wit,
        "refresh_hint": int64(bundle.refresh_hint),
        "sequence_number": bundle.sequence_number.to_string(),
    })
}

fn jwt_key(key: &JwtKey) -> Value {
    json!({
        "public_key": base64(&key.public_key),
        "key_id": key.key_id,
        "expires_at": int64(key.expires_at),
        "tainted": key.tainted,
    })
}

fn wit_key(key: &WitKey) -> Value {
    let WitKey { public_key, key_id, expires_at, tainted } = key.clone();
    jwt_key(&JwtKey { public_key, key_id, expires_at, tainted })
}

pub(super) fn relationship(relationship: &FederationRelationship) -> Value {
    let mut fields = object(json!({
        "trust_domain": relationship.trust_domain,
        "bundle_endpoint_url": relationship.bundle_endpoint_url,
    }));
    match &relationship.bundle_endpoint_profile {
        Some(BundleEndpointProfile::HttpsWeb(_)) => put(&mut fields, "https_web", Some(json!({}))),
        Some(BundleEndpointProfile::HttpsSpiffe(spiffe)) => {
            let profile = json!({ "endpoint_spiffe_id": spiffe.endpoint_spiffe_id });
            put(&mut fields, "https_spiffe", Some(profile));
        }
        None => {}
    }
    put(&mut fields, "trust_domain_bundle", relationship.trust_domain_bundle.as_ref().map(bundle));
    Value::Object(fields)
}

fn spiffe_id(id: &Spiffeid) -> Value {
    json!({ "trust_domain": id.trust_domain, "path": id.path })
}

fn selectors(selectors: &[Selector]) -> Value {
    selectors.iter().map(|selector| json!({ "type": selector.r#type, "value": selector.value })).collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn put(fields: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        fields.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_there_set_or_not_and_absent_messages_are_not() {
        let wanted = r#"{"admin":false,"created_at":"0","dns_names":[],"downstream":false,"expires_at":"0","federates_with":[],"hint":"","id":"","jwt_svid_ttl":0,"revision_number":"0","selectors":[],"store_svid":false,"x509_svid_ttl":0}"#;
        assert_eq!(entry(&Entry::default()).to_string(), wanted);
        let id = Spiffeid { trust_domain: "td".into(), path: "/a".into() };
        let selector = Selector { r#type: "unix".into(), value: "uid:1".into() };
        let full = Agent { id: Some(id), selectors: vec![selector], x509svid_expires_at: 1 << 40, ..Agent::default() };
        let wanted = r#"{"agent_version":"","attestation_type":"","banned":false,"can_reattest":false,"id":{"path":"/a","trust_domain":"td"},"selectors":[{"type":"unix","value":"uid:1"}],"x509svid_expires_at":"1099511627776","x509svid_serial_number":""}"#;
        assert_eq!(agent(&full).to_string(), wanted);
    }
}
