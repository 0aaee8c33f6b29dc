//! Servers below this one, as they call: the CA that they get, and the keys of JWT-SVIDs that they publish.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::bundle::{GetBundleRequest, PublishJwtAuthorityRequest, PublishWitAuthorityRequest};
use ironroot_api::pb::issued::issued_client::IssuedClient;
use ironroot_api::pb::issued::{IssuedJwt, IssuedSvid, ReportIssuedRequest};
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::pb::svid::{
    BatchNewX509svidRequest, NewDownstreamX509caRequest, NewDownstreamX509caResponse, NewX509svidParams,
};
use ironroot_api::pb::types::{Bundle, JwtKey, WitKey};
use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN, expect_within_async};
use ironroot_lab::server_client::{Agent, ServerClient, csr, key};
use ironroot_server::ca::{LONGEST_PUBLISHED_LIFE, MAX_KEYS_OF_A_SERVER, MAX_PUBLISHED_KEYS};
use rcgen::{KeyPair, PublicKeyData, SanType};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};
use x509_cert::ext::pkix::BasicConstraints;

/// Certificates that one request may ask for, which is what one address has signed in a second. Source: server/src/endpoints/policy.rs.
const MAX_AT_ONCE: usize = 500;
/// Requests for as many that are under way at once.
const CROWD: usize = 8;

const NO_ROOT: &str = "root { enabled = false }";

fn server(lines: &str) -> Server {
    Server::start(&ServerOptions { server_lines: lines.to_owned(), ca_ttl: "2h", ..ServerOptions::default() })
}

fn now_unix() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().cast_signed()
}

async fn with_svid_of(client: &ServerClient, agent: &Agent, entry_id: String) -> Channel {
    client.with(&agent.fetch_svid(entry_id).await).await.expect("a good certificate")
}

async fn ask(channel: &Channel, csr: Vec<u8>, ttl: i32) -> Result<NewDownstreamX509caResponse, Status> {
    let request = NewDownstreamX509caRequest { csr: csr.into(), preferred_ttl: ttl };
    Ok(SvidClient::new(channel.clone()).new_downstream_x509ca(request).await?.into_inner())
}

async fn publish(channel: &Channel, key: Option<JwtKey>) -> Result<Vec<JwtKey>, Status> {
    let request = PublishJwtAuthorityRequest { jwt_authority: key };
    Ok(BundleClient::new(channel.clone()).publish_jwt_authority(request).await?.into_inner().jwt_authorities)
}

async fn bundle(client: &ServerClient) -> Bundle {
    BundleClient::new(client.admin().await)
        .get_bundle(GetBundleRequest::default())
        .await
        .expect("a bundle")
        .into_inner()
}

fn jwt_key(key: &KeyPair, key_id: &str, lives: i64) -> JwtKey {
    let public_key = key.subject_public_key_info().into();
    JwtKey { public_key, key_id: key_id.to_owned(), expires_at: now_unix() + lives, tainted: false }
}

fn has(bundle: &Bundle, key_id: &str) -> bool {
    bundle.jwt_authorities.iter().any(|key| key.key_id == key_id)
}

