//! WIT-SVIDs from outside: for whose key, saying what, verified by what the server publishes; and switched off.

use std::os::unix::fs::PermissionsExt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::localauthority::GetWitAuthorityStateRequest;
use ironroot_api::pb::localauthority::local_authority_client::LocalAuthorityClient;
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::pb::svid::{BatchNewWitsvidRequest, MintWitsvidRequest, NewWitsvidParams};
use ironroot_api::pb::types::{Spiffeid, Witsvid};
use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::jwt::{parts, signed_by};
use ironroot_lab::server_client::{Agent, ServerClient};
use serde_json::Value;
use tonic::{Code, Status};

/// As SPIRE has it.
const ON: &str = "experimental { feature_flags = [\"wit-svid\"] wit_issuer = \"wit.example.org\" }";
const OFF: &str = "WIT functionality is disabled";

fn server(lines: &str) -> Server {
    Server::start(&ServerOptions { server_lines: lines.to_owned(), ..ServerOptions::default() })
}

fn key() -> Vec<u8> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    key.public_key().as_der().expect("DER").as_ref().to_vec()
}

fn param(entry_id: &str, public_key: Vec<u8>, signing_algorithm: &str) -> NewWitsvidParams {
    NewWitsvidParams {
        entry_id: entry_id.to_owned(),
        public_key: public_key.into(),
        signing_algorithm: signing_algorithm.to_owned(),
    }
}

async fn new(agent: &Agent, params: Vec<NewWitsvidParams>) -> Result<Vec<Result<Witsvid, String>>, Status> {
    let answer = agent.svids().batch_new_witsvid(BatchNewWitsvidRequest { params }).await?.into_inner();
    let each = answer.results.into_iter().map(|result| {
        let status = result.status.expect("each has one");
        result.svid.ok_or(status.message)
    });
    Ok(each.collect())
}

async fn mint(client: &ServerClient, path: &str, ttl: i32) -> Result<Witsvid, Status> {
    let id = Some(Spiffeid { trust_domain: TRUST_DOMAIN.to_owned(), path: path.to_owned() });
    let request = MintWitsvidRequest { id, public_key: key().into(), ttl, signing_algorithm: "ES256".to_owned() };
    let answer = SvidClient::new(client.admin().await).mint_witsvid(request).await?;
    Ok(answer.into_inner().svid.expect("an SVID"))
}

/// The public half of the published key of that ID.
async fn published(client: &ServerClient, key_id: &Value) -> Option<Vec<u8>> {
    let bundle = BundleClient::new(client.anonymous().await).get_bundle(GetBundleRequest::default()).await;
    let keys = bundle.expect("the bundle").into_inner().wit_authorities;
    keys.into_iter().find(|key| *key_id == key.key_id.as_str()).map(|key| key.public_key.to_vec())
}

