//! Who may call what: every RPC of the protos, by every class of caller, over real connections.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironroot_api::SpiffeId;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::{AgentX509svidParams, BanAgentRequest, DeleteAgentRequest, RenewAgentRequest};
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{BatchDeleteEntryRequest, GetAuthorizedEntriesRequest};
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::pb::svid::{BatchNewX509svidRequest, NewX509svidParams};
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::permission::denial_reason;
use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN, expect_within_async};
use ironroot_lab::server_client::{Agent, Credentials, LowerCa, ServerClient, csr, key};
use ironroot_server::endpoints::policy::{self, Method, POLICY, Who};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// What became of a call. What it did with its (empty) request is not looked at here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    LetIn,
    Denied(Option<Reason>),
    NotServed,
    NoConnection,
}

/// Every RPC that a proto file of the server's services names: its path, and whether its request is a stream.
fn rpcs_of_the_protos() -> BTreeMap<String, bool> {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/proto");
    let mut rpcs = BTreeMap::new();
    for file in proto_files(&protos) {
        let text = std::fs::read_to_string(&file).expect("a proto file");
        let (mut package, mut service) = ("", "");
        for line in text.lines().map(str::trim) {
            let words: Vec<&str> = line.split([' ', '(', ';', '{']).collect();
            match words[..] {
                ["package", name, ..] => package = name,
                ["service", name, ..] => service = name,
                ["rpc", method, ..] if package.contains("server") => {
                    let request = line.split("returns").next().expect("a line");
                    rpcs.insert(format!("/{package}.{service}/{method}"), request.contains("(stream"));
                }
                _ => {}
            }
        }
    }
    rpcs
}

fn proto_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { proto_files(&path) } else { vec![path] }).collect()
}

/// Calls with an empty request: every field of every message is optional on the wire.
async fn call(channel: &Channel, rpc: &Method) -> Outcome {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    if grpc.ready().await.is_err() {
        return Outcome::NoConnection;
    }
    let path: PathAndQuery = rpc.path.parse().expect("a path");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    // The first message tells enough: some answers are held open.
    let answers = match rpc.request.streaming {
        false => grpc.server_streaming(Request::new(()), path, codec).await,
        true => grpc.streaming(Request::new(tokio_stream::once(())), path, codec).await,
    };
    let result = match answers {
        Ok(answers) => answers.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    };
    match result {
        Ok(()) => Outcome::LetIn,
        Err(status) => outcome(&status),
    }
}

fn outcome(status: &Status) -> Outcome {
    match status.code() {
        Code::PermissionDenied => Outcome::Denied(denial_reason(status)),
        // SPIRE's words for methods that it has and that do nothing.
        Code::Unimplemented if status.message() == "WIT-SVID functionality is not yet implemented" => Outcome::LetIn,
        Code::Unimplemented => Outcome::NotServed,
        // The peer broke the connection off; the server itself says Unavailable only when its token is gone.
        Code::Unknown | Code::Unavailable | Code::Cancelled => Outcome::NoConnection,
        Code::Internal if status.message().contains("h2 protocol error") => Outcome::NoConnection,
        Code::Internal => panic!("{status:?}"),
        _ => Outcome::LetIn,
    }
}

/// Well before any deadline of the server's.
const PROMPT: Duration = Duration::from_secs(5);

/// A class of caller: what it meets at RPCs for agents, for administrators and for servers below.
struct Class {
    name: &'static str,
    channel: Channel,
    agents: Outcome,
    administrators: Outcome,
    downstream: Outcome,
}

const NO: Outcome = Outcome::Denied(None);

fn because(reason: Reason) -> Outcome {
    Outcome::Denied(Some(reason))
}

fn server_with_admin_ids(options: &ServerOptions) -> Server {
    let mut server = Server::prepare(options);
    let config = std::fs::read_to_string(server.config_path()).expect("configuration");
    // Methods that are off answer nobody: their rights are asked where they are on.
    let admins = format!(
        "audit_log_enabled = true\n    enable_wit_svids = true\n    admin_ids = [\"spiffe://{TRUST_DOMAIN}/operator\"]"
    );
    std::fs::write(server.config_path(), config.replace("audit_log_enabled = true", &admins)).expect("written");
    server.restart();
    server
}

/// The SVID of a workload below `agent`.
async fn workload(server: &Server, agent: &Agent, path: &str, more: &[&str]) -> Credentials {
    workload_with(server, agent, path, "unix:uid:1", more).await
}

async fn workload_with(server: &Server, agent: &Agent, path: &str, selector: &str, more: &[&str]) -> Credentials {
    let entry_id = server.create_entry(agent.id().as_str(), path, &[selector], more);
    agent.fetch_svid(entry_id).await
}