fn said<T: std::fmt::Debug>(refused: Result<T, Status>) -> (Code, String) {
    let status = refused.expect_err("refused");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn a_server_below_gets_a_ca_of_this_servers_naming_for_its_key_alone() {
    for (lines, intermediates) in [(NO_ROOT, 0), ("", 1)] {
        let server = server(lines);
        let client = ServerClient::new(&server).await;
        let agent = client.agent().await;
        let channel = client.below(&server, &agent, "/lower").await;
        let own_key = key();
        let names = [SanType::URI("spiffe://elsewhere.example".try_into().expect("ASCII"))];
        let answer = ask(&channel, csr(&own_key, &names), 60).await.expect("signed");
        assert_eq!(answer.ca_cert_chain.len(), 1 + intermediates, "the CA, and what is between it and the root");
        let chain: Vec<_> = answer.ca_cert_chain.iter().map(|der| Certificate::parse(der).expect("DER")).collect();
        let ca = &chain[0];
        assert!(ca.is_ca() && ca.spki_der() == own_key.subject_public_key_info());
        assert_eq!(ca.spiffe_id().expect("one").as_str(), format!("spiffe://{TRUST_DOMAIN}"));
        let subject = ca.inner().tbs_certificate().subject().to_string();
        assert!(subject.contains("OU=DOWNSTREAM-1") && subject.contains("O=SPIFFE"), "{subject}");
        let life = ca.not_after_unix() - now_unix();
        assert!((50..=60).contains(&life), "{life} s");
        let root = Certificate::parse(&answer.x509_authorities[0]).expect("DER");
        let issuer = chain.get(1).unwrap_or(&root);
        assert_eq!(ca.authority_key_id(), issuer.subject_key_id());
        let bundle: Vec<_> = bundle(&client).await.x509_authorities.into_iter().map(|root| root.asn1).collect();
        assert_eq!(answer.x509_authorities, bundle);

        let default = ask(&channel, csr(&own_key, &[]), 0).await.expect("signed");
        let long = ask(&channel, csr(&own_key, &[]), i32::MAX).await.expect("signed");
        for answer in [default, long] {
            let ca = Certificate::parse(&answer.ca_cert_chain[0]).expect("DER");
            let end = ca.not_after_unix() - now_unix();
            assert!((7000..=7200).contains(&end), "as long as ca_ttl, and no longer than its issuer: {end} s");
            assert!(ca.not_after_unix() <= issuer.not_after_unix());
        }
        assert!(server.log().contains("NewDownstreamX509CA"), "{}", server.log());
    }
}

#[tokio::test]
async fn a_request_for_a_ca_is_refused_in_spires_words() {
    let server = server("");
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let channel = client.below(&server, &agent, "/lower").await;
    let mut forged = csr(&key(), &[]);
    *forged.last_mut().expect("a signature") ^= 1;
    for (csr, words) in [(Vec::new(), "malformed CSR"), (b"0".to_vec(), "malformed CSR"), (forged, "CSR")] {
        let (code, message) = said(ask(&channel, csr, 0).await);
        assert_eq!(code, Code::InvalidArgument, "{message}");
        assert!(message.contains(words), "{message}");
    }
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("a key");
    let (code, message) = said(ask(&channel, csr(&p521, &[]), 0).await);
    assert_eq!((code, message.contains("key must be EC P-256")), (Code::InvalidArgument, true), "{message}");
}

#[tokio::test]
async fn an_entry_that_is_downstream_no_more_gives_no_ca_on_the_connection_that_is_open() {
    let server = server("");
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let channel = client.below(&server, &agent, "/lower").await;
    ask(&channel, csr(&key(), &[]), 0).await.expect("signed");
    let id = format!("spiffe://{TRUST_DOMAIN}/lower");
    let shown = server.cli(&["entry", "show", "-downstream", "-output", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let entry = shown["entries"][0]["id"].as_str().expect("an ID");
    server.cli(&["entry", "delete", "-entryID", entry]);
    assert_eq!(said(ask(&channel, csr(&key(), &[]), 0).await).0, Code::PermissionDenied, "{id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_deleted_while_its_server_waits_for_its_turn_gives_no_ca() {
    let options = ServerOptions { rate_limits: true, ..ServerOptions::default() };
    let server = tokio::task::block_in_place(|| Server::start(&options));
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let entry_id = server.create_entry(agent.id().as_str(), "/lower", &["unix:uid:1"], &["-downstream"]);
    let channel = with_svid_of(&client, &agent, entry_id.clone()).await;
    // Nothing of it is signed, and all of it counts: everybody at this address waits for some seconds.
    let request = |many| BatchNewX509svidRequest { params: vec![NewX509svidParams::default(); many] };
    let crowd = (0..CROWD).map(|_| {
        let (mut svids, request) = (agent.svids(), request(MAX_AT_ONCE));
        tokio::spawn(async move { svids.batch_new_x509svid(request).await.map(drop) })
    });
    let crowd: Vec<_> = crowd.collect();
    let waits = async || timeout(Duration::from_secs(1), agent.svids().batch_new_x509svid(request(1))).await.is_err();
    expect_within_async(DEADLINE, "everybody at this address waits", || server.log(), waits).await;
    let (began, own_key) = (Instant::now(), key());
    let asking = tokio::spawn({
        let channel = channel.clone();
        async move { ask(&channel, csr(&own_key, &[]), 0).await }
    });
    tokio::task::block_in_place(|| server.cli(&["entry", "delete", "-entryID", &entry_id]));
    let (code, message) = said(asking.await.expect("no panic"));
    assert_eq!(code, Code::PermissionDenied, "{message}");
    assert!(began.elapsed() > Duration::from_secs(1), "it has waited: {:?}", began.elapsed());
    crowd.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_key_that_a_server_below_publishes_is_in_the_bundle_until_it_ends_and_through_a_restart() {
    let mut server = server("");
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let channel = client.below(&server, &agent, "/lower").await;
    let own = bundle(&client).await;
    let [lasting, brief] = [key(), key()];
    let all = publish(&channel, Some(jwt_key(&lasting, "lasting", 3600))).await.expect("published");
    assert_eq!(all.len(), own.jwt_authorities.len() + 1, "every key of the trust domain");
    let known = async |key_id: &str| has(&bundle(&client).await, key_id);
    expect_within_async(DEADLINE, "it is in the bundle", || server.log(), async || known("lasting").await).await;
    let sequence = bundle(&client).await.sequence_number;
    assert!(sequence > own.sequence_number);
    publish(&channel, Some(jwt_key(&lasting, "lasting", 3600))).await.expect("the same again");
    publish(&channel, Some(jwt_key(&brief, "brief", 2))).await.expect("published");
    expect_within_async(DEADLINE, "it is in the bundle", || server.log(), async || known("brief").await).await;

    server.kill();
    server.restart();
    let client = ServerClient::new(&server).await;
    let after = bundle(&client).await;
    assert!(has(&after, "lasting") && after.sequence_number > sequence);
    let gone = async || !has(&bundle(&client).await, "brief");
    let patience = DEADLINE + std::time::Duration::from_secs(60);
    expect_within_async(patience, "it has ended", || server.log(), gone).await;
    assert!(has(&bundle(&client).await, "lasting"));
    assert!(bundle(&client).await.sequence_number > after.sequence_number);
}

#[tokio::test]
async fn keys_that_nobody_could_verify_with_are_refused_by_name() {
    let server = server("");
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let channel = client.below(&server, &agent, "/lower").await;
    let good = jwt_key(&key(), "good", 3600);
    publish(&channel, Some(good.clone())).await.expect("published");
    let own = bundle(&client).await.jwt_authorities[0].key_id.clone();
    for (asked, words) in [
        (None, "missing JWT authority"),
        (Some(JwtKey { key_id: String::new(), ..good.clone() }), "invalid JWT authority: missing key ID"),
        (Some(JwtKey { key_id: "x".repeat(256), ..good.clone() }), "key ID has 256 bytes"),
        (Some(JwtKey { public_key: b"none".to_vec().into(), ..good.clone() }), "its public key is none"),
        (Some(jwt_key(&key(), "over", -1)), "it says that it has ended"),
        (Some(jwt_key(&key(), "good", 3600)), "its key ID is that of another key"),
        (Some(jwt_key(&key(), &own, 3600)), "its key ID is that of another key"),
    ] {
        let (code, message) = said(publish(&channel, asked).await);
        assert_eq!(code, Code::InvalidArgument, "{message}");
        assert!(message.contains(words), "{words:?} is not in: {message}");
    }
}

#[tokio::test]
async fn a_published_key_ends_within_a_bound_and_an_operator_taints_and_revokes_it() {
    let server = server("");
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let channel = client.below(&server, &agent, "/lower").await;
    for key_id in ["a\nb", "a\u{9b}31mb"] {
        let (code, message) = said(publish(&channel, Some(jwt_key(&key(), key_id, 3600))).await);
        assert_eq!((code, message.contains("control characters")), (Code::InvalidArgument, true), "{message}");
    }
    let endless = JwtKey { expires_at: 1 << 62, ..jwt_key(&key(), "endless", 0) };
    // As SPIRE's API has it: 0 is without an end.
    for expires_at in [0, 1 << 62] {
        publish(&channel, Some(JwtKey { expires_at, ..endless.clone() })).await.expect("published");
    }
    let find = async || bundle(&client).await.jwt_authorities.into_iter().find(|key| key.key_id == "endless");
    expect_within_async(DEADLINE, "it is in the bundle", || server.log(), async || find().await.is_some()).await;
    let ends = find().await.expect("there").expires_at - now_unix();
    assert!((LONGEST_PUBLISHED_LIFE - 600..=LONGEST_PUBLISHED_LIFE).contains(&ends), "{ends} s");
    assert!(server.log().contains("publishes a key for longer"), "{}", server.log());

    let revoke = ["localauthority", "jwt", "revoke", "-authorityID", "endless"];
    let refused = server.cli_output(&revoke);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("revoke an untainted key"), "{refused:?}");
    server.cli(&["localauthority", "jwt", "taint", "-authorityID", "endless"]);
    assert!(find().await.expect("until it is revoked").tainted);
    publish(&channel, Some(endless)).await.expect("published again");
    assert!(find().await.expect("there").tainted, "its publisher does not take the word back");
    server.cli(&revoke);
    assert_eq!(find().await, None);
}

#[tokio::test]
async fn a_published_key_leaves_the_bundle_with_the_ban_of_its_agent_and_while_no_entry_is_behind_it() {
    let server = server("");
    let client = ServerClient::new(&server).await;
    let [good, bad] = [client.agent().await, client.agent().await];
    let of_good = client.below(&server, &good, "/lower").await;
    let of_bad = client.below(&server, &bad, "/lower").await;
    publish(&of_good, Some(jwt_key(&key(), "good", 3600))).await.expect("published");
    publish(&of_bad, Some(jwt_key(&key(), "bad", 3600))).await.expect("published");
    let expect = async |wanted: [bool; 2]| {
        let is_so = async || {
            let bundle = bundle(&client).await;
            ["good", "bad"].map(|key_id| has(&bundle, key_id)) == wanted
        };
        expect_within_async(DEADLINE, &format!("{wanted:?}"), || server.log(), is_so).await;
    };
    expect([true, true]).await;
    server.cli(&["agent", "ban", "-spiffeID", bad.id().as_str()]);
    expect([true, false]).await;
    let shown = server.cli(&["entry", "show", "-downstream", "-output", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    for entry in shown["entries"].as_array().expect("entries") {
        server.cli(&["entry", "delete", "-entryID", entry["id"].as_str().expect("an ID")]);
    }
    expect([false, false]).await;
    server.create_entry(good.id().as_str(), "/lower", &["unix:uid:7"], &["-downstream"]);
    expect([true, false]).await;
}

#[tokio::test]
async fn neither_one_server_below_nor_all_together_fill_the_bundle() {
    let server = server("");
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let published = key();
    let mut count = 0;
    for number in 0.. {
        let channel = client.below(&server, &agent, &format!("/lower-{number}")).await;
        let room = (MAX_PUBLISHED_KEYS - count).min(MAX_KEYS_OF_A_SERVER);
        for of_it in 0..room {
            let key = jwt_key(&published, &format!("{number}-{of_it}"), 3600);
            publish(&channel, Some(key)).await.expect("there is room");
        }
        count += room;
        let (code, message) = said(publish(&channel, Some(jwt_key(&published, "one more", 3600))).await);
        let words = if room == MAX_KEYS_OF_A_SERVER { "of this downstream server" } else { "of downstream servers" };
        assert_eq!((code, message.contains(words)), (Code::ResourceExhausted, true), "{message}");
        if room == 0 {
            break;
        }
        publish(&channel, Some(jwt_key(&published, &format!("{number}-0"), 7200))).await.expect("it is there");
    }
    assert_eq!(count, MAX_PUBLISHED_KEYS);
}

#[tokio::test]
async fn a_server_below_publishes_a_key_of_wit_svids_and_without_the_switch_is_told_so() {
    for (lines, is_on) in [("enable_wit_svids = true", true), ("", false)] {
        let server = server(lines);
        let client = ServerClient::new(&server).await;
        let agent = client.agent().await;
        let below = client.below(&server, &agent, "/lower").await;
        let JwtKey { public_key, key_id, expires_at, tainted } =
            jwt_key(&KeyPair::generate().expect("a key"), "wit", 600);
        let key = WitKey { public_key, key_id, expires_at, tainted };
        let request = PublishWitAuthorityRequest { wit_authority: Some(key) };
        let answer = BundleClient::new(below).publish_wit_authority(request).await;
        if !is_on {
            let refused = (Code::Unimplemented, "WIT functionality is disabled".to_owned());
            assert_eq!(said(answer.map(tonic::Response::into_inner)), refused);
            continue;
        }
        let all = answer.expect("published").into_inner().wit_authorities;
        assert_eq!(all.len(), 2, "this server's own too");
        let has = async || bundle(&client).await.wit_authorities.iter().any(|key| key.key_id == "wit");
        expect_within_async(DEADLINE, "it is in the bundle", || server.log(), has).await;
        assert!(!bundle(&client).await.jwt_authorities.iter().any(|key| key.key_id == "wit"));
    }
}

fn path_length(answer: &NewDownstreamX509caResponse) -> Option<u8> {
    let ca = Certificate::parse(&answer.ca_cert_chain[0]).expect("DER");
    let constraints = ca.inner().tbs_certificate().get_extension::<BasicConstraints>().expect("parses");
    constraints.expect("there are some").1.path_len_constraint
}

#[tokio::test]
async fn the_ca_of_an_agent_may_have_no_other_below_it_and_that_of_a_server_may() {
    let server = server("");
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let lower = client.below(&server, &agent, "/lower").await;
    assert_eq!(path_length(&ask(&lower, csr(&key(), &[]), 60).await.expect("signed")), None);
    let own = ["ironroot:local_authority"];
    let below = async |path: &str, selectors: &[&str]| {
        let entry_id = server.create_entry(agent.id().as_str(), path, selectors, &["-downstream"]);
        with_svid_of(&client, &agent, entry_id).await
    };
    let gateway = below("/gateway", &own).await;
    assert_eq!(path_length(&ask(&gateway, csr(&key(), &[]), 60).await.expect("signed")), Some(0));
    let with_more = ["ironroot:local_authority", "unix:uid:1"];
    let other = below("/other", &with_more).await;
    assert_eq!(path_length(&ask(&other, csr(&key(), &[]), 60).await.expect("signed")), None, "a workload has it");
    server.create_entry(agent.id().as_str(), "/gateway", &["unix:uid:2"], &["-downstream"]);
    let both = ask(&gateway, csr(&key(), &[]), 60).await.expect("signed");
    assert_eq!(path_length(&both), None, "of several entries the widest counts");
}

/// A connection by the entry of a group of gateways, fetched through `agent`, and the serial number of its SVID.
async fn gateway(client: &ServerClient, agent: &Agent, entry_id: &str) -> (Channel, String) {
    let svid = agent.fetch_svid(entry_id.to_owned()).await;
    (client.with(&svid).await.expect("a good certificate"), svid.leaf().serial_decimal())
}

#[tokio::test]
async fn a_gateways_key_is_named_by_its_svid_and_leaves_the_bundle_with_the_ban_of_its_agent_and_no_others() {
    let server = server("");
    let client = ServerClient::new(&server).await;
    let [good, bad] = [client.agent().await, client.agent().await];
    let entries = [&good, &bad].map(|agent| {
        server.create_entry(agent.id().as_str(), "/gateway", &["ironroot:local_authority"], &["-downstream"])
    });
    let ((of_good, good_serial), (of_bad, bad_serial)) =
        (gateway(&client, &good, &entries[0]).await, gateway(&client, &bad, &entries[1]).await);
    for wrong in ["another", &good_serial] {
        let (code, message) = said(publish(&of_bad, Some(jwt_key(&key(), wrong, 3600))).await);
        assert_eq!((code, message.contains(&bad_serial)), (Code::InvalidArgument, true), "{message}");
    }
    publish(&of_good, Some(jwt_key(&key(), &good_serial, 3600))).await.expect("published");
    publish(&of_bad, Some(jwt_key(&key(), &bad_serial, 3600))).await.expect("published");
    let known = async |serial: &str| has(&bundle(&client).await, serial);
    let both = async || known(&good_serial).await && known(&bad_serial).await;
    expect_within_async(DEADLINE, "both are in the bundle", || server.log(), both).await;
    server.cli(&["agent", "ban", "-spiffeID", bad.id().as_str()]);
    let gone = async || !known(&bad_serial).await;
    expect_within_async(DEADLINE, "the banned agent's is not", || server.log(), gone).await;
    assert!(known(&good_serial).await, "the other's is");
    let (code, _) = said(publish(&of_bad, Some(jwt_key(&key(), &bad_serial, 3600))).await);
    assert_eq!(code, Code::PermissionDenied, "and it publishes no other");
}

async fn report(channel: &Channel, svids: Vec<IssuedSvid>) -> Result<(), Status> {
    IssuedClient::new(channel.clone()).report_issued(ReportIssuedRequest { svids }).await.map(drop)
}

fn issued(entry_id: &str, path: &str, serial: &str) -> IssuedSvid {
    IssuedSvid {
        entry_id: entry_id.to_owned(),
        spiffe_id: format!("spiffe://{TRUST_DOMAIN}{path}"),
        serial_number: serial.to_owned(),
        jwt: None,
        issued_at: now_unix() - 60,
        expires_at: now_unix() + 60,
    }
}

#[tokio::test]
async fn what_an_agent_has_signed_itself_is_noted_whole_or_not_at_all_and_only_of_an_agent() {
    let server = server("");
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let entry = server.create_entry(agent.id().as_str(), "/w", &["unix:uid:1"], &[]);
    report(&agent.channel, vec![issued(&entry, "/w", "771"), issued("gone", "/w", "772")]).await.expect("noted");
    let line = |serial: &str| {
        let log = server.log();
        log.lines().find(|line| line.contains("ReportIssued") && line.contains(serial)).unwrap_or_default().to_owned()
    };
    assert!(line("serial 771").contains(&format!("/w serial 771, entry {entry}")), "{}", server.log());
    assert!(!line("serial 771").contains("no entry"), "{}", server.log());
    assert!(line("serial 772").contains("which no entry of that ID says now"), "{}", server.log());

    let good = issued(&entry, "/w", "773");
    let elsewhere = IssuedSvid { spiffe_id: "spiffe://elsewhere/w".to_owned(), ..good.clone() };
    for (bad, words) in [
        (elsewhere, "SVID 2 has no SPIFFE ID of this trust domain"),
        (issued("", "/w", "1"), "SVID 2 has no entry ID"),
        (issued("a\nb", "/w", "1"), "SVID 2 has no entry ID"),
        (issued(&entry, "/w", "0x1"), "SVID 2 has no serial number"),
        (issued(&entry, "/w", &"9".repeat(50)), "SVID 2 has no serial number"),
    ] {
        let (code, message) = said(report(&agent.channel, vec![good.clone(), bad]).await);
        assert_eq!((code, message.contains(words)), (Code::InvalidArgument, true), "{message}");
    }
    assert!(line("serial 773").is_empty(), "none of a refused report is noted");
    let jwt = |key_id: &str, audience: &str, count| {
        let jwt = Some(IssuedJwt { key_id: key_id.to_owned(), audience: audience.to_owned(), count });
        IssuedSvid { jwt, serial_number: String::new(), ..good.clone() }
    };
    let several = vec![jwt("78", "a\nb", 1), jwt("79", &"x".repeat(9999), 12)];
    report(&agent.channel, several).await.expect("noted, whatever audiences workloads choose");
    assert!(line("by key 78").contains("/w JWT-SVID by key 78 audience a\u{fffd}b, entry"), "{}", server.log());
    assert!(line("by key 79").contains("/w 12 JWT-SVIDs by key 79 audience xxx"), "{}", server.log());
    for key_id in ["", "a\nb", &"9".repeat(256)] {
        let (code, message) = said(report(&agent.channel, vec![jwt(key_id, "a", 1)]).await);
        assert_eq!((code, message.contains("the ID of its key")), (Code::InvalidArgument, true), "{message}");
    }
    let (code, message) = said(report(&agent.channel, vec![good.clone(); 101]).await);
    assert!(matches!(code, Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted), "{code:?} {message}");
    let lower = client.below(&server, &agent, "/lower").await;
    for stranger in [client.anonymous().await, lower] {
        assert_eq!(said(report(&stranger, vec![good.clone()]).await).0, Code::PermissionDenied);
    }
}
