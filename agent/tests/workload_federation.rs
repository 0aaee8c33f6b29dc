//! Bundles of other trust domains on the socket: who gets which, when they come and when they go.

#[path = "support/served.rs"]
mod served;
#[path = "../../api/tests/support/signer.rs"]
mod signer;

use std::sync::Arc;

use ironroot_agent::endpoints::{Limits, VerifierPolicy};
use ironroot_agent::federated_bundles::FederatedBundles;
use ironroot_agent::identities::{Identities, Identity};
use ironroot_agent::report::Stands;
use ironroot_agent::server_answers::{EntryTerms, ForeignBundle, TrustBundle};
use ironroot_agent::trusted_time::system_unix;
use ironroot_api::pb::types;
use ironroot_api::pb::workload::{
    JwtBundlesRequest, ValidateJwtsvidRequest, ValidateJwtsvidResponse, X509BundlesRequest,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::json;
use served::{NOW, Served, asking, next, patiently, td, terms};
use signer::Signer;
use tonic::{Code, Status};

#[test]
fn acts_as_a_workload() {
    served::act();
}

fn authority() -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().expect("key")).expect("root").der().to_vec()
}

fn foreign(name: &str, authorities: &[&[u8]], keys: &[types::JwtKey]) -> Arc<ForeignBundle> {
    let authority = |der: &&[u8]| types::X509Certificate { asn1: der.to_vec().into(), tainted: false };
    let wire = types::Bundle {
        trust_domain: name.to_owned(),
        x509_authorities: authorities.iter().map(authority).collect(),
        jwt_authorities: keys.to_vec(),
        ..types::Bundle::default()
    };
    Arc::new(ForeignBundle::from_answer(&wire, &td(name)).expect("a bundle"))
}

/// Our own user's identity, which asks for the bundles of these trust domains.
fn identity(served: &Served, with: &[&str]) -> Arc<Identity> {
    let with = with.iter().map(|name| td(name)).collect();
    let terms = EntryTerms { federates_with: Some(with), ..terms("/test", &["unix:uid:0"]) };
    served.authority.issue_for(terms, NOW - 60..NOW + 3600)
}

fn publish(served: &Served, identity: &Arc<Identity>, bundles: &[Arc<ForeignBundle>]) {
    let mut federated = FederatedBundles::default();
    assert!(bundles.iter().all(|bundle| federated.add(bundle.clone())));
    let all = Identities::try_new(td("td"), vec![identity.clone()], served.authority.bundle()).expect("sound");
    served.publisher.send_replace(Arc::new(all.with_federated(federated)));
}

async fn validate(served: &Served, svid: &str) -> Result<String, Status> {
    Ok(validated(served, svid).await?.spiffe_id)
}

async fn validated(served: &Served, svid: &str) -> Result<ValidateJwtsvidResponse, Status> {
    let request = ValidateJwtsvidRequest { audience: "me".to_owned(), svid: svid.to_owned() };
    Ok(served.client().await.validate_jwtsvid(asking(request)).await?.into_inner())
}

//= FED-05 TDB-08 WLA-04 WLA-08
#[tokio::test]
async fn a_workload_gets_the_bundles_that_its_entries_ask_for_each_by_itself_and_only_while_they_do() {
    let served = Served::new(Limits::default());
    let (one, other) = (authority(), authority());
    let bundles = [foreign("friend", &[&one, &other], &[]), foreign("stranger", &[&other], &[])];
    publish(&served, &identity(&served, &["friend", "nobody"]), &bundles);
    let mut svids = served.fetch().await.expect("served");
    let mut shown =
        served.client().await.fetch_x509_bundles(asking(X509BundlesRequest {})).await.expect("served").into_inner();
    let first = next(&mut svids).await;
    assert_eq!(first.federated_bundles.keys().collect::<Vec<_>>(), ["spiffe://friend"]);
    assert_eq!(first.federated_bundles["spiffe://friend"], [one.clone(), other].concat());
    assert!(
        !first.svids[0].bundle.windows(one.len()).any(|window| window == one),
        "own authorities alone are in there"
    );
    let bundles = patiently(shown.message()).await.expect("no error").expect("no end").bundles;
    let mut names: Vec<_> = bundles.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["spiffe://friend", "spiffe://td"]);
    publish(&served, &identity(&served, &[]), &[foreign("friend", &[&one], &[])]);
    assert!(next(&mut svids).await.federated_bundles.is_empty(), "it asks no more");
}

