//! Tokens of other issuers: which prove themselves, and each reason not to be believed; issuers that are hostile, slow, or away.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ironroot_api::TrustDomain;
use ironroot_api::jwt::{Algorithm, JwtRefusal};
use ironroot_api::tls::KeyExchanges;
use ironroot_attest::SelectorSet;
use ironroot_lab::token_issuer::{DISCOVERY, KEYS, Page, TokenIssuer, TokenKey, key_set};
use ironroot_lab::web_certificate::WebCertificate;
use ironroot_server::store::Store;
use ironroot_server::token_exchange::{
    IssuerPolicy, Issuers, KeySource, OneUse, ProvenToken, TokenRefusal, document_url, exchange_parent,
};
use serde_json::{Value, json};

const AUDIENCE: &str = "https://spire.td";
/// A whole fetch takes no longer than 10 s, whatever the issuer does.
const DEADLINE: Duration = Duration::from_secs(30);

fn now_unix() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

fn policy(url: &str, keys: KeySource) -> IssuerPolicy {
    IssuerPolicy {
        name: "ci".to_owned(),
        parent: exchange_parent(&TrustDomain::new("td").expect("legal"), "ci").expect("legal"),
        url: url.to_owned(),
        audience: vec![AUDIENCE.to_owned(), "https://spire.td:8444".to_owned()],
        algorithms: vec![Algorithm::Es256, Algorithm::Rs256],
        required: SelectorSet::default(),
        single_use: true,
        keys,
    }
}

fn by_discovery(url: &str, ca_file: PathBuf) -> KeySource {
    KeySource::Discovery { url: document_url(url).expect("a URL"), ca_file: Some(ca_file) }
}

/// Issuers of that policy alone, with somebody who keeps its keys.
fn issuers(policy: IssuerPolicy) -> Issuers {
    let (issuers, keepers) = Issuers::new(vec![policy], KeyExchanges::default());
    keepers.into_iter().for_each(|keeper| drop(tokio::spawn(keeper.run())));
    issuers
}

/// An issuer at its best, and whoever believes it.
struct Lab {
    web: WebCertificate,
    key: TokenKey,
    issuer: TokenIssuer,
}

impl Lab {
    fn new() -> Self {
        let (web, key) = (WebCertificate::new(), TokenKey::p256("k1"));
        let issuer = TokenIssuer::with_keys(&web, &[&key]);
        Self { web, key, issuer }
    }

    fn policy(&self) -> IssuerPolicy {
        let url = self.issuer.url();
        policy(&url, by_discovery(&url, self.web.authority()))
    }

    fn claims(&self) -> Value {
        claims(&self.issuer.url())
    }

    fn with(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims();
        claims[name] = value;
        self.key.sign(&claims)
    }
}

