//! JWT bundles, tokens that are validated, and tokens that cannot be had, on the socket. Tokens that can are in the lab's tests, which
//! have a server.

#[path = "support/log.rs"]
mod log;
#[path = "support/served.rs"]
mod served;
#[path = "../../api/tests/support/signer.rs"]
mod signer;

use std::sync::Arc;

use ironroot_agent::endpoints::{Limits, LoggedSelectors, Most};
use ironroot_agent::identities::{Identities, Identity};
use ironroot_agent::server_answers::{EntryTerms, TrustBundle};
use ironroot_agent::trusted_time::system_unix;
use ironroot_api::jwt::{MAX_AUDIENCES, MAX_TOKEN_BYTES};
use ironroot_api::pb::types::JwtKey;
use ironroot_api::pb::workload::{JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, ValidateJwtsvidRequest};
use log::Log;
use prost_types::value::Kind;
use serde_json::{Value, json};
use served::{Served, asking, patiently, td, terms};
use signer::Signer;
use tonic::{Code, Status, Streaming};

#[test]
fn acts_as_a_workload() {
    served::act();
}

fn publish(served: &Served, identities: Vec<Arc<Identity>>, unsigned: Vec<EntryTerms>, keys: &[JwtKey]) {
    let bundle = TrustBundle::clone(&served.authority.bundle()).with_jwt(keys, 0);
    let all = Identities::try_new(td("td"), identities, Arc::new(bundle)).expect("sound");
    let unsigned = unsigned.into_iter().map(Arc::new).collect();
    served.publisher.send_replace(Arc::new(all.with_unsigned(unsigned)));
}

/// With an identity for processes of our own user, and these keys.
fn ours(keys: &[JwtKey]) -> Served {
    let served = Served::new(Limits::default());
    publish(&served, vec![served.authority.issue("/test", 0, 3600)], Vec::new(), keys);
    served
}

async fn bundles(served: &Served) -> Result<Streaming<JwtBundlesResponse>, Status> {
    let answer = served.client().await.fetch_jwt_bundles(asking(JwtBundlesRequest {})).await;
    answer.map(tonic::Response::into_inner)
}

/// The key IDs of the next message.
async fn next(stream: &mut Streaming<JwtBundlesResponse>) -> Vec<String> {
    let message = patiently(stream.message()).await.expect("no error").expect("no end");
    assert_eq!(message.bundles.keys().collect::<Vec<_>>(), ["spiffe://td"]);
    let jwks: Value = serde_json::from_slice(&message.bundles["spiffe://td"]).expect("JSON");
    let keys = jwks["keys"].as_array().expect("a list").clone();
    assert!(keys.iter().all(|key| key["kty"] == "EC" && key["use"].is_null()), "{jwks}");
    keys.iter().map(|key| key["kid"].as_str().expect("an ID").to_owned()).collect()
}

async fn fetch(served: &Served, audience: &[&str], spiffe_id: &str) -> Status {
    let audience = audience.iter().map(|&audience| audience.to_owned()).collect();
    let request = JwtsvidRequest { audience, spiffe_id: spiffe_id.to_owned() };
    served.client().await.fetch_jwtsvid(asking(request)).await.expect_err("refused")
}

async fn validate(served: &Served, audience: &str, svid: &str) -> Result<(String, prost_types::Struct), Status> {
    let request = ValidateJwtsvidRequest { audience: audience.to_owned(), svid: svid.to_owned() };
    let answer = served.client().await.validate_jwtsvid(asking(request)).await?.into_inner();
    Ok((answer.spiffe_id, answer.claims.expect("claims")))
}

fn claims(exp: i64) -> Value {
    json!({ "sub": "spiffe://td/web", "aud": "me", "iat": exp - 300, "exp": exp, "own": { "deep": [1, null, true] } })
}

