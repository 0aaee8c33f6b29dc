//! JWT-SVIDs: what is believed, and each reason not to.

#[path = "support/signer.rs"]
mod signer;

use ironroot_api::jwt::{
    IssuerKeys, JwtAuthorities, JwtRefusal, LEEWAY, MAX_DEPTH, MAX_JWT_AUTHORITIES, MAX_KEY_ID_BYTES, MAX_TOKEN_BYTES,
    UnverifiedIdToken, UnverifiedJwtSvid,
};
use ironroot_api::pb::types::JwtKey;
use ironroot_api::{SpiffeIdError, TrustDomain};
use serde_json::{Value, json};
use signer::{Signer, encode};

const NOW: i64 = 1_800_000_000;

fn td(name: &str) -> TrustDomain {
    TrustDomain::new(name).expect("legal")
}

fn claims() -> Value {
    json!({ "sub": "spiffe://td/w", "aud": ["me", "others"], "iat": NOW, "exp": NOW + 300 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

/// Verified and judged as the Workload API does it.
fn judge(token: &str, authorities: &JwtAuthorities) -> Result<(), JwtRefusal> {
    let svid = UnverifiedJwtSvid::parse(token)?.verify(authorities)?;
    svid.expect_audience("me")?;
    svid.expect_not_ended(NOW)?;
    svid.expect_begun(NOW)
}

fn refused(token: &str, authorities: &JwtAuthorities) -> JwtRefusal {
    judge(token, authorities).expect_err("refused")
}

//= JWT-02
#[test]
fn a_token_is_believed_with_each_of_the_nine_algorithms_and_no_other() {
    for signer in Signer::of_every_algorithm() {
        let authorities = JwtAuthorities::from_wire(&td("td"), &[signer.wire("k")]);
        assert_eq!(authorities.left_out(), 0, "{}", signer.algorithm);
        let token = signer.sign(&claims());
        assert_eq!(judge(&token, &authorities), Ok(()), "{}", signer.algorithm);
        for other in ["none", "HS256", "EdDSA", "ES256K", "es256", "RS1", ""] {
            let forged = signer.sign_with(&json!({ "alg": other, "kid": "k" }), &claims());
            assert_eq!(refused(&forged, &authorities), JwtRefusal::Algorithm(other.to_owned()));
        }
    }
    let signer = Signer::new();
    let authorities = JwtAuthorities::from_wire(&td("td"), &[signer.wire("k")]);
    for header in [json!({ "kid": "k" }), json!({ "alg": 256, "kid": "k" }), json!({ "alg": ["ES256"], "kid": "k" })] {
        let forged = signer.sign_with(&header, &claims());
        assert_eq!(refused(&forged, &authorities), JwtRefusal::Algorithm(String::new()), "{header}");
    }
}

#[test]
fn a_key_is_used_only_by_algorithms_that_go_with_it() {
    let signers = Signer::of_every_algorithm();
    let authorities = JwtAuthorities::from_wire(&td("td"), &[signers[0].wire("k")]);
    for other in signers.iter().filter(|signer| signer.algorithm.starts_with("ES")) {
        assert_eq!(refused(&other.sign(&claims()), &authorities), JwtRefusal::OtherKey, "{}", other.algorithm);
    }
    let p256 = Signer::new();
    let authorities = JwtAuthorities::from_wire(&td("td"), &[p256.wire("k")]);
    for algorithm in ["ES384", "ES512", "RS256", "PS512"] {
        let forged = p256.sign_with(&json!({ "alg": algorithm, "kid": "k" }), &claims());
        assert_eq!(refused(&forged, &authorities), JwtRefusal::OtherKey, "{algorithm}");
    }
}

//= JWT-11
#[test]
fn a_signature_counts_by_the_keys_of_the_subjects_trust_domain_alone() {
    let (ours, theirs) = (Signer::new(), Signer::new());
    let authorities = JwtAuthorities::from_wire(&td("td"), &[ours.wire("k")]);
    assert_eq!(refused(&theirs.sign(&claims()), &authorities), JwtRefusal::Signature, "the same key ID");
    let foreign = ours.sign(&with("sub", json!("spiffe://other/w")));
    assert_eq!(refused(&foreign, &authorities), JwtRefusal::NoKeys(td("other")));
    let unknown = ours.sign_with(&json!({ "alg": "ES256", "kid": "K" }), &claims());
    let (key_id, trust_domain) = ("K".to_owned(), td("td"));
    assert_eq!(refused(&unknown, &authorities), JwtRefusal::UnknownKey { key_id, trust_domain });
    let mut changed = ours.sign(&claims());
    let tail = changed.split_off(changed.len() - 8);
    changed.push_str(&tail.chars().rev().collect::<String>());
    assert!(matches!(refused(&changed, &authorities), JwtRefusal::Signature | JwtRefusal::Encoding(_)));
}

//= JWT-01
#[test]
fn what_is_not_three_parts_of_base64url_json_is_refused_before_any_key_is_looked_at() {
    let signer = Signer::new();
    let none = JwtAuthorities::from_wire(&td("td"), &[]);
    let token = signer.sign(&claims());
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let json_serialization = json!({ "payload": payload, "protected": header, "signature": signature }).to_string();
    for text in [
        "",
        "x",
        "a.b",
        "a.b.c.d",
        "a.b.c.d.e",
        &".".repeat(MAX_TOKEN_BYTES),
        &json_serialization,
        &format!("{token}."),
    ] {
        assert_eq!(refused(text, &none), JwtRefusal::NotCompact, "{text:.40}");
    }
    assert_eq!(refused(&"a".repeat(MAX_TOKEN_BYTES + 1), &none), JwtRefusal::TooLong);
    for (text, part) in [
        (format!("{header}=.{payload}.{signature}"), "header"),
        (format!("{header}.{payload}\n.{signature}"), "payload"),
        (format!("{header}.{payload}.+/{signature}"), "signature"),
    ] {
        assert_eq!(refused(&text, &none), JwtRefusal::Encoding(part));
    }
    let header_of = |json: &str| format!("{}.{payload}.{signature}", encode(json.as_bytes()));
    let payload_of = |json: &str| format!("{header}.{}.{signature}", encode(json.as_bytes()));
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    for (text, expected) in [
        (header_of("[]"), "header"),
        (header_of(r#"{"alg":"ES256","alg":"none","kid":"k"}"#), "header"),
        (payload_of(r#"{"sub":"spiffe://td/a","sub":"spiffe://td/b"}"#), "payload"),
        (payload_of(&deep), "payload"),
        (payload_of("\"x\""), "payload"),
    ] {
        assert!(matches!(refused(&text, &none), JwtRefusal::Json { part, .. } if part == expected), "{text}");
    }
}

//= JWT-04
#[test]
fn headers_say_no_other_type_nothing_critical_and_always_a_key() {
    let signer = Signer::new();
    let authorities = JwtAuthorities::from_wire(&td("td"), &[signer.wire("k")]);
    let signed = |more: Value| {
        let mut header = json!({ "alg": "ES256", "kid": "k" });
        header.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        judge(&signer.sign_with(&header, &claims()), &authorities)
    };
    for typ in ["JWT", "JOSE"] {
        assert_eq!(signed(json!({ "typ": typ })), Ok(()));
    }
    for typ in ["at+jwt", "wit+jwt", "jwt", ""] {
        assert_eq!(signed(json!({ "typ": typ })), Err(JwtRefusal::Type(typ.to_owned())));
    }
    assert_eq!(signed(json!({ "typ": 1 })), Err(JwtRefusal::Type(String::new())));
    assert_eq!(signed(json!({ "crit": ["b64"], "b64": false })), Err(JwtRefusal::Critical));
    for kid in [json!(""), json!(1), json!(null), json!("k".repeat(MAX_KEY_ID_BYTES + 1))] {
        assert_eq!(signed(json!({ "kid": kid })), Err(JwtRefusal::KeyId), "{kid}");
    }
    assert_eq!(signed(json!({ "jwk": { "kty": "EC" }, "jku": "https://evil.example" })), Ok(()), "not looked at");
}

//= JWT-05 JWT-06 JWT-07
#[test]
fn claims_name_a_spiffe_id_the_audience_and_an_end_in_the_future() {
    let signer = Signer::new();
    let authorities = JwtAuthorities::from_wire(&td("td"), &[signer.wire("k")]);
    let judged = |claims: Value| judge(&signer.sign(&claims), &authorities);
    assert_eq!(judged(without("sub")), Err(JwtRefusal::NoSubject));
    assert_eq!(judged(with("sub", json!(["spiffe://td/w"]))), Err(JwtRefusal::NoSubject));
    assert_eq!(judged(with("sub", json!("https://td/w"))), Err(JwtRefusal::Subject(SpiffeIdError::Scheme)));
    assert_eq!(judged(with("aud", json!("me"))), Ok(()), "one text");
    for (aud, found) in [
        (None, vec![]),
        (Some(json!([])), vec![]),
        (Some(json!("m")), vec!["m".to_owned()]),
        (Some(json!(["ME", "me/"])), vec!["ME".to_owned(), "me/".to_owned()]),
    ] {
        let expected = ["me".to_owned()];
        let claims = aud.map_or_else(|| without("aud"), |aud| with("aud", aud));
        assert_eq!(judged(claims), Err(JwtRefusal::OtherAudience { expected, found }));
    }
    for aud in [json!(1), json!(["me", 1]), json!({ "me": 1 }), json!(null)] {
        assert_eq!(judged(with("aud", aud.clone())), Err(JwtRefusal::Audience), "{aud}");
    }
    assert_eq!(judged(without("exp")), Err(JwtRefusal::NoExpiry));
    for exp in [json!("1800000300"), json!(-1), json!(1e300), json!(u64::MAX), json!(253_402_300_800_i64), json!(null)]
    {
        assert_eq!(judged(with("exp", exp.clone())), Err(JwtRefusal::Date("exp")), "{exp}");
    }
    assert_eq!(judged(with("exp", json!(NOW as f64 + 0.5))), Ok(()), "a fraction is legal");
}

//= JWT-12
#[test]
fn a_token_holds_from_its_begin_to_its_end_and_a_minute_around_it() {
    let signer = Signer::new();
    let authorities = JwtAuthorities::from_wire(&td("td"), &[signer.wire("k")]);
    let judged = |claims: Value| judge(&signer.sign(&claims), &authorities);
    assert_eq!(judged(with("exp", json!(NOW - LEEWAY + 1))), Ok(()));
    assert_eq!(judged(with("exp", json!(NOW - LEEWAY))), Err(JwtRefusal::Expired));
    assert_eq!(judged(with("nbf", json!(NOW + LEEWAY))), Ok(()));
    assert_eq!(judged(with("nbf", json!(NOW + LEEWAY + 1))), Err(JwtRefusal::NotYet));
    assert_eq!(judged(with("iat", json!(NOW + LEEWAY))), Ok(()));
    assert_eq!(judged(with("iat", json!(NOW + LEEWAY + 1))), Err(JwtRefusal::FromTheFuture));
    assert_eq!(judged(with("nbf", json!("x"))), Err(JwtRefusal::Date("nbf")));
    assert_eq!(judged(with("iat", json!({}))), Err(JwtRefusal::Date("iat")));
    assert_eq!(judged(without("iat")), Ok(()));
}

//= JWT-09 JWT-10
#[test]
fn keys_that_cannot_sign_a_jwt_svid_are_left_out_and_the_others_are_published_as_spire_does() {
    let signer = Signer::new();
    let rsa = &Signer::of_every_algorithm()[0];
    let good = [signer.wire("b"), rsa.wire("a")];
    let bad = [
        JwtKey { key_id: String::new(), ..signer.wire("") },
        signer.wire(&"k".repeat(MAX_KEY_ID_BYTES + 1)),
        JwtKey { public_key: b"rubbish".as_slice().into(), ..signer.wire("c") },
        JwtKey { public_key: vec![0x30; 4096].into(), ..signer.wire("d") },
        Signer::ed25519().wire("e"),
        Signer::new().wire("b"),
    ];
    let authorities = JwtAuthorities::from_wire(&td("td"), &[&good[..], &bad].concat());
    assert_eq!((authorities.len(), authorities.left_out()), (2, bad.len()));
    assert_eq!(judge(&signer.sign_with(&json!({ "alg": "ES256", "kid": "b" }), &claims()), &authorities), Ok(()));
    let text = std::str::from_utf8(authorities.jwks()).expect("text").to_owned();
    assert!(text.starts_with("{\n    \"keys\": [\n        {\n            \"kty\": \"RSA\",\n            \"kid\": \"a\",\n            \"n\": "), "{text}");
    let jwks: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(jwks["keys"][1]["kty"], "EC");
    assert_eq!(jwks["keys"][1]["crv"], "P-256");
    assert_eq!(jwks["keys"][1]["x"].as_str().map(str::len), Some(43));
    assert_eq!(jwks["keys"][0]["e"], "AQAB");
    let reversed = JwtAuthorities::from_wire(&td("td"), &[good[1].clone(), good[0].clone()]);
    assert_eq!(reversed.jwks(), authorities.jwks(), "the order in which they came shows nowhere");
    assert_eq!(JwtAuthorities::from_wire(&td("td"), &authorities.to_wire()).jwks(), authorities.jwks());
    let none = JwtAuthorities::from_wire(&td("td"), &[]);
    assert_eq!(std::str::from_utf8(none.jwks()), Ok("{\n    \"keys\": []\n}"));
    assert!(none.is_empty());
}

#[test]
fn of_more_keys_than_a_trust_domain_has_the_first_count() {
    let signer = Signer::new();
    let keys: Vec<JwtKey> = (0..MAX_JWT_AUTHORITIES + 3).map(|n| signer.wire(&format!("k{n}"))).collect();
    let authorities = JwtAuthorities::from_wire(&td("td"), &keys);
    assert_eq!((authorities.len(), authorities.left_out()), (MAX_JWT_AUTHORITIES, 3));
    assert!(authorities.find("k0").is_some() && authorities.find("k257").is_none());
}

#[test]
fn a_tainted_key_still_verifies_what_it_has_signed() {
    let signer = Signer::new();
    let authorities = JwtAuthorities::from_wire(&td("td"), &[JwtKey { tainted: true, ..signer.wire("k") }]);
    assert!(authorities.find("k").is_some_and(|key| key.is_tainted()));
    assert_eq!(judge(&signer.sign(&claims()), &authorities), Ok(()));
}

#[test]
fn tokens_and_keys_survive_damage() {
    let signer = Signer::new();
    let authorities = JwtAuthorities::from_wire(&td("td"), &[signer.wire("k")]);
    let token = signer.sign(&claims());
    ironroot_fuzz::Target::new("JWT-SVID").seed(token.clone().into_bytes()).survives(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if judge(text, &authorities).is_ok() {
            assert_eq!(
                text.rsplit_once('.').map(|(signed, _)| signed),
                token.rsplit_once('.').map(|(signed, _)| signed)
            );
        }
    });
    let key = signer.wire("k").public_key.to_vec();
    ironroot_fuzz::Target::new("JWT authority").seed(key).survives(|bytes| {
        let wire = JwtKey { public_key: bytes.to_vec().into(), ..signer.wire("k") };
        drop(JwtAuthorities::from_wire(&td("td"), &[wire]));
    });
    // The header and the claims themselves, well wrapped.
    let json = claims().to_string().into_bytes();
    ironroot_fuzz::Target::new("JWT-SVID claims").seed(json).survives(|bytes| {
        let header = encode(br#"{"alg":"ES256","kid":"k"}"#);
        drop(judge(&format!("{header}.{}.AAAA", encode(bytes)), &authorities));
        drop(judge(&format!("{}.{header}.AAAA", encode(bytes)), &authorities));
    });
}

#[test]
fn tokens_and_key_sets_of_other_issuers_survive_damage() {
    let signer = Signer::new();
    // The one key that a JWT-SVID's authorities print has the form that every issuer's has.
    let jwks = JwtAuthorities::from_wire(&td("td"), &[signer.wire("k")]).jwks().to_vec();
    let keys = IssuerKeys::from_jwks(&jwks).expect("a set of one");
    let token = signer.sign(&json!({ "iss": "https://ci", "sub": "job", "aud": "me", "iat": NOW, "exp": NOW + 300 }));
    assert!(UnverifiedIdToken::parse(&token).and_then(|token| token.verify(&keys)).is_ok());
    ironroot_fuzz::Target::new("issuer's token").seed(token.clone().into_bytes()).survives(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if UnverifiedIdToken::parse(text).and_then(|token| token.verify(&keys)).is_ok() {
            let signed = |text: &str| text.rsplit_once('.').map(|(signed, _)| signed.to_owned());
            assert_eq!(signed(text), signed(&token));
        }
    });
    ironroot_fuzz::Target::new("issuer's keys").seed(jwks).survives(|bytes| {
        if let Ok(keys) = IssuerKeys::from_jwks(bytes) {
            assert!(keys.count() > 0);
        }
    });
}