//= WIT-02 WIT-03 WIT-04 WIT-05
#[tokio::test]
async fn an_agent_gets_tokens_that_name_its_workloads_keys_and_the_published_key_verifies_them() {
    let server = server(ON);
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let more = ["-x509SVIDTTL", "120", "-hint", "internal"];
    let entry = server.create_entry(agent.id().as_str(), "/web", &["unix:uid:1"], &more);
    let others = server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/node"), "/b", &["unix:uid:1"], &[]);
    let params = vec![
        param(&entry, key(), "ES256"),
        param(&others, key(), "ES256"),
        param("", key(), "ES256"),
        param(&entry, Vec::new(), "ES256"),
        param(&entry, vec![1], "ES256"),
        param(&entry, key(), "RS256"),
        param(&entry, key(), "none"),
    ];
    let answers = new(&agent, params).await.expect("answered");
    let svid = answers[0].clone().expect("signed");
    for (answer, words) in answers[1..].iter().zip([
        "entry not found or not authorized",
        "missing entry ID",
        "missing public key",
        "malformed public key: ",
        "invalid signing algorithm or key type: unsupported signing algorithm for ec-p256 key: RS256",
        "invalid signing algorithm or key type: unsupported signing algorithm: \"none\"",
    ]) {
        assert!(answer.as_ref().is_err_and(|said| said.starts_with(words)), "{words}: {answer:?}");
    }
    let (header, claims) = parts(&svid.token);
    assert_eq!((&header["typ"], &header["alg"]), (&"wit+jwt".into(), &"ES256".into()));
    let verifies = published(&client, &header["kid"]).await.expect("it is in the bundle");
    assert!(signed_by(&svid.token, &verifies));
    let names: Vec<&str> = claims.as_object().expect("claims").keys().map(String::as_str).collect();
    assert_eq!(names, ["cnf", "exp", "iat", "iss", "sub"]);
    assert_eq!(
        (&claims["sub"], &claims["iss"]),
        (&format!("spiffe://{TRUST_DOMAIN}/web").into(), &"wit.example.org".into())
    );
    assert_eq!((svid.expires_at - svid.issued_at, svid.hint.as_str()), (120, "internal"));
    let jwk = claims["cnf"]["jwk"].as_object().expect("a key");
    assert_eq!((&jwk["alg"], &jwk["crv"], jwk.contains_key("d")), (&"ES256".into(), &"P-256".into(), false));
    let missing = new(&agent, Vec::new()).await.expect_err("refused");
    assert_eq!((missing.code(), missing.message()), (Code::InvalidArgument, "missing parameters"));
    assert!(!server.log().contains(&svid.token), "no token is logged");
}

#[tokio::test]
async fn an_administrator_mints_wit_svids_for_ids_of_workloads_only() {
    let server = server("enable_wit_svids = true");
    let client = ServerClient::new(&server).await;
    let svid = mint(&client, "/job", 60).await.expect("minted");
    assert_eq!((svid.expires_at - svid.issued_at, parts(&svid.token).1.get("iss")), (60, None));
    let svid = mint(&client, "/job", 0).await.expect("minted");
    assert_eq!(svid.expires_at - svid.issued_at, 3600, "SPIRE's default");
    let reserved = mint(&client, "/spire/server", 60).await.expect_err("refused");
    assert!(reserved.message().starts_with("invalid SPIFFE ID: "), "{reserved}");
}