//= WLA-02 WLA-08 WLA-10
#[tokio::test]
async fn a_change_of_keys_alone_reaches_open_streams_of_jwt_bundles() {
    let (one, two) = (Signer::new(), Signer::new());
    let served = ours(&[one.wire("a")]);
    let identity = served.publisher.borrow().iter().next().expect("one").clone();
    let mut stream = bundles(&served).await.expect("served");
    assert_eq!(next(&mut stream).await, ["a"]);
    publish(&served, vec![identity.clone()], Vec::new(), &[one.wire("a"), two.wire("b")]);
    assert_eq!(next(&mut stream).await, ["a", "b"]);
    let tainted = JwtKey { tainted: true, ..one.wire("a") };
    publish(&served, vec![identity.clone()], Vec::new(), &[tainted, two.wire("b")]);
    publish(&served, vec![served.authority.issue("/test", 0, 7200)], Vec::new(), &[two.wire("b")]);
    assert_eq!(next(&mut stream).await, ["b"], "a taint is not shown, and another SVID is no news here");
    publish(&served, vec![identity], Vec::new(), &[]);
    assert_eq!(next(&mut stream).await, [""; 0]);
}

//= WLE-07 WLA-08 WLA-14
#[tokio::test]
async fn who_has_no_entry_gets_no_jwt_bundle_and_who_has_one_needs_no_certificate() {
    let served = Served::new(Limits::default());
    assert_eq!(bundles(&served).await.expect_err("too early").code(), Code::Unavailable);
    let key = Signer::new().wire("a");
    publish(&served, vec![served.authority.issue("/web", 61001, 3600)], Vec::new(), std::slice::from_ref(&key));
    let status = bundles(&served).await.expect_err("refused");
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
    publish(&served, Vec::new(), vec![terms("/new", &["unix:uid:0"])], std::slice::from_ref(&key));
    let mut stream = bundles(&served).await.expect("served");
    assert_eq!(next(&mut stream).await, ["a"]);
    publish(&served, Vec::new(), Vec::new(), std::slice::from_ref(&key));
    assert_eq!(patiently(stream.message()).await.expect_err("ended").code(), Code::PermissionDenied);
}

//= WLA-11
#[tokio::test]
async fn a_good_token_is_told_from_a_bad_one_and_all_that_it_says_is_told() {
    let signer = Signer::new();
    let served = ours(&[signer.wire("k")]);
    let now = system_unix();
    let (spiffe_id, told) = validate(&served, "me", &signer.sign(&claims(now + 300))).await.expect("good");
    assert_eq!(spiffe_id, "spiffe://td/web");
    let kind = |name: &str| told.fields[name].kind.clone().expect("a kind");
    assert_eq!(kind("sub"), Kind::StringValue("spiffe://td/web".to_owned()));
    assert_eq!(kind("exp"), Kind::NumberValue((now + 300) as f64));
    let Kind::ListValue(audience) = kind("aud") else { panic!("one text is told as a list: {told:?}") };
    assert_eq!(audience.values[0].kind, Some(Kind::StringValue("me".to_owned())));
    let Kind::StructValue(own) = kind("own") else { panic!("{told:?}") };
    let Some(Kind::ListValue(deep)) = &own.fields["deep"].kind else { panic!("{told:?}") };
    assert_eq!(deep.values.len(), 3);

    let long_ago = signer.sign(&claims(now - 3600));
    let tomorrow = signer.sign(&claims(now + 86_400));
    let stranger = Signer::new().sign(&claims(now + 300));
    let none = signer.sign_with(&json!({ "alg": "none", "kid": "k" }), &claims(now + 300));
    let hmac = signer.sign_with(&json!({ "alg": "HS256", "kid": "k" }), &claims(now + 300));
    for (audience, token, wrong) in [
        ("me", long_ago.as_str(), "token has expired"),
        ("you", &signer.sign(&claims(now + 300)), "expected audience in [\"you\"] (audience=[\"me\"])"),
        ("me", &stranger, "signature does not verify"),
        ("me", &none, "unexpected signature algorithm \"none\""),
        ("me", &hmac, "unexpected signature algorithm \"HS256\""),
        ("me", "x.y", "compact JWS format must have three parts"),
        ("me", &"a".repeat(MAX_TOKEN_BYTES + 1), "longer than 16384 bytes"),
        ("", "x", "audience must be specified"),
        ("me", "", "svid must be specified"),
        (&"a".repeat(2049), "x", "audience is longer than 2048 bytes"),
    ] {
        let status = validate(&served, audience, token).await.expect_err(wrong);
        assert_eq!(status.code(), Code::InvalidArgument, "{wrong}: {status}");
        assert!(status.message().contains(wrong), "{wrong}: {status}");
    }
    // No clock of this process was ever confirmed: whether it is behind or the token is early cannot be told.
    assert!(validate(&served, "me", &tomorrow).await.is_ok());
}