//= TDB-04
#[tokio::test]
async fn a_bundle_that_becomes_another_is_sent_again_and_an_empty_one_is_gone() {
    let served = Served::new(Limits::default());
    let (one, other) = (authority(), authority());
    let identity = identity(&served, &["friend"]);
    publish(&served, &identity, &[foreign("friend", &[&one], &[])]);
    let mut svids = served.fetch().await.expect("served");
    assert_eq!(next(&mut svids).await.federated_bundles["spiffe://friend"], one);
    // News of keys that this stream does not show are no news to it.
    publish(&served, &identity, &[foreign("friend", &[&one], &[Signer::new().wire("k")])]);
    publish(&served, &identity, &[foreign("friend", &[&other], &[])]);
    assert_eq!(next(&mut svids).await.federated_bundles["spiffe://friend"], other);
    publish(&served, &identity, &[foreign("friend", &[], &[])]);
    assert!(next(&mut svids).await.federated_bundles.is_empty());
}

//= JWT-11 WLA-10 WLA-11
#[tokio::test]
async fn a_token_of_another_trust_domain_is_judged_by_its_own_keys_and_for_who_has_them() {
    let served = Served::new(Limits::default());
    let (friend, stranger) = (Signer::new(), Signer::new());
    let keyless = foreign("keyless", &[&authority()], &[]);
    let bundles =
        [foreign("friend", &[], &[friend.wire("k")]), foreign("stranger", &[], &[stranger.wire("k")]), keyless];
    publish(&served, &identity(&served, &["friend", "keyless"]), &bundles);
    let mut shown =
        served.client().await.fetch_jwt_bundles(asking(JwtBundlesRequest {})).await.expect("served").into_inner();
    let bundles = patiently(shown.message()).await.expect("no error").expect("no end").bundles;
    let mut names: Vec<_> = bundles.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["spiffe://friend", "spiffe://keyless", "spiffe://td"]);
    let keyless: serde_json::Value = serde_json::from_slice(&bundles["spiffe://keyless"]).expect("JSON");
    assert_eq!(keyless, json!({ "keys": [] }), "as SPIRE's agent shows it");
    assert!(String::from_utf8_lossy(&bundles["spiffe://friend"]).contains("\"kid\": \"k\""));
    let claims = |of: &str| json!({ "sub": format!("spiffe://{of}/web"), "aud": "me", "exp": system_unix() + 300 });
    let told = validate(&served, &friend.sign(&claims("friend"))).await.expect("good");
    assert_eq!(told, "spiffe://friend/web");
    for (token, why) in [
        (friend.sign(&claims("td")), "not found in trust domain"),
        (stranger.sign(&claims("friend")), "signature does not verify"),
        (stranger.sign(&claims("stranger")), "no keys found for trust domain \"stranger\""),
    ] {
        let refused = validate(&served, &token).await.expect_err(why);
        assert!(refused.message().contains(why), "{refused}");
    }
}

#[tokio::test]
async fn of_a_token_of_another_trust_domain_only_the_claims_that_are_allowed_are_told() {
    let (own, friend) = (Signer::new(), Signer::new());
    let always = ["aud", "exp", "sub"];
    for (allowed, told_of_foreign) in [
        (&[][..], &always[..]),
        (&["email", "nobody_has_it"], &["aud", "email", "exp", "sub"]),
        (&["sub", "iat", "email", "groups"], &["aud", "email", "exp", "groups", "iat", "sub"]),
    ] {
        let foreign_claims = allowed.iter().map(|&claim| claim.to_owned()).collect();
        let served =
            Served::with(|config| config.verifiers = VerifierPolicy { foreign_claims, ..VerifierPolicy::default() });
        let identity = identity(&served, &["friend"]);
        let bundle = TrustBundle::clone(&served.authority.bundle()).with_jwt(&[own.wire("k")], 0);
        let mut federated = FederatedBundles::default();
        assert!(federated.add(foreign("friend", &[], &[friend.wire("k")])));
        let all = Identities::try_new(td("td"), vec![identity], Arc::new(bundle)).expect("sound");
        served.publisher.send_replace(Arc::new(all.with_federated(federated)));
        for (signer, of, told) in
            [(&friend, "friend", told_of_foreign), (&own, "td", &["aud", "email", "exp", "groups", "iat", "sub"])]
        {
            let (id, now) = (format!("spiffe://{of}/web"), system_unix());
            let claims =
                json!({ "sub": id, "aud": "me", "exp": now + 300, "iat": now, "email": "a@b", "groups": ["x"] });
            let answer = validated(&served, &signer.sign(&claims)).await.expect("good");
            let found: Vec<_> = answer.claims.expect("claims").fields.into_keys().collect();
            assert_eq!(
                (answer.spiffe_id, found.iter().map(String::as_str).collect::<Vec<_>>().as_slice()),
                (id, told),
                "{allowed:?}"
            );
        }
    }
}

