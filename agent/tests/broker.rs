//! The SPIFFE Broker API: who is a broker, whom it may name and how, and what it is told of them for how long.

#[path = "support/brokers.rs"]
mod brokers;
#[path = "support/log.rs"]
mod log;
#[path = "support/relay.rs"]
mod relay;
#[path = "support/served.rs"]
mod served;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use brokers::{Brokering, PID_REFERENCE, Sleeper, WORKLOAD, any_type, asking, of_pid, reference, short_lived};
use ironroot_agent::endpoints::{Brokers, EndpointError, Limits, ReferenceTypes, serve_workload_api};
use ironroot_agent::federated_bundles::FederatedBundles;
use ironroot_agent::identities::Identities;
use ironroot_agent::requests;
use ironroot_agent::server_answers::{EntryTerms, ForeignBundle};
use ironroot_api::pb::broker::api_client::ApiClient;
use ironroot_api::pb::broker::{
    FetchJwtsvidRequest, SubscribeToJwtBundlesRequest, SubscribeToX509BundlesRequest, SubscribeToX509svidRequest,
    SubscribeToX509svidResponse, WorkloadReference,
};
use ironroot_api::pb::rpc::ErrorInfo;
use ironroot_api::pb::types;
use ironroot_api::pb::types::StatusWithDetails;
use ironroot_api::pb::workload::X509svidRequest;
use ironroot_api::pb::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ironroot_api::unix_socket::connect;
use log::Log;
use prost::Message;
use relay::Relay;
use served::{Authority, NOW, patiently, td, terms};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

#[test]
fn acts_as_a_workload() {
    served::act();
}

async fn subscribe(
    client: &mut ApiClient<Channel>,
    reference: Option<WorkloadReference>,
) -> Result<Streaming<SubscribeToX509svidResponse>, Status> {
    let request = asking(SubscribeToX509svidRequest { reference });
    patiently(client.subscribe_to_x509svid(request)).await.map(tonic::Response::into_inner)
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    patiently(stream.message()).await.expect("no error").expect("no end")
}

async fn ended<T: std::fmt::Debug>(stream: &mut Streaming<T>) -> Status {
    patiently(stream.message()).await.expect_err("no more")
}

fn ids(answer: &SubscribeToX509svidResponse) -> Vec<&str> {
    answer.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect()
}

/// The code of a refusal, and its reason for programs.
fn refusal(status: &Status) -> (Code, String) {
    let details = StatusWithDetails::decode(status.details()).expect("a status or nothing");
    let reason = details.details.first().map(|any| ErrorInfo::decode(&any.value[..]).expect("its form").reason);
    (status.code(), reason.unwrap_or_default())
}

fn invalid() -> (Code, String) {
    (Code::InvalidArgument, "WORKLOAD_REFERENCE_INVALID".to_owned())
}

fn not_found() -> (Code, String) {
    (Code::NotFound, "WORKLOAD_NOT_FOUND".to_owned())
}

fn not_entitled() -> (Code, String) {
    (Code::PermissionDenied, "WORKLOAD_NOT_ENTITLED".to_owned())
}

//= BRK-06
#[tokio::test]
async fn a_broker_gets_the_identities_and_the_bundles_of_a_process_that_it_names() {
    let brokering = Brokering::new();
    let process = Sleeper::start(WORKLOAD);
    let mut broker = brokering.broker("/broker").await.expect("a broker");
    let identity = brokering.served.publisher.borrow().iter().next().expect("one").clone();
    let answer = next(&mut subscribe(&mut broker, of_pid(process.pid())).await.expect("answers")).await;
    assert_eq!(ids(&answer), ["spiffe://td/web"]);
    let svid = &answer.svids[0];
    assert_eq!((&svid.x509_svid_key, &svid.x509_svid), (identity.key().pkcs8_der(), identity.chain_der()));
    assert_eq!(&svid.bundle, brokering.served.authority.bundle().concatenated());
    assert!(answer.federated_bundles.is_empty() && answer.crl.is_empty() && svid.hint.is_empty());
    let request = SubscribeToX509BundlesRequest { reference: of_pid(process.pid()) };
    let mut bundles = broker.subscribe_to_x509_bundles(asking(request)).await.expect("answers").into_inner();
    let bundles = next(&mut bundles).await.bundles;
    assert_eq!(&bundles["spiffe://td"], brokering.served.authority.bundle().concatenated());
    let request = SubscribeToJwtBundlesRequest { reference: of_pid(process.pid()) };
    let mut bundles = broker.subscribe_to_jwt_bundles(asking(request)).await.expect("answers").into_inner();
    let jwks = next(&mut bundles).await.bundles["spiffe://td"].clone();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&jwks).expect("JSON")["keys"], serde_json::json!([]));
}

