//! AttestAgent and RenewAgent from outside: join tokens, renewal, a cloned agent, and nodes that talk nonsense.

use std::sync::Arc;

use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::attest_agent_request::{Params, Step};
use ironroot_api::pb::agent::{
    AgentX509svidParams, AttestAgentRequest, CountAgentsRequest, CreateJoinTokenRequest, GetAgentRequest,
    RenewAgentRequest,
};
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{GetAuthorizedEntriesRequest, ListEntriesRequest, list_entries_request};
use ironroot_api::pb::types;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::denial_reason;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN, expect_within_async};
use ironroot_lab::server_client::{Agent, Credentials, ServerClient, SharedServer, TpmNode, attest, csr, key, params};
use tonic::transport::Channel;
use tonic::{Code, Status};

static SERVER: SharedServer = SharedServer::new();

async fn lab() -> (Arc<Server>, ServerClient) {
    let server = SERVER.get(&ServerOptions { require_resident_key: false, ..Default::default() });
    let client = ServerClient::new(&server).await;
    (server, client)
}

fn id(path: &str) -> SpiffeId {
    TrustDomain::new(TRUST_DOMAIN).expect("legal").id_with_path(path).expect("legal")
}

async fn create_token(client: &ServerClient, request: CreateJoinTokenRequest) -> Result<types::JoinToken, Status> {
    AgentClient::new(client.admin().await).create_join_token(request).await.map(tonic::Response::into_inner)
}

async fn authorized(agent: &Agent) -> Result<Vec<types::Entry>, Status> {
    let answer = agent.entries().get_authorized_entries(GetAuthorizedEntriesRequest::default()).await?;
    Ok(answer.into_inner().entries)
}

async fn denied(agent: &Agent) -> Option<Reason> {
    denial_reason(&authorized(agent).await.expect_err("denied"))
}

async fn renew(agent: &Agent) -> Result<Credentials, Status> {
    let key = key();
    let params = Some(AgentX509svidParams { csr: csr(&key, &[]).into() });
    let answer = agent.agents().renew_agent(RenewAgentRequest { params }).await?;
    Ok(Credentials::new(&answer.into_inner().svid.expect("an SVID"), &key))
}

async fn shown(client: &ServerClient, id: &SpiffeId) -> Option<types::Agent> {
    let request = GetAgentRequest { id: Some(id.to_pb()), output_mask: None };
    AgentClient::new(client.admin().await).get_agent(request).await.ok().map(tonic::Response::into_inner)
}

//= FLT-S3 REG-01
#[tokio::test]
async fn of_a_hundred_redemptions_of_one_token_at_once_exactly_one_wins() {
    let (_server, client) = lab().await;
    let token = client.join_token().await;
    let channels = [client.anonymous().await, client.anonymous().await, client.anonymous().await];
    for channel in &channels {
        // Before its first answer a client does not know how many streams a connection may have, and is refused those above.
        BundleClient::new(channel.clone()).get_bundle(GetBundleRequest::default()).await.expect("anybody may");
    }
    let redeem = |number: usize| {
        let (channel, token) = (channels[number % channels.len()].clone(), token.clone());
        tokio::spawn(async move {
            let key = key();
            let svid = attest(channel, params("join_token", token.into(), csr(&key, &[])), None).await?;
            Ok::<_, Status>(Credentials::new(&svid, &key))
        })
    };
    let tasks: Vec<_> = (0..100).map(redeem).collect();
    let (mut winners, mut losers) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(credentials) => winners.push(credentials),
            Err(status) => losers.push(status),
        }
    }
    assert_eq!((winners.len(), losers.len()), (1, 99));
    for status in losers {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("does not exist or has already been used"), "{status}");
    }
    let winner = client.agent_of(winners.swap_remove(0)).await;
    assert_eq!(winner.id(), id(&format!("/spire/agent/join_token/{token}")));
    authorized(&winner).await.expect("the winner is an agent");
}

/// Tries at once: more than may wait for a token of their address's bucket, one a second.
const TRIES: usize = 40;

/// Whether of many tries at once, all from one address, one is refused for the rate of its address.
async fn is_held_to_a_rate(client: &ServerClient, what: &Params) -> bool {
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..TRIES {
        tries.spawn(attest(client.anonymous().await, what.clone(), None));
    }
    while let Some(refused) = tries.join_next().await {
        let refused = refused.expect("no panic").map(drop).expect_err("nonsense attests nobody");
        match refused.code() {
            Code::ResourceExhausted => return refused.message().contains("rate limit"),
            code => assert_ne!(code, Code::Unavailable, "{refused}"),
        }
    }
    false
}