#[tokio::test]
async fn switched_off_everything_about_wit_svids_is_unimplemented_at_once_and_nothing_is_published() {
    let server = server("");
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let entry = server.create_entry(agent.id().as_str(), "/web", &["unix:uid:1"], &[]);
    let mut authorities = LocalAuthorityClient::new(client.admin().await);
    let state = authorities.get_wit_authority_state(GetWitAuthorityStateRequest {});
    for refused in [
        new(&agent, vec![param(&entry, key(), "ES256")]).await.expect_err("off"),
        mint(&client, "/job", 60).await.expect_err("off"),
        state.await.expect_err("off"),
    ] {
        assert_eq!((refused.code(), refused.message()), (Code::Unimplemented, OFF));
    }
    let bundle: Value = serde_json::from_str(&server.cli(&["bundle", "show", "-output", "json"])).expect("JSON");
    assert_eq!(bundle["wit_authorities"].as_array().map(Vec::len), Some(0));
    let refused = server.cli_output(&["localauthority", "wit", "show"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains(OFF), "{refused:?}");
}

/// Source: SPIRE, test/integration/suites/fetch-wit-svids.
#[test]
fn wit_mint_prints_the_token_and_its_key_or_writes_them_for_their_owner_alone() {
    let server = server(ON);
    let id = format!("spiffe://{TRUST_DOMAIN}/job");
    for (kind, algorithm) in [("ec-p256", "ES256"), ("ec-p384", "ES384"), ("rsa-2048", "RS256"), ("rsa-4096", "RS512")]
    {
        let flags = ["wit", "mint", "-spiffeID", &id, "-keyType", kind, "-signingAlgorithm", algorithm];
        let text = server.cli(&flags);
        let (token, jwk) = text.trim_end().split_once('\n').expect("two lines");
        let jwk: Value = serde_json::from_str(jwk).expect("JSON");
        let named = parts(token).1["cnf"]["jwk"].clone();
        assert_eq!(named["alg"], algorithm);
        let member = if kind.starts_with("ec") { "x" } else { "n" };
        assert!(named[member] == jwk[member] && jwk["d"].is_string(), "{kind}");
        let json: Value =
            serde_json::from_str(&server.cli(&[&flags[..], &["-output", "json"]].concat())).expect("JSON");
        assert!(json["private_key"].is_string() && json["svid"]["token"].is_string(), "{kind}");
    }
    for (kind, algorithm, words) in [
        ("ec-p256", "ES123", "unsupported signing algorithm: ES123"),
        ("ec-p256", "RS256", "unsupported key type 'ec-p256' for signing algorithm 'RS256'"),
        ("rsa-2048", "ES256", "unsupported key type 'rsa-2048' for 'ES256' signing algorithm"),
    ] {
        let flags = ["wit", "mint", "-spiffeID", &id, "-keyType", kind, "-signingAlgorithm", algorithm];
        let refused = server.cli_output(&flags);
        assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains(words), "{refused:?}");
    }
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().to_str().expect("text");
    server.cli(&["wit", "mint", "-spiffeID", &id, "-ttl", "60s", "-write", path]);
    for name in ["token", "key"] {
        let file = std::fs::metadata(directory.path().join(name)).expect("written");
        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn an_operator_replaces_a_key_of_wit_svids_and_it_outlives_kill_minus_nine() {
    let mut server = server(ON);
    let json = |server: &Server, arguments: &[&str]| -> Value {
        serde_json::from_str(&server.cli(&[arguments, &["-output", "json"]].concat())).expect("JSON")
    };
    let id = |value: &Value| value["authority_id"].as_str().expect("an ID").to_owned();
    let old = id(&json(&server, &["localauthority", "wit", "show"])["active"]);
    let new = id(&json(&server, &["localauthority", "wit", "prepare"])["prepared_authority"]);
    server.kill();
    server.restart();
    assert_eq!(id(&json(&server, &["localauthority", "wit", "show"])["prepared"]), new);
    let kid = |server: &Server| {
        let job = format!("spiffe://{TRUST_DOMAIN}/job");
        let text = server.cli(&["wit", "mint", "-spiffeID", &job]);
        parts(text.lines().next().expect("a token")).0["kid"].clone()
    };
    assert_eq!(kid(&server), old.as_str());
    server.cli(&["localauthority", "wit", "activate", "-authorityID", &new]);
    assert_eq!(kid(&server), new.as_str());
    let early = server.cli_output(&["localauthority", "wit", "revoke", "-authorityID", &old]);
    assert!(
        String::from_utf8_lossy(&early.stderr).contains("it is not possible to revoke an untainted key"),
        "{early:?}"
    );
    server.cli(&["localauthority", "wit", "taint", "-authorityID", &old]);
    let tainted = |server: &Server| {
        let keys = json(server, &["bundle", "show"])["wit_authorities"].as_array().cloned().expect("a list");
        keys.into_iter().find(|key| key["key_id"] == old.as_str()).map(|key| key["tainted"] == true)
    };
    assert_eq!(tainted(&server), Some(true));
    server.cli(&["localauthority", "wit", "revoke", "-authorityID", &old]);
    expect_within(DEADLINE, "it leaves the bundle", || server.log(), || tainted(&server).is_none());
    for line in ["WIT key prepared", "WIT authority tainted successfully", "WIT authority revoked successfully"] {
        assert!(server.log().contains(line), "{line}\n{}", server.log());
    }
}