/// As a CI has them.
fn claims(issuer: &str) -> Value {
    let now = now_unix();
    json!({ "iss": issuer, "sub": "project:acme/app", "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 300, "jti": "j1" })
}

async fn proven(issuers: &Issuers, token: &str) -> ProvenToken {
    issuers.prove(token, now_unix).await.unwrap_or_else(|refusal| panic!("{refusal}"))
}

async fn refused(issuers: &Issuers, token: &str) -> TokenRefusal {
    issuers.prove(token, now_unix).await.expect_err("refused")
}

fn said(token: &ProvenToken) -> Vec<String> {
    token.selectors().iter().map(ToString::to_string).collect()
}

// Source of the shape: GitHub, "About security hardening with OpenID Connect", an example token.
#[tokio::test]
async fn a_token_of_githubs_shape_says_whose_workflow_it_is() {
    let (web, key) = (WebCertificate::new(), TokenKey::rsa("38826b17-6a30-5f9b-b169-8beb8202f723"));
    let issuer = TokenIssuer::with_keys(&web, &[&key, &TokenKey::rsa("other")]);
    let mut claims = claims(&issuer.url());
    let github = json!({
        "jti": "example-id", "sub": "repo:octo-org/octo-repo:environment:prod", "environment": "prod", "ref": "refs/heads/main",
        "sha": "example-sha", "repository": "octo-org/octo-repo", "repository_owner": "octo-org", "actor_id": "12",
        "repository_visibility": "private", "repository_id": "74", "repository_owner_id": "65", "run_id": "example-run-id",
        "run_number": "10", "run_attempt": "2", "runner_environment": "github-hosted", "actor": "octocat",
        "workflow": "example-workflow", "head_ref": "", "base_ref": "", "event_name": "workflow_dispatch", "ref_type": "branch",
        "ref_protected": "true", "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main"
    });
    github.as_object().expect("an object").iter().for_each(|(name, value)| claims[name] = value.clone());
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5t": "example-thumbprint", "kid": "38826b17-6a30-5f9b-b169-8beb8202f723" });
    let issuers = issuers(policy(&issuer.url(), by_discovery(&issuer.url(), web.authority())));
    let token = proven(&issuers, &key.sign_with(&header, &claims)).await;
    assert_eq!((token.issuer(), token.subject()), ("ci", "repo:octo-org/octo-repo:environment:prod"));
    assert_eq!(token.parent().as_str(), "spiffe://td/spire/exchange/ci");
    for selector in ["oidc:repository:octo-org/octo-repo", "oidc:environment:prod", "oidc:repository_owner_id:65"] {
        assert!(said(&token).contains(&selector.to_owned()), "{selector}: {:?}", said(&token));
    }
    assert_eq!(token.expires_at(), claims["exp"].as_i64().expect("a date"));
}

// Source of the shape: GitLab, "OpenID Connect (OIDC) Authentication Using ID Tokens", token payload.
#[tokio::test]
async fn a_token_of_gitlabs_shape_says_whose_job_it_is() {
    let (web, key) = (WebCertificate::new(), TokenKey::rsa("4i3sFE7sxqNPOT7FdvcGA1ZVGGI_r-tsDXnEuYT4ZqE"));
    let issuer = TokenIssuer::with_keys(&web, &[&key]);
    let mut claims = claims(&issuer.url());
    let gitlab = json!({
        "namespace_id": "72", "namespace_path": "my-group", "project_id": "20", "project_path": "my-group/my-project",
        "user_id": "1", "user_login": "sample-user", "user_email": "sample-user@example.com",
        "user_identities": [{ "provider": "github", "extern_uid": "2435223452345" }], "pipeline_id": "574",
        "pipeline_source": "push", "job_id": "302", "ref": "feature-branch-1", "ref_type": "branch", "ref_protected": "false",
        "groups_direct": ["mygroup/mysubgroup", "myothergroup"], "sub": "project_path:my-group/my-project:ref_type:branch:ref:feature-branch-1",
        "aud": [AUDIENCE]
    });
    gitlab.as_object().expect("an object").iter().for_each(|(name, value)| claims[name] = value.clone());
    let mut policy = policy(&issuer.url(), by_discovery(&issuer.url(), web.authority()));
    policy.required = ["oidc:namespace_id:72".parse().expect("a selector")].into_iter().collect();
    let issuers = issuers(policy);
    let token = proven(&issuers, &key.sign(&claims)).await;
    for selector in
        ["oidc:project_path:my-group/my-project", "oidc:ref_protected:false", "oidc:groups_direct:myothergroup"]
    {
        assert!(said(&token).contains(&selector.to_owned()), "{selector}: {:?}", said(&token));
    }
    claims["namespace_id"] = "73".into();
    let refusal = refused(&issuers, &key.sign(&claims)).await;
    assert!(
        matches!(&refusal, TokenRefusal::MissingClaim(missing) if missing.to_string() == "oidc:namespace_id:72"),
        "{refusal}"
    );
}

//= EXC-01 EXC-02
#[tokio::test]
async fn each_token_that_is_not_for_this_server_now_is_refused_by_name() {
    let lab = Lab::new();
    let issuers = issuers(lab.policy());
    let now = now_unix();
    drop(proven(&issuers, &lab.key.sign(&lab.claims())).await);
    let of = |name: &'static str, value: Value| {
        let token = lab.with(name, value);
        let issuers = &issuers;
        async move { refused(issuers, &token).await }
    };
    assert_eq!(of("exp", json!(now - 1)).await, TokenRefusal::Expired);
    assert_eq!(of("exp", json!(now)).await, TokenRefusal::Expired);
    assert!(matches!(of("exp", json!(now + 100_000)).await, TokenRefusal::LastsTooLong(_)));
    assert_eq!(of("nbf", json!(now + 200)).await, TokenRefusal::NotYet);
    assert_eq!(of("iat", json!(now + 200)).await, TokenRefusal::FromTheFuture);
    for nobody in
        [json!("https://other"), json!([]), json!(["https://other", "https://spire.td/"]), json!("HTTPS://SPIRE.TD")]
    {
        assert!(matches!(of("aud", nobody.clone()).await, TokenRefusal::OtherAudience { .. }), "{nobody}");
    }
    let further = of("aud", json!([AUDIENCE, "https://other"])).await;
    assert_eq!(further, TokenRefusal::FurtherAudience("https://other".to_owned()));
    assert!(issuers.prove(&lab.with("aud", json!([AUDIENCE, "https://spire.td:8444"])), now_unix).await.is_ok());
    for other in ["https://localhost", "https://evil.example", &format!("{}/", lab.issuer.url())] {
        assert_eq!(of("iss", json!(other)).await, TokenRefusal::UnknownIssuer(other.to_owned()));
    }
    for (name, refusal) in
        [("iss", JwtRefusal::NoIssuer), ("sub", JwtRefusal::NoSubject), ("exp", JwtRefusal::NoExpiry)]
    {
        let mut claims = lab.claims();
        claims.as_object_mut().expect("an object").remove(name);
        assert_eq!(refused(&issuers, &lab.key.sign(&claims)).await, TokenRefusal::Token(refusal));
    }
    assert_eq!(of("sub", json!(["a"])).await, TokenRefusal::Token(JwtRefusal::NoSubject));
    assert_eq!(of("exp", json!("soon")).await, TokenRefusal::Token(JwtRefusal::Date("exp")));
}

//= EXC-03
#[tokio::test]
async fn no_algorithm_but_the_keys_own_verifies_a_token() {
    let lab = Lab::new();
    let rsa = TokenKey::rsa("r");
    lab.issuer.say(KEYS, Page::Json(key_set(&[&lab.key, &rsa])));
    let issuers = issuers(IssuerPolicy { algorithms: vec![Algorithm::Es256, Algorithm::Ps256], ..lab.policy() });
    let claims = lab.claims();
    let under = |algorithm: &str, key_id: &str| lab.key.sign_with(&json!({ "alg": algorithm, "kid": key_id }), &claims);
    for none in ["none", "None", "HS256", "HS512", "ES256K", "EdDSA", "es256", ""] {
        assert_eq!(
            refused(&issuers, &under(none, "k1")).await,
            TokenRefusal::Token(JwtRefusal::Algorithm(none.to_owned()))
        );
    }
    let not_allowed = refused(&issuers, &rsa.sign(&claims)).await;
    assert_eq!(not_allowed, TokenRefusal::Algorithm { found: "RS256", allowed: "ES256, PS256".to_owned() });
    // PS256 goes with RSA keys, but this one says that it is for RS256.
    let other = rsa.sign_with(&json!({ "alg": "PS256", "kid": "r" }), &claims);
    assert_eq!(refused(&issuers, &other).await, TokenRefusal::Token(JwtRefusal::OtherKey));
    assert_eq!(refused(&issuers, &under("ES256", "r")).await, TokenRefusal::Token(JwtRefusal::OtherKey));
    let forged = TokenKey::p256("k1").sign(&claims);
    assert_eq!(refused(&issuers, &forged).await, TokenRefusal::Token(JwtRefusal::Signature));
    let unknown = TokenKey::p256("../../k1").sign(&claims);
    assert_eq!(refused(&issuers, &unknown).await, just_now(&lab, "../../k1"));
    for header in
        [json!({ "alg": "ES256" }), json!({ "alg": "ES256", "kid": "" }), json!({ "alg": "ES256", "kid": ["k1"] })]
    {
        assert_eq!(
            refused(&issuers, &lab.key.sign_with(&header, &claims)).await,
            TokenRefusal::Token(JwtRefusal::KeyId)
        );
    }
    // Keys and places that the token brings along count for nothing.
    let brought = TokenKey::p256("k1");
    let header =
        json!({ "alg": "ES256", "kid": "k1", "jwk": brought.jwk(), "jku": format!("{}/keys", lab.issuer.url()) });
    assert_eq!(
        refused(&issuers, &brought.sign_with(&header, &claims)).await,
        TokenRefusal::Token(JwtRefusal::Signature)
    );
}

//= EXC-04 EXC-07
#[tokio::test]
async fn an_issuer_that_is_hostile_costs_a_bounded_fetch_and_its_tokens_are_not_taken() {
    let key = TokenKey::p256("k1");
    let good = key_set(&[&key]);
    let twice = json!({ "keys": [key.jwk(), key.jwk()] }).to_string();
    let many = json!({ "keys": vec![json!({ "kty": "oct" }); 257] }).to_string();
    let secret = json!({ "keys": [{ "kty": "oct", "kid": "k1", "alg": "HS256", "k": "c2VjcmV0" }] }).to_string();
    let mut encrypting = key.jwk();
    encrypting["use"] = "enc".into();
    let other_use = json!({ "keys": [encrypting] }).to_string();
    let at_keys = [
        Page::Status(500),
        Page::Flood,
        Page::Stall,
        Page::Redirect("http://localhost/keys".to_owned()),
        Page::Redirect("https://127.0.0.1:1/keys".to_owned()),
        Page::Redirect(KEYS.to_owned()),
        Page::Json("[]".to_owned()),
        Page::Json("{\"keys\": 1}".to_owned()),
        Page::Json(twice),
        Page::Json(many),
        Page::Json(secret),
        Page::Json(other_use),
    ];
    let began = Instant::now();
    let web = Arc::new(WebCertificate::new());
    let cases = at_keys.into_iter().map(|page| (None, page)).chain([
        (Some(Page::Flood), Page::Json(good.clone())),
        (Some(Page::Stall), Page::Json(good.clone())),
        (Some(Page::Redirect("http://localhost/".to_owned())), Page::Json(good.clone())),
        (
            Some(Page::Json("{\"issuer\": \"https://other\", \"jwks_uri\": \"https://other/keys\"}".to_owned())),
            Page::Json(good),
        ),
    ]);
    let tried = cases.map(|(document, page)| {
        let (key, web) = (&key, web.clone());
        async move {
            let issuer = TokenIssuer::with_keys(&web, &[key]);
            document.into_iter().for_each(|document| issuer.say(DISCOVERY, document));
            let words = format!("{page:?}");
            issuer.say(KEYS, page);
            let issuers = issuers(policy(&issuer.url(), by_discovery(&issuer.url(), web.authority())));
            assert_eq!(
                refused(&issuers, &key.sign(&claims(&issuer.url()))).await,
                TokenRefusal::NoKeys(issuer.url()),
                "{words}"
            );
        }
    });
    futures_util::future::join_all(tried).await;
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    // Whoever cannot prove the name of the issuer is not it.
    let lab = Lab::new();
    let other = WebCertificate::new();
    let issuers = issuers(policy(&lab.issuer.url(), by_discovery(&lab.issuer.url(), other.authority())));
    let refusal = refused(&issuers, &lab.key.sign(&lab.claims())).await;
    assert_eq!((refusal, lab.issuer.asked()), (TokenRefusal::NoKeys(lab.issuer.url()), 0));
}

/// Keys were fetched, and not for the one of that ID.
fn just_now(lab: &Lab, key_id: &str) -> TokenRefusal {
    TokenRefusal::LookedJustNow { issuer: lab.issuer.url(), key_id: key_id.to_owned() }
}

//= EXC-07
#[tokio::test]
async fn a_new_key_is_looked_for_when_a_token_names_it_and_made_up_ones_fetch_nothing_more() {
    let lab = Lab::new();
    let issuers = issuers(lab.policy());
    drop(proven(&issuers, &lab.key.sign(&lab.claims())).await);
    let (next, asked) = (TokenKey::p256("k2"), lab.issuer.asked());
    lab.issuer.say(KEYS, Page::Json(key_set(&[&next])));
    for number in 0..50 {
        let made_up = TokenKey::p256(&format!("x{number}")).sign(&lab.claims());
        assert!(matches!(refused(&issuers, &made_up).await, TokenRefusal::LookedJustNow { .. }));
    }
    assert_eq!(lab.issuer.asked(), asked, "just looked");
    let (token, began) = (next.sign(&lab.claims()), Instant::now());
    while issuers.prove(&token, now_unix).await.is_err() {
        assert!(began.elapsed() < DEADLINE, "the new key is never looked for");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(lab.issuer.asked(), asked + 2, "one fetch of two documents");
    let gone = refused(&issuers, &lab.key.sign(&lab.claims())).await;
    assert_eq!(gone, just_now(&lab, "k1"), "the issuer took it back");
    let looked = async || refused(&issuers, &lab.key.sign(&lab.claims())).await != just_now(&lab, "k1");
    while !looked().await {
        assert!(began.elapsed() < 2 * DEADLINE, "it is never looked for again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    lab.issuer.say(DISCOVERY, Page::Status(503));
    drop(proven(&issuers, &token).await);
}

#[tokio::test]
async fn keys_may_be_in_a_file_that_somebody_else_keeps() {
    let (directory, key) = (tempfile::tempdir().expect("directory"), TokenKey::rsa("k"));
    let file = directory.path().join("keys.json");
    std::fs::write(&file, key_set(&[&key])).expect("written");
    let issuers = issuers(policy("https://kubernetes.default.svc", KeySource::File(file)));
    drop(proven(&issuers, &key.sign(&claims("https://kubernetes.default.svc"))).await);
}

//= EXC-06
#[tokio::test]
async fn a_token_with_an_id_is_good_once_unless_nothing_was_issued_or_its_issuer_is_believed_otherwise() {
    let lab = Lab::new();
    let (once, often) = (issuers(lab.policy()), issuers(IssuerPolicy { single_use: false, ..lab.policy() }));
    let token = lab.key.sign(&lab.claims());
    let directory = tempfile::tempdir().expect("directory");
    let store = Store::open(&directory.path().join("store"), &TrustDomain::new("td").expect("legal")).expect("opens");
    let take = async |token: &ProvenToken| OneUse::take(&store, token, now_unix()).await;
    let first = proven(&once, &token).await;
    take(&first).await.expect("its use").give_back(&store).await;
    let _used = take(&first).await.expect("nothing was issued");
    let again = proven(&once, &token).await;
    assert_eq!(take(&again).await.expect_err("used"), TokenRefusal::Used);
    let named_otherwise = issuers(IssuerPolicy { name: "github".to_owned(), ..lab.policy() });
    let elsewhere = proven(&named_otherwise, &token).await;
    assert_eq!(take(&elsewhere).await.expect_err("used"), TokenRefusal::Used, "whatever a server calls its issuer");
    let other = proven(&once, &lab.with("jti", json!("j2"))).await;
    let _used = take(&other).await.expect("another token");
    for (issuers, token) in [(&often, token), (&once, lab.with("jti", json!(null)))] {
        let proven = proven(issuers, &token).await;
        let _uses = (take(&proven).await.expect("one use"), take(&proven).await.expect("and another"));
    }
    store.close().await;
    assert_eq!(
        take(&proven(&once, &lab.with("jti", json!("j3"))).await).await.expect_err("no disk"),
        TokenRefusal::NotNoted
    );
}