#[tokio::test]
async fn a_stranger_who_talks_nonsense_is_held_to_the_rate_of_its_address_before_its_csr_is_verified() {
    let server = Server::start(&ServerOptions { rate_limits: true, ..Default::default() });
    let client = ServerClient::new(&server).await;
    let good = csr(&key(), &[]);
    for (last, nonsense) in [
        (11, params("no_such_type", Vec::new(), good.clone())),
        (12, params("tpm2", vec![0xff; 64], good)),
        (13, params("join_token", b"no-such-token".to_vec(), spoiled_csr())),
    ] {
        let stranger = client.clone().at(std::net::Ipv4Addr::new(127, 0, 0, last));
        let kind = nonsense.data.clone().expect("given").r#type;
        assert!(is_held_to_a_rate(&stranger, &nonsense).await, "{kind}");
    }
}

#[tokio::test]
async fn an_expired_token_is_refused_each_time() {
    let (_server, client) = lab().await;
    let token = create_token(&client, CreateJoinTokenRequest { ttl: 1, ..Default::default() }).await.expect("made");
    let is_over = async || now_unix() >= token.expires_at;
    expect_within_async(DEADLINE, "the token's time is over", String::new, is_over).await;
    for _ in 0..2 {
        let status = client.attest_with_token(&token.value).await.err().expect("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("join token has expired"), "{status}");
    }
    let agent = id(&format!("/spire/agent/join_token/{}", token.value));
    assert_eq!(shown(&client, &agent).await, None, "a refused node leaves no row");
}

fn now_unix() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

#[tokio::test]
async fn a_token_with_an_alias_lets_its_agent_serve_what_is_registered_below_the_alias() {
    let (server, client) = lab().await;
    let alias = id("/alias/berlin");
    let below = server.create_entry(alias.as_str(), "/below-alias", &["unix:uid:1"], &[]);
    let request = CreateJoinTokenRequest { ttl: 600, agent_id: Some(alias.to_pb()), ..Default::default() };
    let token = create_token(&client, request).await.expect("made").value;
    let agent_id = id(&format!("/spire/agent/join_token/{token}"));
    let filter = list_entries_request::Filter { by_spiffe_id: Some(alias.to_pb()), ..Default::default() };
    let request = ListEntriesRequest { filter: Some(filter), ..Default::default() };
    let entries = EntryClient::new(client.admin().await).list_entries(request).await.expect("listed").into_inner();
    let [entry] = &entries.entries[..] else { panic!("{entries:?}") };
    assert_eq!(entry.parent_id, Some(agent_id.to_pb()));
    let selector = types::Selector { r#type: "spiffe_id".into(), value: agent_id.to_string() };
    assert_eq!(entry.selectors, [selector]);
    let agent = client.agent_of(client.attest_with_token(&token).await.expect("attested")).await;
    let served: Vec<String> = authorized(&agent).await.expect("agent").into_iter().map(|e| e.id).collect();
    assert!(served.contains(&below) && served.contains(&entry.id), "{served:?}");
}

#[tokio::test]
async fn tokens_that_cannot_be_part_of_an_agents_id_are_refused_when_made_and_when_shown() {
    let (_server, client) = lab().await;
    let too_long = "t".repeat(2048);
    for bad in ["a/b", "..", ".", "a b", "a%2fb", "ü", "a?b", "a\nb", &too_long] {
        let request = CreateJoinTokenRequest { ttl: 600, token: bad.to_owned(), agent_id: None };
        let status = create_token(&client, request).await.expect_err(bad);
        assert_eq!(status.code(), Code::InvalidArgument, "{bad:?}: {status}");
        assert!(status.message().contains("join token"), "{bad:?}: {status}");
        let status = client.attest_with_token(bad).await.err().expect("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{bad:?}: {status}");
    }
    for ttl in [0, -1, i32::MIN] {
        let status = create_token(&client, CreateJoinTokenRequest { ttl, ..Default::default() }).await;
        assert_eq!(status.expect_err("refused").code(), Code::InvalidArgument, "ttl {ttl}");
    }
    let chosen = CreateJoinTokenRequest { ttl: 600, token: "Chosen-1_x.y".into(), agent_id: None };
    assert_eq!(create_token(&client, chosen.clone()).await.expect("legal").value, "Chosen-1_x.y");
    assert_eq!(create_token(&client, chosen).await.expect_err("taken").code(), Code::AlreadyExists);
}

#[tokio::test]
async fn an_alias_that_is_refused_takes_its_token_with_it() {
    let (_server, client) = lab().await;
    for (number, (trust_domain, path)) in
        [("other.example", "/x"), (TRUST_DOMAIN, "/spire/x"), (TRUST_DOMAIN, "")].into_iter().enumerate()
    {
        let agent_id = Some(types::Spiffeid { trust_domain: trust_domain.into(), path: path.into() });
        let token = format!("with-a-bad-alias-{number}");
        let status = create_token(&client, CreateJoinTokenRequest { ttl: 600, token: token.clone(), agent_id }).await;
        let status = status.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("SPIFFE ID"), "{status}");
        assert!(client.attest_with_token(&token).await.is_err(), "the token was kept");
    }
}

#[tokio::test]
async fn a_renewed_certificate_counts_from_its_first_use_and_the_old_one_until_then() {
    let (_server, client) = lab().await;
    let first = client.agent().await;
    let serial = |agent: &Agent| agent.credentials.leaf().serial_decimal();
    let lost = client.agent_of(renew(&first).await.expect("renewed")).await;
    authorized(&first).await.expect("the answer may have been lost: the old certificate still counts");
    let second = client.agent_of(renew(&first).await.expect("renewed again")).await;
    assert_eq!(denied(&lost).await, Some(Reason::AgentNotActive), "only the last renewal waits for its first use");
    let before = shown(&client, &first.id()).await.expect("listed");
    assert_eq!(before.x509svid_serial_number, serial(&first), "nothing is activated before its first use");
    assert_eq!(second.id(), first.id());
    assert_ne!(second.credentials.leaf().spki_der(), first.credentials.leaf().spki_der());

    authorized(&second).await.expect("its first use activates it");
    assert_eq!(denied(&first).await, Some(Reason::AgentNotActive));
    let after = shown(&client, &first.id()).await.expect("listed");
    assert_eq!(after.x509svid_serial_number, serial(&second));
    assert_eq!(after.x509svid_expires_at, second.credentials.leaf().not_after_unix());
    renew(&second).await.expect("and it can be renewed in turn");
}

//= FLT-S12
#[tokio::test]
async fn a_certificate_request_that_does_not_prove_its_key_renews_nothing() {
    let (_server, client) = lab().await;
    let agent = client.agent().await;
    for (bad, why) in [(Vec::new(), "CSR"), (spoiled_csr(), "signature"), (csr(&p521(), &[]), "key must be")] {
        let params = Some(AgentX509svidParams { csr: bad.into() });
        let status = agent.agents().renew_agent(RenewAgentRequest { params }).await.expect_err(why);
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(why), "{status}");
    }
    authorized(&agent).await.expect("still an agent");
}

