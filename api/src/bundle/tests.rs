use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PublicKeyData};
use serde_json::{Value, json};

use super::*;

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

fn certificate(is_ca: IsCa) -> Bytes {
    let mut params = CertificateParams::default();
    params.is_ca = is_ca;
    params.self_signed(&KeyPair::generate().expect("key")).expect("signed").der().to_vec().into()
}

fn ca() -> Bytes {
    certificate(IsCa::Ca(BasicConstraints::Unconstrained))
}

fn key(key_id: &str) -> types::JwtKey {
    let public_key = KeyPair::generate().expect("key").subject_public_key_info().into();
    types::JwtKey { public_key, key_id: key_id.to_owned(), expires_at: 9, tainted: true }
}

fn wire() -> types::Bundle {
    let authority = |asn1| types::X509Certificate { asn1, tainted: true };
    types::Bundle {
        trust_domain: "spiffe://td".to_owned(),
        x509_authorities: vec![authority(ca()), authority(ca())],
        jwt_authorities: vec![key("b"), key("a")],
        refresh_hint: 300,
        sequence_number: 7,
        wit_authorities: Vec::new(),
    }
}

fn read(text: &str) -> Result<ReadBundle, DocumentError> {
    Bundle::from_document(td(), text.as_bytes())
}

#[test]
fn a_bundle_is_taken_with_its_keys_in_order_and_without_taints() {
    let asked = wire();
    let taken = Bundle::from_pb(&asked).expect("legal");
    assert_eq!((taken.trust_domain(), taken.refresh_hint_seconds(), taken.sequence_number()), (&td(), 300, 7));
    let found: Vec<&[u8]> = taken.x509_authorities().collect();
    assert_eq!(found, asked.x509_authorities.iter().map(|a| &a.asn1[..]).collect::<Vec<_>>());
    assert!(taken.to_pb().x509_authorities.iter().all(|authority| !authority.tainted));
    let keys: Vec<_> = taken.to_pb().jwt_authorities.iter().map(|key| (key.key_id.as_str(), key.tainted)).collect();
    assert_eq!(keys, [("a", false), ("b", false)]);
    assert_eq!(Bundle::from_pb(taken.to_pb()), Ok(taken));
}