async fn renewed(agent: &Agent) -> Credentials {
    let key = key();
    let params = Some(AgentX509svidParams { csr: csr(&key, &[]).into() });
    let answer = agent.agents().renew_agent(RenewAgentRequest { params }).await.expect("renewed");
    Credentials::new(&answer.into_inner().svid.expect("an SVID"), &key)
}

/// An agent's certificate of this trust domain's name, by an authority of somebody else.
fn forged(trust_domain: &str) -> Credentials {
    let (ca_key, leaf_key) = (key(), key());
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let mut leaf = CertificateParams::default();
    let id = format!("spiffe://{trust_domain}/operator");
    leaf.subject_alt_names = vec![SanType::URI(id.as_str().try_into().expect("ASCII"))];
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let issuer = Issuer::new(ca, ca_key);
    let certificate = leaf.signed_by(&leaf_key, &issuer).expect("signed");
    Credentials { chain: vec![certificate.der().clone()], key: leaf_key.serialize_der() }
}

async fn classes(server: &Server, client: &ServerClient) -> Vec<Class> {
    let mut operator = AgentClient::new(client.admin().await);
    let (attested, evicted, banned, copied) =
        (client.agent().await, client.agent().await, client.agent().await, client.agent().await);
    let plain = workload(server, &attested, "/web", &[]).await;
    let admin_entry = workload(server, &attested, "/admin", &["-admin"]).await;
    let named_admin = workload(server, &attested, "/operator", &[]).await;
    let downstream = workload(server, &attested, "/downstream", &["-downstream"]).await;
    operator.delete_agent(DeleteAgentRequest { id: Some(evicted.id().to_pb()) }).await.expect("evicted");
    operator.ban_agent(BanAgentRequest { id: Some(banned.id().to_pb()) }).await.expect("banned");
    let newer = client.agent_of(renewed(&copied).await).await;
    newer
        .entries()
        .get_authorized_entries(GetAuthorizedEntriesRequest::default())
        .await
        .expect("first use of the renewed certificate");

    let class = |name, channel, agents, administrators| {
        let downstream = if name == "workload of a downstream entry" { Outcome::LetIn } else { NO };
        Class { name, channel, agents, administrators, downstream }
    };
    let dial = async |credentials: &Credentials| client.with(credentials).await.expect("a good certificate");
    let not_attested = because(Reason::AgentNotAttested);
    vec![
        class("anonymous", client.anonymous().await, NO, NO),
        class("attested agent", attested.channel, Outcome::LetIn, NO),
        class("evicted agent", evicted.channel, not_attested, NO),
        class("banned agent", banned.channel, because(Reason::AgentBanned), NO),
        class("agent with a replaced SVID", copied.channel, because(Reason::AgentNotActive), NO),
        class("workload", dial(&plain).await, not_attested, NO),
        class("workload of a downstream entry", dial(&downstream).await, not_attested, NO),
        class("workload of an admin entry", dial(&admin_entry).await, not_attested, Outcome::LetIn),
        class("ID among admin_ids", dial(&named_admin).await, not_attested, Outcome::LetIn),
        class("admin socket", client.admin().await, NO, Outcome::LetIn),
    ]
}

/// In the table, so that it is refused in its own words. Source: SPIRE answers Check alone.
const UNIMPLEMENTED: &str = "/grpc.health.v1.Health/Watch";

#[test]
fn every_rpc_of_the_protos_stands_in_the_policy_and_nothing_else_does() {
    let health = |path: &str| path.starts_with("/grpc.health.v1.");
    let table = POLICY.iter().filter(|rpc| !health(rpc.path));
    let table: BTreeMap<String, bool> = table.map(|rpc| (rpc.path.to_owned(), rpc.request.streaming)).collect();
    assert_eq!(table, rpcs_of_the_protos());
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_refused_at_once_on_both_sockets() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    for channel in [client.anonymous().await, client.admin().await] {
        for path in ["/spire.api.server.nothing.v1.Nothing/Get", "/spire.api.server.agent.v1.Agent/Nothing", "/x"] {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            grpc.ready().await.expect("connected");
            // A request that never comes: whoever waits for it does not answer.
            let path: PathAndQuery = path.parse().expect("a path");
            let codec = tonic_prost::ProstCodec::<(), ()>::default();
            let request = Request::new(tokio_stream::pending::<()>());
            let answer = tokio::time::timeout(PROMPT, grpc.client_streaming(request, path, codec));
            let status = answer.await.expect("answered without a request").expect_err("no such method");
            assert_eq!((status.code(), status.message()), (Code::Unimplemented, "this server has no such method"));
        }
    }
}

