//! JWT-SVIDs from outside: for whom, saying what, verified by what the server publishes, and refused in SPIRE's words.

use std::os::unix::fs::PermissionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

use ironroot_api::pb::agent::BanAgentRequest;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::pb::svid::{MintJwtsvidRequest, NewJwtsvidRequest};
use ironroot_api::pb::types::{Jwtsvid, Spiffeid};
use ironroot_lab::deployment::{Server, ServerOptions, TRUST_DOMAIN};
use ironroot_lab::jwt::{Jwks, parts};
use ironroot_lab::server_client::{Agent, ServerClient};
use serde_json::Value;
use tonic::{Code, Status};

const AUDIENCE: &str = "https://vault.example.org";

fn server(lines: &str) -> Server {
    Server::start(&ServerOptions { server_lines: lines.to_owned(), ..ServerOptions::default() })
}

fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

fn now_unix() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

fn audience(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn new(agent: &Agent, entry_id: &str, names: &[&str]) -> Result<Jwtsvid, Status> {
    let request = NewJwtsvidRequest { entry_id: entry_id.to_owned(), audience: audience(names) };
    let answer = agent.svids().new_jwtsvid(request).await?;
    Ok(answer.into_inner().svid.expect("an SVID"))
}

async fn mint(client: &ServerClient, trust_domain: &str, path: &str, names: &[&str]) -> Result<Jwtsvid, Status> {
    let id = Some(Spiffeid { trust_domain: trust_domain.to_owned(), path: path.to_owned() });
    let request = MintJwtsvidRequest { id, audience: audience(names), ttl: 60 };
    let answer = SvidClient::new(client.admin().await).mint_jwtsvid(request).await?;
    Ok(answer.into_inner().svid.expect("an SVID"))
}

fn said(refused: Result<Jwtsvid, Status>) -> (Code, String) {
    let status = refused.expect_err("refused");
    (status.code(), status.message().to_owned())
}

fn refused(code: Code, words: &str) -> (Code, String) {
    (code, words.to_owned())
}

//= JWT-01 JWT-03 JWT-04 JWT-05
#[tokio::test]
async fn an_agent_gets_a_token_for_its_entry_which_the_published_keys_verify() {
    let server = server("jwt_issuer = \"https://oidc.example.org\"");
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let more = ["-jwtSVIDTTL", "120", "-jwtSVIDIncludeJTI=true", "-hint", "internal"];
    let entry = server.create_entry(agent.id().as_str(), "/web", &["unix:uid:1"], &more);
    let svid = new(&agent, &entry, &[AUDIENCE, "", "second"]).await.expect("signed");
    let keys = Jwks::printed_by(&server);
    let claims = keys.verify(&svid.token, AUDIENCE, now_unix()).expect("a good token");
    keys.verify(&svid.token, "second", now_unix()).expect("for each of them");
    let (header, _) = parts(&svid.token);
    let header = header.as_object().expect("an object");
    let names: Vec<&str> = header.keys().map(String::as_str).collect();
    assert_eq!((names, &header["alg"], &header["typ"]), (vec!["alg", "kid", "typ"], &"ES256".into(), &"JWT".into()));
    assert_eq!(svid.id, Some(Spiffeid { trust_domain: TRUST_DOMAIN.to_owned(), path: "/web".to_owned() }));
    assert_eq!(
        (&claims["sub"], &claims["aud"][1], claims["aud"].as_array().map(Vec::len)),
        (&id("/web").into(), &"second".into(), Some(2))
    );
    assert_eq!((&claims["iss"], svid.hint.as_str()), (&"https://oidc.example.org".into(), "internal"));
    assert_eq!((&claims["iat"], &claims["exp"]), (&svid.issued_at.into(), &svid.expires_at.into()));
    assert_eq!(svid.expires_at - svid.issued_at, 120);
    assert_eq!(claims["jti"].as_str().map(str::len), Some(22), "16 bytes");
    let again = new(&agent, &entry, &[AUDIENCE]).await.expect("signed");
    assert_ne!(parts(&again.token).1["jti"], claims["jti"]);
    let audit = format!("{} audience {AUDIENCE},second", id("/web"));
    assert!(server.log().contains(&audit) && server.log().contains("NewJWTSVID"), "{}", server.log());
    assert!(!server.log().contains(&svid.token), "a token is a secret");
}

#[tokio::test]
async fn each_kind_of_key_signs_with_its_algorithm() {
    for (kind, algorithm) in [("ec-p384", "ES384"), ("rsa-2048", "RS256")] {
        let server = server(&format!("jwt_key_type = \"{kind}\""));
        let client = ServerClient::new(&server).await;
        let minted = mint(&client, TRUST_DOMAIN, "/job", &[AUDIENCE]).await.expect("minted");
        assert_eq!(parts(&minted.token).0["alg"], algorithm);
        Jwks::printed_by(&server).verify(&minted.token, AUDIENCE, now_unix()).expect("a good token");
    }
}

#[tokio::test]
async fn what_nothing_is_said_about_has_the_defaults() {
    let server = server("default_jwt_svid_ttl = \"90s\"");
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let entry = server.create_entry(agent.id().as_str(), "/web", &["unix:uid:1"], &[]);
    let svid = new(&agent, &entry, &[AUDIENCE]).await.expect("signed");
    let (_, claims) = parts(&svid.token);
    let names: Vec<&str> = claims.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!((names, svid.expires_at - svid.issued_at), (vec!["aud", "exp", "iat", "sub"], 90));
}

#[tokio::test]
async fn an_agent_gets_no_token_for_anothers_entry_nor_for_nobody() {
    let server = server("");
    let client = ServerClient::new(&server).await;
    let (agent, other) = (client.agent().await, client.agent().await);
    let own = server.create_entry(agent.id().as_str(), "/web", &["unix:uid:1"], &[]);
    let others = server.create_entry(other.id().as_str(), "/db", &["unix:uid:1"], &[]);
    let unknown = refused(Code::NotFound, "entry not found or not authorized");
    for entry in [others.as_str(), "", "no-such-entry"] {
        assert_eq!(said(new(&agent, entry, &[AUDIENCE]).await), unknown, "{entry:?}");
    }
    assert_eq!(said(new(&agent, &"x".repeat(256), &[AUDIENCE]).await).0, Code::InvalidArgument);
    let nobody = refused(Code::InvalidArgument, "at least one audience is required");
    for names in [&[][..], &[""]] {
        assert_eq!(said(new(&agent, &own, names).await), nobody);
    }
    let many: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(new(&agent, &own, &many).await.is_err(), "more than fit into a header");
    let long = "a".repeat(9000);
    let (code, words) = said(new(&agent, &own, &[&long]).await);
    assert_eq!((code, words.contains("no token holds them")), (Code::InvalidArgument, true), "{words}");
    assert!(server.log().contains("entry not found or not authorized"), "refusals have their audit line");
}

#[tokio::test]
async fn a_banned_agent_gets_no_token() {
    let server = server("");
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let entry = server.create_entry(agent.id().as_str(), "/web", &["unix:uid:1"], &[]);
    new(&agent, &entry, &[AUDIENCE]).await.expect("signed");
    let ban = BanAgentRequest { id: Some(agent.id().to_pb()) };
    AgentClient::new(client.admin().await).ban_agent(ban).await.expect("banned");
    assert_eq!(said(new(&agent, &entry, &[AUDIENCE]).await).0, Code::PermissionDenied);
}

#[tokio::test]
async fn an_administrator_mints_tokens_for_ids_of_workloads_only() {
    let server = server("");
    let client = ServerClient::new(&server).await;
    let minted = mint(&client, TRUST_DOMAIN, "/job", &[AUDIENCE]).await.expect("minted");
    let keys = Jwks::printed_by(&server);
    let claims = keys.verify(&minted.token, AUDIENCE, now_unix()).expect("a good token");
    assert_eq!((&claims["sub"], minted.expires_at - minted.issued_at), (&id("/job").into(), 60));
    for (trust_domain, path) in [("elsewhere.example", "/job"), (TRUST_DOMAIN, ""), (TRUST_DOMAIN, "/spire/server")] {
        let (code, words) = said(mint(&client, trust_domain, path, &[AUDIENCE]).await);
        assert_eq!(code, Code::InvalidArgument, "{trust_domain}{path}: {words}");
        assert!(words.starts_with("invalid SPIFFE ID: "), "{words}");
    }
    let nobody = refused(Code::InvalidArgument, "at least one audience is required");
    assert_eq!(said(mint(&client, TRUST_DOMAIN, "/job", &[]).await), nobody);
    let nameless = MintJwtsvidRequest { audience: audience(&[AUDIENCE]), ..Default::default() };
    let nameless = SvidClient::new(client.admin().await).mint_jwtsvid(nameless).await.expect_err("refused");
    assert_eq!(nameless.message(), "invalid SPIFFE ID: request must specify SPIFFE ID");
}

#[tokio::test]
async fn jwt_mint_prints_the_token_or_writes_it_for_its_owner_alone() {
    let server = server("");
    let mint = ["jwt", "mint", "-spiffeID", &id("/job"), "-audience", AUDIENCE, "-audience", "second"];
    let printed = server.cli(&mint);
    let keys = Jwks::printed_by(&server);
    keys.verify(printed.trim_end(), "second", now_unix()).expect("a good token");
    let json: Value = serde_json::from_str(&server.cli(&[&mint[..], &["-output", "json"]].concat())).expect("JSON");
    keys.verify(json["svid"]["token"].as_str().expect("a token"), AUDIENCE, now_unix()).expect("a good token");
    let file = server.directory().join("token");
    let path = file.to_str().expect("UTF-8");
    let wrote = server.cli(&[&mint[..], &["-ttl", "1m", "-write", path]].concat());
    assert_eq!(wrote, format!("JWT-SVID written to {path}\n"));
    assert_eq!(std::fs::metadata(&file).expect("written").permissions().mode() & 0o777, 0o600);
    let written = std::fs::read_to_string(&file).expect("read");
    let claims = keys.verify(&written, AUDIENCE, now_unix()).expect("a good token");
    assert_eq!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(exp, iat)| exp - iat), Some(60));
    let long = server.cli_output(&[&mint[..], &["-ttl", "48h"]].concat());
    let notes = String::from_utf8_lossy(&long.stderr).into_owned();
    assert!(long.status.success() && notes.contains("lifetime was capped shorter than specified ttl"), "{notes}");
    for (arguments, words) in [
        (&["jwt", "mint", "-audience", "a"][..], "spiffeID must be specified"),
        (&["jwt", "mint", "-spiffeID", &id("/job")], "at least one audience must be specified"),
    ] {
        let output = server.cli_output(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn disabled_jwt_svids_are_refused_in_spires_words_and_nothing_is_published() {
    let server = server("disable_jwt_svids = true");
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let entry = server.create_entry(agent.id().as_str(), "/web", &["unix:uid:1"], &[]);
    let disabled = refused(Code::Unimplemented, "JWT functionality is disabled");
    assert_eq!(said(new(&agent, &entry, &[AUDIENCE]).await), disabled);
    assert_eq!(said(mint(&client, TRUST_DOMAIN, "/job", &[AUDIENCE]).await), disabled);
    assert_eq!(Jwks::printed_by(&server).key_ids().len(), 0);
    let output = server.cli_output(&["jwt", "mint", "-spiffeID", &id("/job"), "-audience", "a"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("JWT functionality is disabled"));
    assert!(server.log().contains("JWT-SVID profile is disabled"));
}

#[tokio::test]
async fn the_bundle_that_agents_fetch_has_the_key_and_a_crash_of_the_server_keeps_it() {
    let mut server = server("");
    let client = ServerClient::new(&server).await;
    let minted = mint(&client, TRUST_DOMAIN, "/job", &[AUDIENCE]).await.expect("minted");
    let fetched = async || {
        let answer = BundleClient::new(client.anonymous().await).get_bundle(GetBundleRequest::default()).await;
        answer.expect("a bundle").into_inner()
    };
    let before = fetched().await;
    let [key] = &before.jwt_authorities[..] else { panic!("{before:?}") };
    assert_eq!(parts(&minted.token).0["kid"], key.key_id.as_str());
    assert!(key.expires_at > now_unix() && !key.tainted && before.sequence_number > 0);
    server.kill();
    server.restart();
    assert_eq!(fetched().await, before);
    Jwks::printed_by(&server).verify(&minted.token, AUDIENCE, now_unix()).expect("still good");
    let again = mint(&client, TRUST_DOMAIN, "/job", &[AUDIENCE]).await.expect("minted");
    assert_eq!(parts(&again.token).0["kid"], key.key_id.as_str(), "the same key signs");
}