//= BRK-02
#[tokio::test]
async fn whoever_is_not_configured_does_not_prove_itself_or_shows_what_has_ended_is_no_broker() {
    let (brokering, log) = (Brokering::new(), Log::start());
    let authority = &brokering.served.authority;
    let stranger = short_lived(&Authority::new(), "/broker", 3600);
    let ended = short_lived(authority, "/broker", -30);
    let other = short_lived(authority, "/web", 3600);
    let process = Sleeper::start(WORKLOAD);
    for (who, svid) in
        [("nobody", None), ("a stranger", Some(&stranger)), ("late", Some(&ended)), ("other", Some(&other))]
    {
        // TLS 1.3 lets a client believe that it is in before it is judged.
        let refused = match brokering.client(svid.map(|svid| &**svid), &brokering.socket()).await {
            Err(_) => Code::Unavailable,
            Ok(mut client) => subscribe(&mut client, of_pid(process.pid())).await.expect_err(who).code(),
        };
        assert!(matches!(refused, Code::Unavailable | Code::Unknown | Code::Cancelled), "{who}: {refused:?}");
    }
    let log = log.text();
    assert!(log.contains("refused a connection of a broker"), "{log}");
    // Who may is told in the same breath.
    let mut broker = brokering.broker("/broker").await.expect("a broker");
    subscribe(&mut broker, of_pid(process.pid())).await.expect("answers");
}

#[tokio::test]
async fn a_plain_connection_is_told_nothing() {
    let brokering = Brokering::new();
    let mut plain = SpiffeWorkloadApiClient::new(connect(&brokering.socket()).await.expect("connects"));
    let refused = patiently(plain.fetch_x509svid(served::asking(X509svidRequest {}))).await.expect_err("refused");
    assert!(matches!(refused.code(), Code::Unavailable | Code::Unknown | Code::Internal), "{refused:?}");
}

//= BRK-01
#[tokio::test]
async fn a_request_without_the_header_or_of_another_api_is_refused() {
    let brokering = Brokering::new();
    let process = Sleeper::start(WORKLOAD);
    let mut broker = brokering.broker("/broker").await.expect("a broker");
    let request = || SubscribeToX509svidRequest { reference: of_pid(process.pid()) };
    let plain = broker.subscribe_to_x509svid(request()).await.expect_err("no header");
    assert_eq!(plain.code(), Code::InvalidArgument);
    assert!(plain.message().contains("broker.spiffe.io"), "{plain}");
    for value in ["True", "false", ""] {
        let mut wrong = tonic::Request::new(request());
        wrong.metadata_mut().insert("broker.spiffe.io", value.parse().expect("ASCII"));
        assert_eq!(broker.subscribe_to_x509svid(wrong).await.expect_err(value).code(), Code::InvalidArgument);
    }
    let workloads = served::asking(request());
    assert_eq!(broker.subscribe_to_x509svid(workloads).await.expect_err("another's").code(), Code::InvalidArgument);
    // The same API is on no other socket.
    let mut elsewhere = ApiClient::new(connect(&brokering.served.socket()).await.expect("connects"));
    let refused = elsewhere.subscribe_to_x509svid(asking(request())).await.expect_err("not there");
    assert_eq!(refused.code(), Code::Unimplemented);
}