#[tokio::test]
async fn an_agent_that_can_attest_again_must_and_its_copy_is_told_that_it_is_not_active() {
    let (server, client) = lab().await;
    let node = TpmNode::new().await;
    server.import_devices(&format!("ek_sha256\n{}\n", node.ek_sha256()));
    let first = client.agent_of(node.attest(&client).await.expect("enrolled")).await;
    assert_eq!(first.id(), id(&format!("/spire/agent/tpm2/{}", node.ek_sha256())));
    let status = renew(&first).await.err().expect("refused");
    assert_eq!(denial_reason(&status), Some(Reason::AgentMustReattest), "{status}");
    authorized(&first).await.expect("still an agent");
    let second = client.agent_of(node.attest(&client).await.expect("attests again")).await;
    authorized(&second).await.expect("the newest attestation counts");
    assert_eq!(denied(&first).await, Some(Reason::AgentNotActive), "the clone alarm");
    assert!(shown(&client, &first.id()).await.expect("listed").can_reattest);
}

/// A request whose signature is that of another.
fn spoiled_csr() -> Vec<u8> {
    let mut der = csr(&key(), &[rcgen::SanType::DnsName("ignored".try_into().expect("ASCII"))]);
    let place = der.windows(7).position(|window| window == b"ignored").expect("a name inside the signed part");
    der[place] ^= 1;
    der
}

fn p521() -> rcgen::KeyPair {
    rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("a key")
}