#[tokio::test]
async fn whoever_can_be_attested_may_have_a_token_validated() {
    let signer = Signer::new();
    let served = Served::new(Limits::default());
    let early = validate(&served, "me", "x.y.z").await.expect_err("too early");
    assert_eq!((early.code(), early.message()), (Code::Unavailable, "the agent is still starting"));
    publish(&served, Vec::new(), Vec::new(), &[signer.wire("k")]);
    assert!(validate(&served, "me", &signer.sign(&claims(system_unix() + 300))).await.is_ok());
}

//= FLT-A9
#[tokio::test]
async fn one_users_long_requests_wait_for_each_other_and_all_are_answered() {
    let signer = Signer::new();
    let served = Served::new(Limits { long_requests: Most { per_user: 1, in_all: 1 }, ..Limits::default() });
    publish(&served, Vec::new(), Vec::new(), &[signer.wire("k")]);
    let mut long = claims(system_unix() + 300);
    long["own"] = json!("x".repeat(10_000));
    let svid = signer.sign(&long);
    let client = served.client().await;
    // More than a connection's window holds, all on one connection.
    let one = |_| {
        let (mut client, svid) = (client.clone(), svid.clone());
        async move { client.validate_jwtsvid(asking(ValidateJwtsvidRequest { audience: "me".into(), svid })).await }
    };
    let answers = patiently(futures_util::future::join_all((0..90).map(one))).await;
    assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().find(|answer| answer.is_err()));
}

//= WLA-05 WLA-09
#[tokio::test]
async fn a_token_is_only_for_an_audience_that_is_named_and_an_identity_that_the_caller_has() {
    let mut served = ours(&[]);
    // No loop is there that could dial.
    served.asked.close();
    let many: Vec<String> = (0..MAX_AUDIENCES + 1).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long: Vec<String> = (0..5).map(|n| format!("{n}{}", "a".repeat(2000))).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    for (audience, spiffe_id, code, text) in [
        (&[][..], "", Code::InvalidArgument, "audience must be specified"),
        (&["a", ""], "", Code::InvalidArgument, "audience must not be empty"),
        (&many, "", Code::InvalidArgument, "more than 256 audiences"),
        (&long, "", Code::InvalidArgument, "no token holds them"),
        (&["a"], "https://td/test", Code::InvalidArgument, "invalid requested SPIFFE ID: scheme is not"),
        (&["a"], "spiffe://td/other", Code::PermissionDenied, "no identity issued"),
        (&["a"], "spiffe://td/test", Code::Unavailable, "could not fetch JWT-SVID: the server cannot be reached"),
        (&["a"], "", Code::Unavailable, "could not fetch JWT-SVID: the server cannot be reached"),
    ] {
        let status = fetch(&served, audience, spiffe_id).await;
        assert_eq!(status.code(), code, "{text}: {status}");
        assert!(status.message().contains(text), "{text}: {status}");
    }
    let ten_thousand: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    let ten_thousand: Vec<&str> = ten_thousand.iter().map(String::as_str).collect();
    let status = fetch(&served, &ten_thousand, "").await;
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status}");
}

