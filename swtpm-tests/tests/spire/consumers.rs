//! Envoy's secrets, Delegated Identity and the admin socket: the same questions to an agent of either make on one server, and the
//! answers beside each other.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use ironroot_api::pb::delegated::delegated_identity_client::DelegatedIdentityClient;
use ironroot_api::pb::delegated::{
    FetchJwtsviDsRequest, SubscribeToJwtBundlesRequest, SubscribeToX509BundlesRequest, SubscribeToX509sviDsRequest,
};
use ironroot_api::pb::discovery::{DiscoveryRequest, DiscoveryResponse};
use ironroot_api::pb::envoy_core::Node;
use ironroot_api::pb::envoy_core::data_source::Specifier;
use ironroot_api::pb::envoy_tls::secret::Type;
use ironroot_api::pb::envoy_tls::{Secret, SpiffeCertValidatorConfig};
use ironroot_api::pb::secret::secret_discovery_service_client::SecretDiscoveryServiceClient;
use ironroot_api::pb::types::Selector;
use ironroot_api::unix_socket::connect;
use ironroot_lab::deployment::{DEADLINE, TRUST_DOMAIN, binary, expect_within};
use ironroot_lab::spire::{Times, spire_binary};
use prost::Message;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "24h", agent: "1h", x509_svid: "1h" };
const WORKLOAD: u32 = 61_001;

/// What an answer is, in words in which both makes can be compared.
type Told = Result<Vec<String>, (tonic::Code, String)>;

fn refused(status: &Status) -> (tonic::Code, String) {
    (status.code(), status.message().to_owned())
}

fn both(server: &AnyServer, lines: &str) -> [AnyAgent; 2] {
    [Maker::Ironroot, Maker::Spire].map(|maker| AnyAgent::started_with(maker, server, lines))
}

fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

fn naming(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret".to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn plain(names: &[&str]) -> DiscoveryRequest {
    let value = Value { kind: Some(Kind::StringValue("true".to_owned())) };
    let metadata = Struct { fields: [("disable_spiffe_cert_validation".to_owned(), value)].into() };
    DiscoveryRequest { node: Some(Node { metadata: Some(metadata), ..Node::default() }), ..naming(names) }
}

/// Names and forms of what an answer holds; of authorities, their text.
fn secrets(answer: &DiscoveryResponse) -> Vec<String> {
    let inline = |source: Option<ironroot_api::pb::envoy_core::DataSource>| match source.and_then(|s| s.specifier) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).expect("PEM"),
        None => "nothing".to_owned(),
    };
    let describe = |any: &prost_types::Any| {
        let secret = Secret::decode(&any.value[..]).expect("a secret");
        let what = match secret.r#type.expect("of a type") {
            Type::TlsCertificate(certificate) => {
                let (chain, key) = (inline(certificate.certificate_chain), inline(certificate.private_key));
                let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
                format!("{} of {}, {}", first(&chain), chain.matches("BEGIN").count(), first(&key))
            }
            Type::ValidationContext(context) => match context.custom_validator_config {
                None => format!("plain {}", inline(context.trusted_ca)),
                Some(custom) => {
                    let typed = custom.typed_config.expect("configured");
                    let config = SpiffeCertValidatorConfig::decode(&typed.value[..]).expect("its configuration");
                    let domains =
                        config.trust_domains.into_iter().map(|d| format!("{}: {}", d.name, inline(d.trust_bundle)));
                    format!("{} {} {:?}", custom.name, typed.type_url, domains.collect::<Vec<_>>())
                }
            },
        };
        format!("{} {} {what}", any.type_url, secret.name)
    };
    let mut all: Vec<String> = answer.resources.iter().map(describe).collect();
    all.sort();
    all
}