//= BRK-02
#[tokio::test]
async fn a_type_that_is_not_granted_to_the_broker_is_refused_before_it_is_looked_at() {
    let other = ReferenceTypes::Only(["type.googleapis.com/spiffe.broker.KubernetesObjectReference".into()].into());
    let only_pids = ReferenceTypes::Only([PID_REFERENCE.to_owned()].into());
    let id = |path: &str| td("td").id_with_path(path).expect("legal");
    let brokers: Brokers = [(id("/broker"), other), (id("/other"), only_pids)].into_iter().collect();
    let brokering = Brokering::with(brokers);
    brokering.served.publish(vec![brokering.served.authority.issue("/web", WORKLOAD, 3600)]);
    let process = Sleeper::start(WORKLOAD);
    let mut broker = brokering.broker("/broker").await.expect("a broker");
    for reference in [of_pid(process.pid()), of_pid(-1), reference(PID_REFERENCE, vec![0xff])] {
        let refused = subscribe(&mut broker, reference).await.expect_err("not its");
        assert_eq!(refusal(&refused), (Code::PermissionDenied, String::new()));
        let words = "broker \"spiffe://td/broker\" is not allowed to use reference type";
        assert!(refused.message().starts_with(words), "{refused}");
    }
    let mut broker = brokering.broker("/other").await.expect("a broker");
    subscribe(&mut broker, of_pid(process.pid())).await.expect("answers");
}

//= BRK-03 BRK-05
#[tokio::test]
async fn each_hostile_reference_is_refused_by_name_and_the_broker_is_served_on() {
    let brokering = Brokering::new();
    let (mut gone, living) = (Sleeper::start(WORKLOAD), Sleeper::start(WORKLOAD));
    gone.end();
    let mut broker = brokering.broker("/broker").await.expect("a broker");
    let kubernetes = "type.googleapis.com/spiffe.broker.KubernetesObjectReference";
    for (what, reference, expected) in [
        ("none", None, invalid()),
        ("an empty one", Some(WorkloadReference::default()), invalid()),
        ("no type", reference("", vec![8, 1]), invalid()),
        ("another type", reference(kubernetes, Vec::new()), invalid()),
        ("an unknown type", reference("type.googleapis.com/x.Y", vec![8, 1]), invalid()),
        ("damaged", reference(PID_REFERENCE, vec![8]), invalid()),
        ("nothing said", reference(PID_REFERENCE, Vec::new()), invalid()),
        ("nobody", of_pid(0), invalid()),
        ("below zero", of_pid(-1), invalid()),
        ("far below", of_pid(i32::MIN), invalid()),
        ("huge", of_pid(i32::MAX), not_found()),
        ("gone", of_pid(gone.pid()), not_found()),
    ] {
        let refused = subscribe(&mut broker, reference.clone()).await.expect_err(what);
        assert_eq!(refusal(&refused), expected, "{what}");
        let request = FetchJwtsvidRequest { reference, audience: vec!["us".into()], spiffe_id: String::new() };
        let refused = broker.fetch_jwtsvid(asking(request)).await.expect_err(what);
        assert_eq!(refusal(&refused), expected, "{what}");
    }
    let long = reference(PID_REFERENCE, vec![0; 100_000]);
    let refused = subscribe(&mut broker, long).await.expect_err("too long");
    assert!(matches!(refused.code(), Code::ResourceExhausted | Code::OutOfRange), "{refused}");
    subscribe(&mut broker, of_pid(living.pid())).await.expect("answers");
}

#[tokio::test]
async fn a_thread_of_a_workload_is_no_workload() {
    let brokering = Brokering::with(any_type());
    brokering.served.publish(vec![brokering.served.authority.issue("/us", 0, 3600)]);
    let (says, said) = std::sync::mpsc::channel();
    let (ends, until_then) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        says.send(nix::unistd::gettid().as_raw()).expect("listens");
        let _ = until_then.recv();
    });
    let mut broker = brokering.broker("/broker").await.expect("a broker");
    subscribe(&mut broker, of_pid(std::process::id() as i32)).await.expect("the process itself");
    let refused = subscribe(&mut broker, of_pid(said.recv().expect("says it"))).await.expect_err("no process");
    assert_eq!(refusal(&refused), not_found());
    drop(ends);
    thread.join().expect("ends");
}