#[tokio::test]
async fn who_names_somebody_elses_id_is_said_to_have_done_so_and_not_to_wait_for_a_signature() {
    let (served, log) = (Served::new(Limits::default()), Log::start());
    let all = vec![served.authority.issue("/test", 0, 3600), served.authority.issue("/web", 61001, 3600)];
    publish(&served, all, Vec::new(), &[]);
    assert_eq!(fetch(&served, &["a"], "spiffe://td/web").await.code(), Code::PermissionDenied);
    let log = log.text();
    let line =
        log.lines().find(|line| line.contains("asked for what is not its own")).unwrap_or_else(|| panic!("{log}"));
    for part in ["FetchJWTSVID", "names=spiffe://td/web", "nearest=spiffe://td/web", "lacks=unix:uid:61001"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!log.contains("not signed yet"), "{log}");
}

#[tokio::test]
async fn of_selectors_those_that_the_file_allows_are_logged_and_how_many_others_there_are() {
    for (allowed, selectors, lacks) in [
        (
            &["unix:uid", "docker:label"][..],
            "selectors=unix:uid:0 (",
            "lacks=docker:label:a:b (1 left out by log_selectors)",
        ),
        (&[], "selectors=(", "lacks=(2 left out by log_selectors)"),
    ] {
        let prefixes = allowed.iter().map(|prefix| prefix.parse().expect("a prefix")).collect();
        let served = Served::with(|config| config.logged_selectors = LoggedSelectors::Beginning(prefixes));
        let log = Log::start();
        let theirs = ["docker:label:a:b", "docker:image_id:secret", "unix:uid:0"];
        publish(&served, vec![served.authority.issue_to("/web", &theirs, 3600)], Vec::new(), &[]);
        let refused = [bundles(&served).await.expect_err("no identity"), fetch(&served, &["a"], "").await];
        assert!(refused.iter().all(|status| status.code() == Code::PermissionDenied), "{refused:?}");
        let log = log.text();
        let line = log.lines().find(|line| line.contains("No identity issued")).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains(selectors) && line.contains(lacks), "{line}");
        assert!(!log.contains("secret") && !log.contains("unix:gid"), "{log}");
    }
}

#[tokio::test]
async fn who_has_very_many_identities_names_the_one_it_wants() {
    let mut served = Served::new(Limits::default());
    served.asked.close();
    let many = (0..101).map(|n| terms(&format!("/w{n}"), &["unix:uid:0"])).collect();
    publish(&served, Vec::new(), many, &[]);
    let status = fetch(&served, &["a"], "").await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("more than 100 identities: name one in spiffe_id"), "{status}");
    assert_eq!(fetch(&served, &["a"], "spiffe://td/w7").await.code(), Code::Unavailable, "it would be signed");
}

//= WLE-03
#[tokio::test]
async fn requests_about_tokens_want_the_security_header_too() {
    let served = ours(&[]);
    let mut client = served.client().await;
    let fetched = client.fetch_jwtsvid(JwtsvidRequest::default()).await.map(drop);
    let told = client.fetch_jwt_bundles(JwtBundlesRequest {}).await.map(drop);
    let validated = client.validate_jwtsvid(ValidateJwtsvidRequest::default()).await.map(drop);
    for outcome in [fetched, told, validated] {
        let status = outcome.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("security header"), "{status}");
    }
}

#[tokio::test]
async fn the_command_that_fetches_tokens_and_bundles_opens_one_connection() {
    let served = Served::new(Limits { max_connections_per_user: 1, ..Limits::default() });
    publish(&served, vec![served.authority.issue("/test", 0, 3600)], Vec::new(), &[]);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_ironroot-agent"));
    command.args(["api", "fetch", "jwt", "-audience", "us", "-timeout", "30s", "-socketPath"]).arg(served.socket());
    let output = patiently(command.output()).await.expect("starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("could not fetch JWT-SVID"), "both were asked for, and only signing takes a server: {said}");
}