/// What a caller of our own user, which may have no entry, is told of both kinds of bundles: their trust domains, or why nothing.
async fn told_bundles(served: &Served) -> (Result<Vec<String>, Status>, Result<Vec<String>, Status>) {
    let mut client = served.client().await;
    let x509 = client.fetch_x509_bundles(asking(X509BundlesRequest {})).await;
    let x509 = async { Ok(sorted(patiently(x509?.into_inner().message()).await?.expect("no end").bundles)) };
    let x509 = x509.await;
    let jwt = client.fetch_jwt_bundles(asking(JwtBundlesRequest {})).await;
    let jwt = async { Ok(sorted(patiently(jwt?.into_inner().message()).await?.expect("no end").bundles)) };
    (x509, jwt.await)
}

fn sorted<T>(bundles: std::collections::HashMap<String, T>) -> Vec<String> {
    let mut names: Vec<_> = bundles.into_keys().collect();
    names.sort_unstable();
    names
}

/// Nobody's identity, a bundle that it would ask for, and what `change` makes of it.
fn publish_nobodys(served: &Served, change: impl FnOnce(Identities) -> Identities) {
    let with = EntryTerms { federates_with: Some(vec![td("friend")]), ..terms("/web", &["unix:uid:61001"]) };
    let nobodys = served.authority.issue_for(with, NOW - 60..NOW + 3600);
    let mut federated = FederatedBundles::default();
    assert!(federated.add(foreign("friend", &[&authority()], &[])));
    let all = Identities::try_new(td("td"), vec![nobodys], served.authority.bundle()).expect("sound");
    served.publisher.send_replace(Arc::new(change(all.with_federated(federated))));
}

#[tokio::test]
async fn a_verifier_without_an_entry_is_told_the_own_bundle_alone_where_the_file_says_so() {
    let open = VerifierPolicy { without_identity: true, ..VerifierPolicy::default() };
    for (verifiers, is_told) in [(VerifierPolicy::default(), false), (open, true)] {
        let served = Served::with(|config| config.verifiers = verifiers);
        let early = told_bundles(&served).await;
        assert!([early.0, early.1].iter().all(|told| told.as_ref().is_err_and(|e| e.code() == Code::Unavailable)));
        publish_nobodys(&served, |all| all);
        let (x509, jwt) = told_bundles(&served).await;
        for told in [x509, jwt] {
            match is_told {
                true => assert_eq!(told.expect("told"), ["spiffe://td"]),
                false => assert_eq!(told.expect_err("refused").code(), Code::PermissionDenied),
            }
        }
        let svids = served.fetch().await.expect_err("no identity");
        assert_eq!((svids.code(), svids.message()), (Code::PermissionDenied, "no identity issued"));
    }
}

#[tokio::test]
async fn a_verifier_without_an_entry_is_told_nothing_by_an_agent_that_is_cast_out_and_waits_for_what_is_not_known() {
    let served = Served::with(|config| config.verifiers.without_identity = true);
    for (stands, code) in [(Stands::Banned, Code::PermissionDenied), (Stands::Evicted, Code::PermissionDenied)] {
        publish_nobodys(&served, |all| all.of_cast_out(Some(stands)));
        let (x509, jwt) = told_bundles(&served).await;
        assert_eq!((x509.expect_err("refused").code(), jwt.expect_err("refused").code()), (code, code));
    }
    publish_nobodys(&served, |all| all.partial(true));
    let (x509, jwt) = told_bundles(&served).await;
    let code = Code::Unavailable;
    assert_eq!(
        (x509.expect_err("early").code(), jwt.expect_err("early").code()),
        (code, code),
        "a server may have an entry"
    );
}

#[tokio::test]
async fn an_entry_that_comes_adds_to_what_a_verifier_is_told_on_the_stream_that_is_open() {
    let served = Served::with(|config| config.verifiers.without_identity = true);
    publish_nobodys(&served, |all| all);
    let mut shown =
        served.client().await.fetch_x509_bundles(asking(X509BundlesRequest {})).await.expect("served").into_inner();
    let first = patiently(shown.message()).await.expect("no error").expect("no end");
    assert_eq!(sorted(first.bundles), ["spiffe://td"]);
    publish(&served, &identity(&served, &["friend"]), &[foreign("friend", &[&authority()], &[])]);
    let more = patiently(shown.message()).await.expect("no error").expect("no end");
    assert_eq!(sorted(more.bundles), ["spiffe://friend", "spiffe://td"]);
    // Its entry goes, and the stream stays open.
    publish_nobodys(&served, |all| all);
    let less = patiently(shown.message()).await.expect("no error").expect("no end");
    assert_eq!(sorted(less.bundles), ["spiffe://td"]);
}