/// Who prints a message as the wire has it prints a sentence.
#[tokio::test]
async fn the_message_of_a_refusal_has_its_spaces_on_both_sockets() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    for mut channel in [client.anonymous().await, client.admin().await] {
        let request = http::Request::post("http://localhost/x").header("te", "trailers");
        let request = request.header("content-type", "application/grpc").body(tonic::body::Body::empty());
        std::future::poll_fn(|cx| tower::Service::poll_ready(&mut channel, cx)).await.expect("ready");
        let refused = tower::Service::call(&mut channel, request.expect("a request")).await.expect("answers");
        assert_eq!(refused.headers()["grpc-message"], "this server has no such method");
    }
}

//= FLT-S15
#[tokio::test]
async fn every_rpc_lets_in_exactly_the_callers_that_spires_policy_names() {
    let server = server_with_admin_ids(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let mut wrong = Vec::new();
    for class in classes(&server, &client).await {
        let local = class.name == "admin socket";
        for rpc in POLICY.iter().filter(|rpc| rpc.path != UNIMPLEMENTED) {
            let expected = match rpc.who {
                Who::Anyone => Outcome::LetIn,
                Who::Agents => class.agents,
                Who::Insiders if class.administrators == Outcome::LetIn => Outcome::LetIn,
                Who::Insiders => class.agents,
                Who::Administrators => class.administrators,
                Who::Downstream => class.downstream,
                Who::AdminSocket if local => Outcome::LetIn,
                Who::AdminSocket => Outcome::NotServed,
            };
            let found = call(&class.channel, rpc).await;
            if found != expected {
                wrong.push(format!("{} by {}: {found:?}, not {expected:?}", rpc.path, class.name));
            }
        }
    }
    for trust_domain in [TRUST_DOMAIN, "elsewhere.example"] {
        for rpc in POLICY {
            let Ok(channel) = client.with(&forged(trust_domain)).await else { continue };
            let found = call(&channel, rpc).await;
            if found != Outcome::NoConnection {
                wrong.push(format!("{} with a forged certificate of {trust_domain}: {found:?}", rpc.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), server.log());
    assert!(server.log().contains("this call is for attested agents"), "denials leave no audit line");
}

//= FLT-S14
#[tokio::test]
async fn an_expired_certificate_counts_no_longer_on_the_connection_it_opened() {
    let server = server_with_admin_ids(&ServerOptions { agent_ttl: "4s", ..Default::default() });
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let operator = workload(&server, &agent, "/operator", &["-x509SVIDTTL", "4"]).await;
    let operator = client.with(&operator).await.expect("a good certificate");
    let by_agent = |rpc: &&Method| rpc.who == Who::Agents;
    let first = POLICY.iter().find(by_agent).expect("one");
    assert_eq!(call(&agent.channel, first).await, Outcome::LetIn);
    let shut_out = async || call(&agent.channel, first).await != Outcome::LetIn;
    expect_within_async(DEADLINE, "the certificate counts no longer", String::new, shut_out).await;
    for rpc in POLICY.iter().filter(by_agent) {
        assert_eq!(call(&agent.channel, rpc).await, because(Reason::AgentExpired), "{}", rpc.path);
    }
    let shut_out = async || !still_administers(&operator).await;
    expect_within_async(DEADLINE, "the administrator's certificate counts no longer", String::new, shut_out).await;
    for rpc in POLICY.iter().filter(|rpc| rpc.who == Who::Administrators) {
        assert_eq!(call(&operator, rpc).await, NO, "{}", rpc.path);
    }
    if let Ok(channel) = client.with(&agent.credentials).await {
        // In the very second of its end the handshake still takes it; the call does not.
        let found = call(&channel, first).await;
        let refused = [Outcome::NoConnection, because(Reason::AgentExpired)];
        assert!(refused.contains(&found), "a new connection with an expired certificate: {found:?}");
    }
}

//= FLT-S25
#[tokio::test]
async fn a_ca_below_the_server_makes_nobody_an_administrator_an_agent_or_a_server_below() {
    for lines in ["", "root { enabled = false }"] {
        let options = ServerOptions { server_lines: lines.to_owned(), ..ServerOptions::default() };
        let server = server_with_admin_ids(&options);
        let client = ServerClient::new(&server).await;
        let agent = client.agent().await;
        for scope in ["unix:uid:1", "ironroot:local_authority"] {
            let path = format!("/lower-{}", scope.len());
            let downstream = workload_with(&server, &agent, &path, scope, &["-downstream"]).await;
            let honest = client.with(&downstream).await.expect("a good certificate");
            let ca = LowerCa::ask(&honest).await;
            let id = |path: &str| -> SpiffeId { format!("spiffe://{TRUST_DOMAIN}{path}").parse().expect("legal") };
            let admin = workload(&server, &agent, &format!("/admin-{}", scope.len()), &["-admin"]).await;
            let whatever_comes_to_mind = [
                ca.sign(&id("/operator"), None),
                ca.sign(&admin.id(), Some(&admin.leaf())),
                ca.sign(&agent.id(), Some(&agent.credentials.leaf())),
                ca.sign(&downstream.id(), Some(&downstream.leaf())),
                ca.sign(&id("/spire/server"), None),
            ];
            for signed in whatever_comes_to_mind {
                let channel = client.with(&signed).await.expect("it leads to the bundle");
                for rpc in POLICY.iter().filter(|rpc| rpc.path != UNIMPLEMENTED) {
                    let found = call(&channel, rpc).await;
                    let expected = match rpc.who {
                        Who::Anyone => Outcome::LetIn,
                        Who::Agents | Who::Insiders => because(Reason::AgentNotActive),
                        Who::Administrators | Who::Downstream => NO,
                        Who::AdminSocket => Outcome::NotServed,
                    };
                    assert_eq!(found, expected, "{} as {} {lines}", rpc.path, signed.id());
                }
            }
            // The same IDs, signed by the server itself.
            let honest_admin = client.with(&admin).await.expect("a good certificate");
            assert!(still_administers(&honest_admin).await);
            LowerCa::ask(&honest).await;
        }
        let log = server.log();
        assert!(log.contains("signed by another CA of the trust domain, not by this server: use an SVID"), "{log}");
        assert!(log.contains("agent SVID was signed by another CA of the trust domain"), "{log}");
    }
}

//= FLT-S26
#[tokio::test]
async fn what_was_fetched_through_a_banned_agent_gives_no_rights_and_what_another_fetched_does() {
    let mut server = server_with_admin_ids(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let (banned, other) = (client.agent().await, client.agent().await);
    for agent in [&banned, &other] {
        server.create_entry(agent.id().as_str(), "/both", &["unix:uid:2"], &[]);
    }
    let both = format!("spiffe://{TRUST_DOMAIN}/both");
    let entry_id = server.create_entry(&both, "/operations", &["unix:uid:1"], &["-admin", "-downstream"]);
    let through_banned = banned.fetch_svid(entry_id.clone()).await;
    let through_other = other.fetch_svid(entry_id).await;
    let mut open = client.with(&through_banned).await.expect("a good certificate");
    assert!(still_administers(&open).await);
    LowerCa::ask(&open).await;
    let id = banned.id().to_pb();
    let mut operator = AgentClient::new(client.admin().await);
    operator.ban_agent(BanAgentRequest { id: Some(id.clone()) }).await.expect("banned");

    let of_administrators_or_servers = |rpc: &&Method| matches!(rpc.who, Who::Administrators | Who::Downstream);
    for has_restarted in [false, true] {
        for rpc in POLICY.iter().filter(of_administrators_or_servers) {
            assert_eq!(call(&open, rpc).await, NO, "{}", rpc.path);
        }
        let honest = client.with(&through_other).await.expect("a good certificate");
        assert!(still_administers(&honest).await);
        LowerCa::ask(&honest).await;
        if !has_restarted {
            server.kill();
            server.restart();
            open = client.with(&through_banned).await.expect("it has not ended");
        }
    }
    assert!(server.log().contains("fetched through an agent that is banned"), "{}", server.log());
    let mut operator = AgentClient::new(client.admin().await);
    operator.delete_agent(DeleteAgentRequest { id: Some(id) }).await.expect("the ban is lifted");
    assert!(still_administers(&open).await, "it was a mistake");
}

/// Whether an administrator is still let in.
async fn still_administers(channel: &Channel) -> bool {
    let count = policy::find("/spire.api.server.agent.v1.Agent/CountAgents").expect("in the table");
    call(channel, count).await == Outcome::LetIn
}

#[tokio::test]
async fn the_request_of_a_stranger_or_a_workload_is_refused_before_it_is_read() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let workload = workload(&server, &agent, "/web", &[]).await;
    refused_unread(client.anonymous().await).await;
    refused_unread(client.with(&workload).await.expect("a good certificate")).await;
}

async fn refused_unread(caller: Channel) {
    // More than any method takes: whoever is read first and asked for a certificate then is told OutOfRange.
    let ids = vec!["x".repeat(17 * 1024 * 1024)];
    let refused = EntryClient::new(caller.clone()).batch_delete_entry(BatchDeleteEntryRequest { ids }).await;
    assert_eq!(refused.expect_err("refused").code(), Code::PermissionDenied);
    let request = BatchNewX509svidRequest {
        params: vec![NewX509svidParams { csr: vec![0; 5 << 20].into(), ..Default::default() }],
    };
    let refused = SvidClient::new(caller).batch_new_x509svid(request).await;
    assert_eq!(refused.expect_err("refused").code(), Code::PermissionDenied);
}