#[test]
fn an_authority_with_a_key_of_ml_dsa_is_written_as_jose_has_it_and_read_back() {
    let kinds = [&rcgen::PKCS_ML_DSA_44, &rcgen::PKCS_ML_DSA_65, &rcgen::PKCS_ML_DSA_87];
    for (kind, set) in kinds.into_iter().zip(crate::MlDsa::ALL) {
        let key = KeyPair::generate_for(kind).expect("key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let asn1: Bytes = params.self_signed(&key).expect("signed").der().to_vec().into();
        let x509_authorities = vec![types::X509Certificate { asn1: asn1.clone(), tainted: false }];
        let text = document(&types::Bundle { x509_authorities, ..wire() }).expect("a known kind");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let jwk = &json["keys"][0];
        assert_eq!((&jwk["use"], &jwk["kty"], &jwk["alg"]), (&json!("x509-svid"), &json!("AKP"), &json!(set.name())));
        let public = jwk["pub"].as_str().expect("a text");
        assert_eq!(public.len(), set.public_key_bytes().div_ceil(3) * 4 - (3 - set.public_key_bytes() % 3) % 3);
        let read = read(&text).expect("taken").bundle;
        assert_eq!(read.x509_authorities().collect::<Vec<_>>(), [&asn1[..]]);
    }
}

#[test]
fn a_bundle_without_keys_is_one_that_believes_nobody() {
    let nobody = types::Bundle { trust_domain: "td".to_owned(), ..types::Bundle::default() };
    assert!(Bundle::from_pb(&nobody).expect("legal").is_empty());
    assert!(read(r#"{"keys":[]}"#).expect("legal").bundle.is_empty());
    assert!(!Bundle::from_pb(&wire()).expect("legal").is_empty());
}

#[test]
fn each_thing_that_is_wrong_with_a_bundle_is_refused_by_its_name() {
    let refused = |change: &dyn Fn(&mut types::Bundle)| {
        let mut wire = wire();
        change(&mut wire);
        Bundle::from_pb(&wire).expect_err("refused")
    };
    let many = |count: usize| types::Bundle { x509_authorities: vec![Default::default(); count], ..wire() };
    assert!(matches!(refused(&|wire| wire.trust_domain = "T".into()), BundleError::TrustDomain(_)));
    assert!(matches!(refused(&|wire| wire.x509_authorities[0].asn1 = vec![0].into()), BundleError::Authority(_)));
    let leaf = certificate(IsCa::NoCa);
    assert_eq!(refused(&|wire| wire.x509_authorities[0].asn1 = leaf.clone()), BundleError::NotAnAuthority);
    assert_eq!(refused(&|wire| wire.jwt_authorities[0].key_id.clear()), BundleError::JwtAuthority);
    assert_eq!(refused(&|wire| wire.jwt_authorities[0].public_key = vec![1].into()), BundleError::JwtAuthority);
    assert_eq!(refused(&|wire| wire.jwt_authorities[0].key_id = "a".into()), BundleError::DuplicateKeyId("a".into()));
    assert_eq!(refused(&|wire| wire.refresh_hint = -1), BundleError::RefreshHint);
    let limit = MAX_X509_AUTHORITIES;
    assert_eq!(refused(&|wire| *wire = many(limit + 1)), BundleError::TooMany { what: "X.509 authorities", limit });
    let keys = vec![types::JwtKey::default(); MAX_JWT_AUTHORITIES + 1];
    let too_many = refused(&|wire| wire.jwt_authorities.clone_from(&keys));
    assert_eq!(too_many, BundleError::TooMany { what: "JWT authorities", limit: MAX_JWT_AUTHORITIES });
}

#[test]
fn a_bundle_has_a_largest_size() {
    let mut params = CertificateParams::new(vec!["x".repeat(250); 30]).expect("legal");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let large: Bytes = params.self_signed(&KeyPair::generate().expect("key")).expect("root").der().to_vec().into();
    let of = |count: usize| types::Bundle {
        x509_authorities: vec![types::X509Certificate { asn1: large.clone(), tainted: false }; count],
        ..wire()
    };
    let fitting = MAX_BUNDLE_BYTES / (large.len() + 10) - 1;
    assert!(Bundle::from_pb(&of(fitting)).is_ok());
    assert_eq!(Bundle::from_pb(&of(fitting + 2)), Err(BundleError::TooLarge));
}

//= X509-16 JWT-09 TDB-03
#[test]
fn a_document_says_what_each_key_is_for_and_is_read_back_as_it_was() {
    let bundle = Bundle::from_pb(&wire()).expect("legal");
    let text = document(bundle.to_pb()).expect("P-256 keys");
    assert!(text.starts_with("{\n    \"keys\": [\n        {\n            \"use\": \"x509-svid\""), "{text}");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&json["spiffe_sequence"], &json["spiffe_refresh_hint"]), (&7.into(), &300.into()));
    let (x509, jwt) = (&json["keys"][0], &json["keys"][2]);
    assert_eq!((x509["kty"].as_str(), x509["crv"].as_str(), x509.get("kid")), (Some("EC"), Some("P-256"), None));
    assert_eq!(x509["x5c"].as_array().map(Vec::len), Some(1));
    assert_eq!((&jwt["use"], &jwt["kid"], jwt.get("x5c")), (&"jwt-svid".into(), &"a".into(), None));
    // Documents do not say when a key ends.
    let mut expected = bundle.to_pb().clone();
    expected.jwt_authorities.iter_mut().for_each(|key| key.expires_at = 0);
    let again = read(&text).expect("what was written");
    assert_eq!((again.bundle.to_pb(), again.passed_over), (&expected, 0));
}

#[test]
fn a_document_without_numbers_has_none_and_says_none() {
    let wire = types::Bundle { refresh_hint: 0, sequence_number: 0, ..wire() };
    let text = document(&wire).expect("P-256 keys");
    assert!(!text.contains("spiffe_"), "{text}");
    let bundle = read(&text).expect("legal").bundle;
    assert_eq!((bundle.refresh_hint_seconds(), bundle.sequence_number()), (0, 0));
}

#[test]
fn keys_for_openid_are_those_of_jwt_svids_without_their_use() {
    let json: Value = serde_json::from_str(&jwks(&wire().jwt_authorities, None).expect("keys")).expect("JSON");
    let keys = json["keys"].as_array().expect("a list");
    assert_eq!(keys.iter().map(|key| key["kid"].as_str()).collect::<Vec<_>>(), [Some("b"), Some("a")]);
    assert!(keys.iter().all(|key| key.get("use").is_none() && key.get("x5c").is_none() && key["alg"] == "ES256"));
}

//= TDB-01 TDB-05 X509-18 X509-19
#[test]
fn what_the_standard_has_ignored_is_passed_over_and_counted() {
    let text = document(&wire()).expect("P-256 keys");
    let mut json: Value = serde_json::from_str(&text).expect("JSON");
    let keys = json["keys"].as_array_mut().expect("a list");
    let first = keys[0].clone();
    keys[0]["x5c"].as_array_mut().expect("a list").push("nonsense".into());
    for other in [
        json!({ "use": "wit-svid", "kty": "EC" }),
        json!({ "kty": "EC", "x5c": first["x5c"] }),
        json!({ "use": "x509-svid" }),
        json!({ "use": "x509-svid", "x5c": [] }),
        json!({ "use": "jwt-svid", "kid": "c", "kty": "OKP", "crv": "Ed25519", "x": "AA" }),
        json!({ "use": "jwt-svid", "kid": "d", "kty": "EC", "crv": "secp256k1" }),
    ] {
        keys.push(other);
    }
    json["something_new"] = json!({ "a": [1] });
    let found = read(&json.to_string()).expect("taken");
    assert_eq!(found.passed_over, 6);
    assert_eq!((found.bundle.x509_authorities().len(), found.bundle.to_pb().jwt_authorities.len()), (2, 2));
}

//= FED-14
#[test]
fn each_thing_that_is_wrong_with_a_document_is_refused_by_its_name_and_nothing_is_taken() {
    let good: Value = serde_json::from_str(&document(&wire()).expect("P-256 keys")).expect("JSON");
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut json = good.clone();
        change(&mut json);
        read(&json.to_string()).expect_err("refused")
    };
    let key = |why: &str, found: DocumentError| {
        assert!(matches!(&found, DocumentError::Key { place: 2, why: said } if said.contains(why)), "{found}");
    };
    assert_eq!(read(&" ".repeat(MAX_DOCUMENT_BYTES + 1)), Err(DocumentError::TooLong));
    for text in ["", "[]", "{", r#"{"keys":[],"keys":[]}"#, &format!(r#"{{"keys":{}"#, "[".repeat(9999))] {
        assert!(matches!(read(text), Err(DocumentError::Json(_))), "{text}");
    }
    assert_eq!(refused(&|json| json["keys"] = Value::Null), DocumentError::NoKeys);
    assert_eq!(refused(&|json| json["keys"] = vec![json!({}); 1025].into()), DocumentError::TooManyKeys);
    for number in [json!(-1), json!(1.5), json!("1")] {
        let name = "spiffe_sequence";
        assert_eq!(refused(&|json| json[name] = number.clone()), DocumentError::Number(name));
    }
    key("no kid", refused(&|json| json["keys"][2]["kid"] = "".into()));
    key("base64url", refused(&|json| json["keys"][2]["x"] = "+/".into()));
    key("another length", refused(&|json| json["keys"][2]["x"] = "AAAA".into()));
    key("not a JSON object", refused(&|json| json["keys"][2] = 1.into()));
    key("certificate", refused(&|json| json["keys"][2] = json!({ "use": "x509-svid", "x5c": ["%"] })));
    key("no list", refused(&|json| json["keys"][2] = json!({ "use": "x509-svid", "x5c": "a" })));
    let off_the_curve = refused(&|json| json["keys"][2]["x"] = json["keys"][3]["x"].clone());
    assert_eq!(off_the_curve, DocumentError::Bundle(BundleError::JwtAuthority));
}

#[test]
fn keys_of_every_kind_are_written_and_read_back() {
    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256};
    for kind in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ECDSA_P521_SHA512, &PKCS_RSA_SHA256] {
        let public_key = KeyPair::generate_for(kind).expect("key").subject_public_key_info().into();
        let key = types::JwtKey { public_key, key_id: "k".to_owned(), ..types::JwtKey::default() };
        let wire = types::Bundle { trust_domain: "td".to_owned(), jwt_authorities: vec![key], ..Default::default() };
        let text = document(&wire).expect("a known kind");
        assert_eq!(read(&text).expect("taken").bundle.to_pb(), &wire, "{text}");
    }
}