//= BRK-07
#[tokio::test]
async fn a_stream_ends_with_its_process_and_whoever_gets_the_number_next_is_somebody_else() {
    let brokering = Brokering::new();
    let authority = &brokering.served.authority;
    let both = || vec![authority.issue("/web", WORKLOAD, 3600), authority.issue("/other", WORKLOAD + 1, 3600)];
    brokering.served.publish(both());
    let mut process = Sleeper::start(WORKLOAD);
    let number = process.pid();
    let mut broker = brokering.broker("/broker").await.expect("a broker");
    let mut stream = subscribe(&mut broker, of_pid(number)).await.expect("answers");
    assert_eq!(ids(&next(&mut stream).await), ["spiffe://td/web"]);
    process.end();
    let newcomer = Sleeper::with_number(number, WORKLOAD + 1);
    // Nothing is published: the end of the process alone ends the stream.
    assert_eq!(refusal(&ended(&mut stream).await), not_found());
    let answer = next(&mut subscribe(&mut broker, of_pid(newcomer.pid())).await.expect("answers")).await;
    assert_eq!(ids(&answer), ["spiffe://td/other"], "asked for anew, it is who it is");
}

//= BRK-04
#[tokio::test]
async fn a_broker_in_another_pid_namespace_names_nobody_for_its_numbers_mean_others() {
    let brokering = Brokering::new();
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path().join("relay.sock");
    let _relay = Relay::in_a_pid_namespace(&at, &brokering.socket());
    let process = Sleeper::start(WORKLOAD);
    let svid = short_lived(&brokering.served.authority, "/broker", 3600);
    let mut broker = brokering.client(Some(&svid), &at).await.expect("a broker");
    for pid in [process.pid(), 1, 2] {
        let refused = subscribe(&mut broker, of_pid(pid)).await.expect_err("whose number?");
        assert_eq!(refusal(&refused), invalid());
        assert!(refused.message().contains("another PID namespace"), "{refused}");
    }
}

#[tokio::test]
async fn a_workload_in_another_pid_namespace_is_known_by_its_number_here() {
    let brokering = Brokering::new();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "setpriv"]);
    command.args(["--reuid", "61001", "--regid", "61001", "--clear-groups", "sleep", "60"]);
    let parent = Sleeper::of(&mut command);
    let children = format!("/proc/{0}/task/{0}/children", parent.pid());
    let deadline = std::time::Instant::now() + served::PATIENCE;
    let is_workload = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| text.contains("Uid:\t61001"))
    };
    let child = loop {
        let child = std::fs::read_to_string(&children).expect("reads").trim().parse::<i32>().ok();
        match child.filter(is_workload) {
            Some(child) => break child,
            None => assert!(std::time::Instant::now() < deadline, "it does not start"),
        }
    };
    let mut broker = brokering.broker("/broker").await.expect("a broker");
    let answer = next(&mut subscribe(&mut broker, of_pid(child)).await.expect("answers")).await;
    assert_eq!(ids(&answer), ["spiffe://td/web"]);
}

#[tokio::test]
async fn a_stream_follows_rotation_and_ends_with_the_entry() {
    let brokering = Brokering::new();
    let authority = &brokering.served.authority;
    let process = Sleeper::start(WORKLOAD);
    let mut broker = brokering.broker("/broker").await.expect("a broker");
    let mut stream = subscribe(&mut broker, of_pid(process.pid())).await.expect("answers");
    next(&mut stream).await;
    let new = authority.issue("/web", WORKLOAD, 7200);
    brokering.served.publish(vec![new.clone()]);
    assert_eq!(&next(&mut stream).await.svids[0].x509_svid_key, new.key().pkcs8_der());
    brokering.served.publish(vec![authority.issue("/other", WORKLOAD + 1, 3600)]);
    let status = ended(&mut stream).await;
    assert_eq!((refusal(&status), status.message()), (not_entitled(), "no identity issued"));
    let refused = subscribe(&mut broker, of_pid(process.pid())).await.expect_err("no entry");
    assert_eq!(refusal(&refused), not_entitled());
    let request = SubscribeToX509BundlesRequest { reference: of_pid(process.pid()) };
    let refused = broker.subscribe_to_x509_bundles(asking(request)).await.expect_err("no entry");
    assert_eq!(refusal(&refused), not_entitled());
}