/// Sends `messages`, closes, and reads to the end.
async fn talk(channel: Channel, messages: Vec<AttestAgentRequest>) -> Result<(), Status> {
    let answers = AgentClient::new(channel).attest_agent(tokio_stream::iter(messages)).await?;
    let mut answers = answers.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

fn first(params: Params) -> AttestAgentRequest {
    AttestAgentRequest { step: Some(Step::Params(params)) }
}

#[tokio::test]
async fn nonsense_is_refused_by_name_and_leaves_nothing_behind() {
    let (server, client) = lab().await;
    let node = TpmNode::new().await;
    let good = || csr(&key(), &[]);
    let response = || AttestAgentRequest { step: Some(Step::ChallengeResponse(b"{}".to_vec().into())) };
    let no_data = Params { data: None, params: Some(AgentX509svidParams { csr: good().into() }) };
    let no_csr = Params { params: None, ..params("join_token", b"x".to_vec(), Vec::new()) };
    let nothing = AttestAgentRequest { step: None };
    let table: Vec<(&str, Vec<AttestAgentRequest>, Code, &str)> = vec![
        ("no message", vec![], Code::InvalidArgument, "ended the conversation"),
        ("an empty message", vec![nothing], Code::InvalidArgument, ""),
        ("a response first", vec![response()], Code::InvalidArgument, "params"),
        ("no data", vec![first(no_data)], Code::InvalidArgument, "attestation data"),
        ("no CSR message", vec![first(no_csr)], Code::InvalidArgument, "X509-SVID parameters"),
        (
            "an empty type",
            vec![first(params("", vec![], good()))],
            Code::InvalidArgument,
            "missing attestation data type",
        ),
        ("an unknown type", vec![first(params("aws_iid", vec![1], good()))], Code::FailedPrecondition, "aws_iid"),
        ("a long type", vec![first(params(&"x".repeat(5000), vec![], good()))], Code::FailedPrecondition, "xxx"),
        ("an empty CSR", vec![first(params("join_token", b"x".to_vec(), vec![]))], Code::InvalidArgument, "CSR"),
        (
            "a CSR of garbage",
            vec![first(params("tpm2", node.evidence(), vec![0x30; 900]))],
            Code::InvalidArgument,
            "CSR",
        ),
        ("a spoiled CSR", vec![first(params("tpm2", node.evidence(), spoiled_csr()))], Code::InvalidArgument, "CSR"),
        (
            "a P-521 key",
            vec![first(params("tpm2", node.evidence(), csr(&p521(), &[])))],
            Code::InvalidArgument,
            "P-256",
        ),
        ("an empty token", vec![first(params("join_token", vec![], good()))], Code::InvalidArgument, "join token"),
        ("a token of bytes", vec![first(params("join_token", vec![0xff; 9], good()))], Code::InvalidArgument, "token"),
        ("no evidence", vec![first(params("tpm2", vec![], good()))], Code::PermissionDenied, "TPM evidence refused"),
        ("evidence of garbage", vec![first(params("tpm2", vec![7; 500], good()))], Code::PermissionDenied, "refused"),
        ("64 kB and one of tpm2", vec![first(params("tpm2", vec![b' '; 65_537], good()))], Code::PermissionDenied, ""),
        (
            "64 kB and one of token",
            vec![first(params("join_token", vec![b'a'; 65_537], good()))],
            Code::InvalidArgument,
            "",
        ),
        ("1 MiB", vec![first(params("tpm2", vec![b' '; 1 << 20], good()))], Code::OutOfRange, ""),
        (
            "a stranger's chip",
            vec![first(params("tpm2", node.evidence(), good()))],
            Code::PermissionDenied,
            "not enrolled",
        ),
    ];
    let before = count(&client).await;
    for (what, messages, code, why) in table {
        let status = talk(client.anonymous().await, messages).await.expect_err(what);
        assert_eq!(status.code(), code, "{what}: {status}");
        assert!(status.message().contains(why), "{what}: {status}");
    }
    // Enrolled now: what comes instead of an answer to the challenge, and a node that hangs up on it.
    server.import_devices(&format!("ek_sha256\n{}\n", node.ek_sha256()));
    let evidence = || first(params("tpm2", node.evidence(), good()));
    for (what, second) in
        [("params again", evidence()), ("a response of garbage", response()), ("silence", nothing_more())]
    {
        let status = talk(client.anonymous().await, vec![evidence(), second]).await.expect_err(what);
        assert!(matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied), "{what}: {status}");
    }
    hang_up(client.anonymous().await, evidence()).await;
    let agent = id(&format!("/spire/agent/tpm2/{}", node.ek_sha256()));
    assert_eq!(shown(&client, &agent).await, None, "a node that never answered has a row");
    assert!(count(&client).await >= before, "rows are gone");
    node.attest(&client).await.expect("the same chip attests when it behaves");
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(server.cli_output(&["healthcheck"]).status.success());
}

fn nothing_more() -> AttestAgentRequest {
    AttestAgentRequest { step: None }
}

/// Reads the challenge and drops the connection.
async fn hang_up(channel: Channel, message: AttestAgentRequest) {
    let asked = tokio_stream::StreamExt::chain(tokio_stream::once(message), tokio_stream::pending());
    let answers = AgentClient::new(channel).attest_agent(asked).await.expect("the conversation begins");
    let challenge = answers.into_inner().message().await.expect("a challenge").expect("a challenge");
    assert!(matches!(challenge.step, Some(ironroot_api::pb::agent::attest_agent_response::Step::Challenge(_))));
}

async fn count(client: &ServerClient) -> i32 {
    let answer = AgentClient::new(client.admin().await).count_agents(CountAgentsRequest::default()).await;
    answer.expect("counted").into_inner().count
}