async fn fetched(socket: &Path, request: DiscoveryRequest) -> Told {
    let mut client = SecretDiscoveryServiceClient::new(connect(socket).await.expect("connects"));
    let answer = client.fetch_secrets(request).await.map_err(|status| refused(&status))?.into_inner();
    let mut told = secrets(&answer);
    told.push(format!("{:?} {:?} {}", answer.version_info, answer.nonce, answer.type_url));
    Ok(told)
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn envoys_secrets_are_those_of_spires_agent() {
    let runtime = Runtime::new().expect("runtime");
    let server = AnyServer::start(Maker::Spire, TIMES);
    server.create_own_entry(Maker::Spire, "/app", &[]);
    let agents = both(&server, "");
    agents.iter().for_each(|agent| drop(agent.expect_identity(&runtime)));
    let (app, own) = (id("/app"), id(""));
    for request in [
        naming(&["default"]),
        naming(&[&app]),
        naming(&["ROOTCA"]),
        naming(&["ALL"]),
        naming(&[&own]),
        naming(&["ROOTCA", "default"]),
        naming(&[]),
        naming(&["", ""]),
        naming(&["none", "default"]),
        naming(&[&id("/other"), "none"]),
        plain(&["ROOTCA"]),
        plain(&[]),
        DiscoveryRequest { type_url: String::new(), ..naming(&["ROOTCA"]) },
    ] {
        let [ours, spires] = agents.each_ref().map(|agent| runtime.block_on(fetched(&agent.socket(), request.clone())));
        assert_eq!(ours, spires, "{:?}", request.resource_names);
    }
    // On a stream: versions, what is acknowledged, and what changes.
    let told = agents.each_ref().map(|agent| {
        let is_alone = || agent.fetch(&runtime).is_ok_and(|answer| answer.svids.len() == 1);
        expect_within(DEADLINE, "no entry of the conversation before is left", || agent.log(), is_alone);
        let socket = agent.socket();
        let conversation = conversation(&socket, &server);
        runtime
            .block_on(async { tokio::time::timeout(DEADLINE, conversation).await })
            .unwrap_or_else(|_| panic!("{}", agent.log()))
    });
    assert_eq!(told[0], told[1]);
}

/// The versions, and whether nonces differ, of a stream on which everything is wanted, and an entry comes and goes.
async fn conversation(socket: &Path, server: &AnyServer) -> Vec<String> {
    let mut client = SecretDiscoveryServiceClient::new(connect(socket).await.expect("connects"));
    let (says, said) = mpsc::channel(4);
    says.send(naming(&[])).await.expect("room");
    let mut hears = client.stream_secrets(ReceiverStream::new(said)).await.expect("opens").into_inner();
    let first = hears.message().await.expect("no error").expect("no end");
    let answered = |answer: &DiscoveryResponse, names: &[&str]| DiscoveryRequest {
        version_info: answer.version_info.clone(),
        response_nonce: answer.nonce.clone(),
        ..naming(names)
    };
    says.send(answered(&first, &[])).await.expect("listens");
    let stale = DiscoveryResponse { nonce: "00000000".into(), ..first.clone() };
    says.send(answered(&stale, &["none"])).await.expect("listens");
    says.send(answered(&first, &["default"])).await.expect("listens");
    let second = hears.message().await.expect("no error").expect("no end");
    says.send(answered(&second, &[])).await.expect("listens");
    let third = hears.message().await.expect("no error").expect("no end");
    let mut all = vec![first, second, third];
    let entry = server.create_own_entry(Maker::Spire, "/second", &[]);
    // SPIRE's agent also sends what has not changed: how often, nobody says.
    for wanted in [3, 2] {
        loop {
            let last = all.last().expect("some").clone();
            says.send(answered(&last, &[])).await.expect("listens");
            all.push(hears.message().await.expect("no error").expect("no end"));
            if all.last().expect("some").resources.len() == wanted {
                break;
            }
        }
        if wanted == 3 {
            let gone = server.cli(Maker::Spire, &["entry", "delete", "-entryID", &entry]);
            assert!(gone.contains("Deleted"), "{gone}");
        }
    }
    says.send(answered(all.last().expect("some"), &["none"])).await.expect("listens");
    let ended = loop {
        match hears.message().await {
            Ok(again) => all.push(again.expect("no end")),
            Err(status) => break status,
        }
    };
    let nonces: std::collections::BTreeSet<&str> = all.iter().map(|answer| answer.nonce.as_str()).collect();
    let versions: Vec<u64> = all.iter().map(|answer| answer.version_info.parse().expect("a number")).collect();
    let told = all[..3]
        .iter()
        .map(|answer| format!("{} {} {}", answer.version_info, answer.nonce.len(), answer.resources.len()));
    let rules = format!("{} {}", nonces.len() == all.len(), versions[2..].windows(2).all(|pair| pair[0] < pair[1]));
    told.chain([rules, format!("{:?}", refused(&ended))]).collect()
}

struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn selectors(texts: &[&str]) -> Vec<Selector> {
    let split =
        |text: &&str| text.split_once(':').map(|(kind, value)| Selector { r#type: kind.into(), value: value.into() });
    texts.iter().filter_map(split).collect()
}

/// What a delegate, or who is none, is told by each method.
async fn delegated(socket: &Path, selectors: Vec<Selector>, pid: i32, audience: &[&str]) -> Vec<Told> {
    let mut client = DelegatedIdentityClient::new(connect(socket).await.expect("connects"));
    let path = |id: Option<ironroot_api::pb::types::Spiffeid>| id.expect("an ID").path;
    let request = SubscribeToX509sviDsRequest { selectors: selectors.clone(), pid };
    let x509 = async |client: &mut DelegatedIdentityClient<_>| {
        let mut stream = client.subscribe_to_x509svi_ds(request).await?.into_inner();
        let answer = stream.message().await?.unwrap_or_default();
        let svid = |svid: ironroot_api::pb::delegated::X509svidWithKey| {
            let (has_key, svid) = (!svid.x509_svid_key.is_empty(), svid.x509_svid.expect("one"));
            format!("{} {} {} {has_key}", path(svid.id), svid.cert_chain.len(), svid.hint)
        };
        let mut told: Vec<String> = answer.x509_svids.into_iter().map(svid).collect();
        told.sort();
        Ok(told.into_iter().chain(answer.federates_with).collect::<Vec<_>>())
    };
    let bundles = async |client: &mut DelegatedIdentityClient<_>| {
        let mut stream = client.subscribe_to_x509_bundles(SubscribeToX509BundlesRequest {}).await?.into_inner();
        let answer: BTreeMap<_, _> = stream.message().await?.unwrap_or_default().ca_certificates.into_iter().collect();
        Ok(answer.into_iter().map(|(name, der)| format!("{name} {der:?}")).collect())
    };
    let jwt_bundles = async |client: &mut DelegatedIdentityClient<_>| {
        let mut stream = client.subscribe_to_jwt_bundles(SubscribeToJwtBundlesRequest {}).await?.into_inner();
        let answer: BTreeMap<_, _> = stream.message().await?.unwrap_or_default().bundles.into_iter().collect();
        let json = |der: &[u8]| serde_json::from_slice::<serde_json::Value>(der).expect("JSON");
        Ok(answer.iter().map(|(name, jwks)| format!("{name} {}", json(jwks))).collect())
    };
    let audience = audience.iter().map(|&audience| audience.to_owned()).collect();
    let request = FetchJwtsviDsRequest { audience, selectors, pid };
    let jwt = async |client: &mut DelegatedIdentityClient<_>| {
        let answer = client.fetch_jwtsvi_ds(request).await?.into_inner();
        let svid = |svid: ironroot_api::pb::types::Jwtsvid| {
            format!("{} {} {} s", path(svid.id), svid.hint, svid.expires_at - svid.issued_at)
        };
        let mut told: Vec<String> = answer.svids.into_iter().map(svid).collect();
        told.sort();
        Ok::<Vec<String>, Status>(told)
    };
    let told = |answer: Result<Vec<String>, Status>| answer.map_err(|status| refused(&status));
    vec![
        told(x509(&mut client).await),
        told(bundles(&mut client).await),
        told(jwt_bundles(&mut client).await),
        told(jwt(&mut client).await),
    ]
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn a_delegate_is_told_the_same_by_either_agent_and_so_is_who_is_none() {
    let runtime = Runtime::new().expect("runtime");
    let server = AnyServer::start(Maker::Spire, TIMES);
    let agents = both(&server, &format!("authorized_delegates = [\"{}\"]", id("/proxy")));
    let compare = |claim: &str, texts: &[&str], pid: i32, audience: &[&str], holds: &dyn Fn(&[Told]) -> bool| {
        let ask =
            |agent: &AnyAgent| runtime.block_on(delegated(&agent.admin_socket(), selectors(texts), pid, audience));
        for agent in &agents {
            let reached = || agent.admin_socket().exists() && holds(&ask(agent));
            expect_within(DEADLINE, claim, || format!("{:?}\n{}", ask(agent), agent.log()), reached);
        }
        let [ours, spires] = agents.each_ref().map(ask);
        assert_eq!(ours, spires, "{claim}");
    };
    let denied = |words: &'static str| {
        move |told: &[Told]| told.iter().all(|one| one.as_ref().is_err_and(|(_, text)| text == words))
    };
    let web = format!("unix:uid:{WORKLOAD}");
    compare("nobody", &[&web], 0, &["us"], &denied("no identity issued"));
    server.create_own_entry(Maker::Spire, "/other", &[]);
    compare("no delegate", &[&web], 0, &["us"], &denied("caller not configured as an authorized delegate"));
    server.create_own_entry(Maker::Spire, "/proxy", &[]);
    let nothing = |told: &[Told]| told[0] == Ok(Vec::new()) && told[1].is_ok() && told[2].is_ok();
    compare("a delegate, of nobody", &[&web], 0, &["us"], &nothing);
    for (path, more) in [("/web", &["-hint", "internal"][..]), ("/boss", &["-admin"]), ("/below", &["-downstream"])] {
        let arguments = ["entry", "create", "-parentID", &id("/node"), "-spiffeID", &id(path), "-selector", &web];
        server.cli(Maker::Spire, &[&arguments, more].concat());
    }
    let has_one = |told: &[Told]| told[0].as_ref().is_ok_and(|svids| svids.len() == 1) && told[3].is_ok();
    compare("a delegate, by selectors", &[&web, "docker:label:x"], 0, &["us"], &has_one);
    let process = Sleeper(Command::new("sleep").arg("300").uid(WORKLOAD).gid(WORKLOAD).spawn().expect("starts"));
    compare("a delegate, by a process", &[], process.0.id() as i32, &["us", "them"], &has_one);
    let first_refused = |told: &[Told]| told[0].is_err();
    compare("both ways", &[&web], process.0.id() as i32, &["us"], &first_refused);
    compare("neither way", &[], 0, &["us"], &first_refused);
    compare("no selector", &[":"], 0, &["us"], &first_refused);
    compare("no audience", &[&web], 0, &[], &|told| told[3].is_err());
    let codes = |agent: &AnyAgent| {
        let told = runtime.block_on(delegated(&agent.admin_socket(), Vec::new(), i32::MAX, &["us"]));
        told[0].as_ref().err().map(|(code, _)| *code)
    };
    assert_eq!(codes(&agents[0]), codes(&agents[1]), "a process that is not there");
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn either_command_line_asks_either_agents_admin_socket_and_prints_the_same() {
    let runtime = Runtime::new().expect("runtime");
    let server = AnyServer::start(Maker::Spire, TIMES);
    server.create_own_entry(Maker::Spire, "/app", &[]);
    let (ours, spires) = (binary("ironroot-agent"), spire_binary("spire-agent"));
    for agent in both(&server, "") {
        agent.expect_identity(&runtime);
        let said = |program: &Path, arguments: &[&str]| {
            let mut command = Command::new(program);
            let output = command.args(arguments).arg("-socketPath").arg(agent.admin_socket()).output().expect("starts");
            let text = |bytes| String::from_utf8(bytes).expect("text");
            let (stdout, stderr) = (text(output.stdout), text(output.stderr));
            (output.status.code(), without_the_moment(&stdout), stderr.is_empty())
        };
        for arguments in [
            &["debug", "getinfo"][..],
            &["logger", "get"],
            &["logger", "set", "-level", "warn"],
            &["logger", "get", "-output", "json"],
            &["logger", "reset"],
            &["logger", "set", "-level", "nonsense"],
        ] {
            let (mine, its) = (said(&ours, arguments), said(&spires, arguments));
            assert_eq!((mine.0, mine.1), (its.0, its.1), "{arguments:?}");
        }
        let json = |program| {
            serde_json::from_str::<serde_json::Value>(&said(program, &["debug", "getinfo", "-output", "json"]).1)
                .expect("JSON")
        };
        let keys = |value: serde_json::Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(json(&ours)), keys(json(&spires)));
    }
}

/// Without the line of the uptime, and that of the last sync.
fn without_the_moment(text: &str) -> String {
    let stays = |line: &&str| !line.contains("Uptime") && !line.contains("Last Sync");
    text.lines().filter(stays).collect::<Vec<_>>().join("\n")
}