#[tokio::test]
async fn identities_of_administrators_and_servers_are_handed_on_to_no_broker() {
    let brokering = Brokering::new();
    let authority = &brokering.served.authority;
    let of = |path: &str, is_privileged: Option<bool>| {
        let terms = EntryTerms { is_privileged, ..terms(path, &[&format!("unix:uid:{WORKLOAD}")]) };
        authority.issue_for(terms, NOW - 60..NOW + 3600)
    };
    let process = Sleeper::start(WORKLOAD);
    let mut broker = brokering.broker("/broker").await.expect("a broker");
    brokering.served.publish(vec![of("/admin", Some(true)), of("/older", None)]);
    let refused = subscribe(&mut broker, of_pid(process.pid())).await.expect_err("none of them");
    assert_eq!(refusal(&refused), not_entitled());
    let audience = vec!["us".into()];
    let request = FetchJwtsvidRequest { reference: of_pid(process.pid()), audience, spiffe_id: String::new() };
    assert_eq!(refusal(&broker.fetch_jwtsvid(asking(request)).await.expect_err("none")), not_entitled());
    brokering.served.publish(vec![of("/admin", Some(true)), of("/web", Some(false))]);
    let answer = next(&mut subscribe(&mut broker, of_pid(process.pid())).await.expect("answers")).await;
    assert_eq!(ids(&answer), ["spiffe://td/web"]);
}

#[tokio::test]
async fn a_token_is_asked_for_with_an_audience_and_legal_names_only() {
    let brokering = Brokering::new();
    let process = Sleeper::start(WORKLOAD);
    let mut broker = brokering.broker("/broker").await.expect("a broker");
    let mut fetch = async |audience: &[&str], spiffe_id: &str| {
        let audience = audience.iter().map(|&audience| audience.to_owned()).collect();
        let reference = of_pid(process.pid());
        let request = FetchJwtsvidRequest { reference, audience, spiffe_id: spiffe_id.to_owned() };
        broker.fetch_jwtsvid(asking(request)).await.expect_err("refused")
    };
    let refused = fetch(&[], "").await;
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "audience must be specified"));
    assert_eq!(fetch(&["us"], "no ID").await.code(), Code::InvalidArgument);
    assert_eq!(
        refusal(&fetch(&["us"], "spiffe://td/other").await),
        not_entitled(),
        "the one that is named is not its own"
    );
    let unsigned = fetch(&["us"], "spiffe://td/web").await;
    assert_eq!(unsigned.code(), Code::Unavailable, "there is no server behind this socket");
}

fn foreign(authority: &Authority, name: &str) -> Arc<ForeignBundle> {
    let own = authority.bundle();
    let authorities = own.authorities().map(|der| types::X509Certificate { asn1: der.to_vec().into(), tainted: false });
    let wire = types::Bundle {
        trust_domain: name.to_owned(),
        x509_authorities: authorities.collect(),
        ..types::Bundle::default()
    };
    Arc::new(ForeignBundle::from_answer(&wire, &td(name)).expect("a bundle"))
}

#[tokio::test]
async fn a_broker_of_another_trust_domain_is_known_by_its_bundle_and_for_as_long_as_that_is_there() {
    let abroad = td("abroad").id_with_path("/broker").expect("legal");
    let brokering = Brokering::with([(abroad.clone(), ReferenceTypes::Any)].into_iter().collect());
    let theirs = Authority::new();
    let now = ironroot_agent::trusted_time::system_unix();
    let svid = theirs.issue_for(EntryTerms { spiffe_id: abroad, ..terms("/broker", &[]) }, now - 60..now + 3600);
    let web = brokering.served.authority.issue("/web", WORKLOAD, 3600);
    let publish = |bundles: &[Arc<ForeignBundle>]| {
        let mut federated = FederatedBundles::default();
        assert!(bundles.iter().all(|bundle| federated.add(bundle.clone())));
        let all = Identities::try_new(td("td"), vec![web.clone()], brokering.served.authority.bundle());
        brokering.served.publisher.send_replace(Arc::new(all.expect("sound").with_federated(federated)));
    };
    publish(&[foreign(&theirs, "abroad")]);
    let process = Sleeper::start(WORKLOAD);
    let mut broker = brokering.client(Some(&svid), &brokering.socket()).await.expect("a broker");
    let mut stream = subscribe(&mut broker, of_pid(process.pid())).await.expect("answers");
    assert_eq!(ids(&next(&mut stream).await), ["spiffe://td/web"]);
    publish(&[foreign(&Authority::new(), "abroad")]);
    assert_eq!(ended(&mut stream).await.code(), Code::Unauthenticated, "its authority is gone");
    publish(&[]);
    let refused = subscribe(&mut broker, of_pid(process.pid())).await.expect_err("its bundle, too");
    assert_eq!(refusal(&refused), (Code::Unauthenticated, String::new()));
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_that_it_began_with() {
    let brokering = Brokering::new();
    let process = Sleeper::start(WORKLOAD);
    let svid = short_lived(&brokering.served.authority, "/broker", 5);
    let mut broker = brokering.client(Some(&svid), &brokering.socket()).await.expect("a broker");
    let mut stream = subscribe(&mut broker, of_pid(process.pid())).await.expect("answers");
    next(&mut stream).await;
    let status = ended(&mut stream).await;
    assert!(
        matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal),
        "{status:?}"
    );
}

#[tokio::test]
async fn the_socket_is_not_everybodys_and_not_among_the_workloads() {
    let brokering = Brokering::new();
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&brokering.socket()), 0o770);
    let directory = tempfile::tempdir().expect("a directory");
    let (_, identities) = tokio::sync::watch::channel(Arc::new(Identities::starting(td("td"))));
    let sources = served::sources(identities, requests::Requests::channel().0, Arc::new(|| NOW));
    let mut config = served::config(directory.path().join("api.sock"), Limits::default());
    config.broker = Some(ironroot_agent::endpoints::BrokerSocketConfig {
        socket_path: directory.path().join("below/broker.sock"),
        brokers: any_type(),
        certificate: brokering.certificate.clone(),
        key_exchanges: ironroot_api::tls::KeyExchanges::default(),
    });
    let refused = serve_workload_api(config, sources, std::future::pending()).err().expect("refused");
    assert!(matches!(refused, EndpointError::BrokerSocketPlace(_)), "{refused}");
}

#[tokio::test]
async fn a_broker_that_is_told_nothing_leaves_one_line() {
    let (brokering, log) = (Brokering::new(), Log::start());
    let mut broker = brokering.broker("/broker").await.expect("a broker");
    for _ in 0..3 {
        subscribe(&mut broker, of_pid(i32::MAX)).await.expect_err("nobody");
    }
    let log = log.text();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("a broker is told nothing")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    let parts =
        ["broker=spiffe://td/broker", "uid=0", "method=\"SubscribeToX509SVID\"", "there is no process 2147483647"];
    assert!(parts.iter().all(|part| lines[0].contains(part)), "{}", lines[0]);
}

/// One user's bound of streams holds for brokers, too.
#[tokio::test]
async fn a_broker_has_no_more_streams_than_any_local_user() {
    let brokering = Brokering::new();
    let process = Sleeper::start(WORKLOAD);
    let most = Limits::default().max_streams_per_user;
    let mut held: Vec<(ApiClient<Channel>, Streaming<SubscribeToX509svidResponse>)> = Vec::new();
    let mut client = brokering.broker("/broker").await.expect("a broker");
    let refused = loop {
        if held.len().is_multiple_of(100) {
            client = brokering.broker("/broker").await.expect("a broker");
        }
        match subscribe(&mut client, of_pid(process.pid())).await {
            Ok(stream) => held.push((client.clone(), stream)),
            Err(refused) => break refused,
        }
        assert!(held.len() <= most);
    };
    assert_eq!((held.len(), refused.code()), (most, Code::ResourceExhausted));
}
