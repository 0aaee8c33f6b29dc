//! What the socket decides before it reads a request, and what it then says in the log.

#[path = "support/log.rs"]
mod log;
#[path = "support/served.rs"]
mod served;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_agent::endpoints::{CallRates, Limits};
use ironroot_agent::identities::Identities;
use ironroot_agent::report::Stands;
use ironroot_api::pb::discovery::DiscoveryRequest;
use ironroot_api::pb::workload::X509svidRequest;
use log::Log;
use served::{Served, asking, next, patiently};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tonic_reflection::pb::v1alpha;

/// How long a message is waited for; what does not depend on one is answered before.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(10);
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[test]
fn acts_as_a_workload() {
    served::act();
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

fn field(name: &str, value: &[u8]) -> Vec<u8> {
    [&[0x10, name.len() as u8][..], name.as_bytes(), &[value.len() as u8], value].concat()
}

/// A request's headers, with more to follow.
fn headers(stream: u8, path: &str) -> Vec<u8> {
    let fields = [
        field(":method", b"POST"),
        field(":scheme", b"http"),
        field(":path", path.as_bytes()),
        field("te", b"trailers"),
        field("content-type", b"application/grpc"),
        field("workload.spiffe.io", b"true"),
    ];
    frame(HEADERS, END_HEADERS, stream, &fields.concat())
}

/// A connection that has said as much as HTTP/2 asks for.
async fn connection(served: &Served) -> UnixStream {
    let mut stream = UnixStream::connect(served.socket()).await.expect("connects");
    let settings = frame(4, 0, 0, &[]);
    stream.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat()).await.expect("writes");
    stream
}

/// Waits for the end of `stream`'s answer; whether anything but headers came on it.
async fn end_of_answer(connection: &mut UnixStream, stream: u8) -> bool {
    let mut had_data = false;
    loop {
        let mut header = [0; 9];
        patiently(connection.read_exact(&mut header)).await.expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
        patiently(connection.read_exact(&mut payload)).await.expect("its payload");
        if header[8] == stream && matches!(header[3], DATA | HEADERS) {
            had_data |= header[3] == DATA;
            if header[4] & END_STREAM != 0 {
                return had_data;
            }
        }
    }
}

const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// The start of a message of `bytes`, as gRPC frames it.
fn prefix(bytes: u32) -> Vec<u8> {
    [&[0][..], &bytes.to_be_bytes()].concat()
}

async fn call(served: &Served, path: &'static str) -> Code {
    let channel = ironroot_api::unix_socket::connect(&served.socket()).await.expect("connects");
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("ready");
    let codec = tonic_prost::ProstCodec::<X509svidRequest, X509svidRequest>::default();
    let answer = client.unary(asking(X509svidRequest {}), PathAndQuery::from_static(path), codec).await;
    answer.map(drop).map_or_else(|status| status.code(), |()| Code::Ok)
}

//= WLA-12
#[tokio::test]
async fn methods_that_are_not_offered_are_answered_at_once_and_named_in_the_log() {
    let (served, log) = (Served::ours(), Log::start());
    for path in [
        "/SpiffeWorkloadAPI/FetchWITSVID",
        "/SpiffeWorkloadAPI/FetchWITBundles",
        "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
        "/no.such.Service/Method",
    ] {
        let began = Instant::now();
        assert_eq!(call(&served, path).await, Code::Unimplemented, "{path}");
        assert!(began.elapsed() < MESSAGE_PATIENCE, "{path}");
    }
    let log = log.text();
    let told = "WIT-SVIDs are not enabled on this agent (enable_wit_svids)";
    assert!(log.contains(told) && log.contains("/SpiffeWorkloadAPI/FetchWITSVID"), "{log}");
    assert_eq!(log.matches("WARN").count(), 1, "one line for this user within a while: {log}");
}

#[tokio::test]
async fn a_method_is_decided_about_before_a_byte_of_the_body_is_there() {
    let served = Served::ours();
    let mut connection = connection(&served).await;
    connection.write_all(&headers(1, "/SpiffeWorkloadAPI/FetchWITSVID")).await.expect("writes");
    assert!(!end_of_answer(&mut connection, 1).await);
}

#[tokio::test]
async fn a_message_longer_than_any_of_this_api_is_refused_by_its_length_alone() {
    let served = Served::ours();
    let mut connection = connection(&served).await;
    let request = [headers(1, FETCH), frame(DATA, 0, 1, &prefix(4_194_000))].concat();
    let began = Instant::now();
    connection.write_all(&request).await.expect("writes");
    assert!(!end_of_answer(&mut connection, 1).await);
    assert!(began.elapsed() < MESSAGE_PATIENCE, "not by the deadline");
}

#[tokio::test]
async fn a_body_of_many_small_messages_is_refused_too() {
    let served = Served::ours();
    let mut connection = connection(&served).await;
    let request = [headers(1, FETCH), frame(DATA, 0, 1, &[0; 3000])].concat();
    connection.write_all(&request).await.expect("writes");
    assert!(!end_of_answer(&mut connection, 1).await);
}

//= FLT-A9
#[tokio::test]
async fn unfinished_requests_hold_their_users_slots_until_a_deadline_and_no_other_users() {
    let served = Served::new(Limits { max_streams_per_user: 2, ..Limits::default() });
    served.publish(vec![served.authority.issue("/test", 0, 3600), served.authority.issue("/web", 61001, 3600)]);
    let mut connection = connection(&served).await;
    let began = Instant::now();
    for stream in [1, 3] {
        let request = [headers(stream, FETCH), frame(DATA, 0, stream, &prefix(1000))].concat();
        connection.write_all(&request).await.expect("writes");
    }
    patiently(async {
        while served.fetch().await.err().map(|status| status.code()) != Some(Code::ResourceExhausted) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(served.told(61001).await, "spiffe://td/web");
    assert!(!end_of_answer(&mut connection, 1).await);
    assert!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());
    patiently(async {
        while served.fetch().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

//= FLT-A10
#[tokio::test]
async fn a_connection_that_never_says_http2_is_closed() {
    let served = Served::ours();
    let mut silent = UnixStream::connect(served.socket()).await.expect("connects");
    let mut halting = UnixStream::connect(served.socket()).await.expect("connects");
    halting.write_all(b"PRI * HTTP/2.0").await.expect("writes");
    let mut speaking = connection(&served).await;
    for quiet in [&mut silent, &mut halting] {
        // What the server says first, and then the end.
        let _ = patiently(quiet.read_to_end(&mut Vec::new())).await;
    }
    speaking.write_all(&headers(1, "/no.such.Service/Method")).await.expect("is still open");
    end_of_answer(&mut speaking, 1).await;
}

#[tokio::test]
async fn a_workload_without_an_identity_leaves_one_line_that_says_what_it_lacks() {
    let (served, log) = (Served::new(Limits::default()), Log::start());
    let pair = ["unix:uid:61001", "unix:user:nobody-else"];
    served.publish(vec![served.authority.issue("/web", 61002, 3600), served.authority.issue_to("/db", &pair, 3600)]);
    for _ in 0..2 {
        assert_eq!(served.told(61001).await, "PermissionDenied: no identity issued");
    }
    let log = log.text();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("No identity issued")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    for part in [
        "WARN",
        "uid=61001",
        "pid=",
        "method=\"FetchX509SVID\"",
        "registered=false",
        "selectors=unix:gid:61001",
        "unix:uid:61001",
        "nearest=spiffe://td/db",
        "lacks=unix:user:nobody-else",
    ] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
}

#[tokio::test]
async fn health_says_serving_once_there_is_something_to_serve_from_and_not_while_the_agent_is_cast_out() {
    let served = Served::new(Limits::default());
    let channel = ironroot_api::unix_socket::connect(&served.socket()).await.expect("connects");
    let mut client = HealthClient::new(channel);
    let ask = HealthCheckRequest { service: String::new() };
    let mut watched = client.watch(ask.clone()).await.expect("watches").into_inner();
    let mut told = async || patiently(watched.message()).await.expect("no error").expect("no end").status();
    while told().await != ServingStatus::NotServing {}
    assert_eq!(client.check(ask.clone()).await.expect("says").into_inner().status(), ServingStatus::NotServing);
    served.publish(Vec::new());
    while told().await != ServingStatus::Serving {}
    assert_eq!(client.check(ask).await.expect("says").into_inner().status(), ServingStatus::Serving);
    for (stands, wanted) in [
        (Stands::Banned, ServingStatus::NotServing),
        (Stands::Attested, ServingStatus::Serving),
        (Stands::Evicted, ServingStatus::NotServing),
    ] {
        let all = Identities::clone(&served.publisher.borrow()).of_cast_out(Some(stands));
        served.publisher.send_replace(Arc::new(all));
        while told().await != wanted {}
    }
}

//= WLE-08 WLE-09
#[tokio::test]
async fn reflection_lists_the_services_without_the_security_header() {
    let served = Served::ours();
    let channel = ironroot_api::unix_socket::connect(&served.socket()).await.expect("connects");
    let mut client = ServerReflectionClient::new(channel.clone());
    let ask = |message_request| ServerReflectionRequest { host: String::new(), message_request: Some(message_request) };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("SpiffeWorkloadAPI".to_owned())),
    ];
    let answers = client.server_reflection_info(tokio_stream::iter(questions)).await.expect("answers").into_inner();
    let answers: Vec<ServerReflectionResponse> = collect(answers).await;
    let Some(MessageResponse::ListServicesResponse(list)) = &answers[0].message_response else {
        panic!("no list: {answers:?}")
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in [
        "SpiffeWorkloadAPI",
        "envoy.service.secret.v3.SecretDiscoveryService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    let Some(MessageResponse::FileDescriptorResponse(_)) = answers[1].message_response else {
        panic!("no descriptor: {answers:?}")
    };
    let mut old = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let list = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let list = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let answers = old.server_reflection_info(tokio_stream::iter([list])).await.expect("answers").into_inner();
    assert_eq!(collect(answers).await.len(), 1);
}

#[tokio::test]
async fn reflection_stays_within_its_users_streams() {
    let served = Served::new(Limits { max_streams_per_user: 1, ..Limits::default() });
    served.publish(vec![served.authority.issue("/test", 0, 3600)]);
    let mut stream = served.fetch().await.expect("served");
    next(&mut stream).await;
    let channel = ironroot_api::unix_socket::connect(&served.socket()).await.expect("connects");
    let refused = ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::pending()).await;
    assert_eq!(refused.expect_err("refused").code(), Code::ResourceExhausted);
}

async fn collect<T>(mut answers: tonic::Streaming<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(answer) = patiently(answers.message()).await.expect("no error") {
        all.push(answer);
    }
    all
}

/// A client that prints what the wire has (Envoy) prints a sentence.
#[tokio::test]
async fn the_message_of_a_refusal_has_its_spaces_in_headers_and_in_trailers() {
    let served = Served::ours();
    let mut channel = ironroot_api::unix_socket::connect(&served.socket()).await.expect("connects");
    let mut call = async |path: &str, message: Vec<u8>| {
        let framed = [&[0][..], &u32::try_from(message.len()).expect("short").to_be_bytes(), &message].concat();
        let body = tonic::body::Body::new(http_body_util::Full::new(prost::bytes::Bytes::from(framed)));
        let request = http::Request::post(format!("http://localhost{path}")).header("te", "trailers");
        let request = request.header("content-type", "application/grpc").body(body).expect("a request");
        std::future::poll_fn(|cx| tower::Service::poll_ready(&mut channel, cx)).await.expect("ready");
        patiently(tower::Service::call(&mut channel, request)).await.expect("answers")
    };
    let refused = call("/SpiffeWorkloadAPI/FetchX509SVID", Vec::new()).await;
    let wanted = "security header %22workload.spiffe.io: true%22 missing from request";
    assert_eq!(refused.headers()["grpc-message"], wanted);
    let other = DiscoveryRequest { resource_names: vec!["spiffe://td/other".to_owned()], ..Default::default() };
    let stream = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
    let answer = call(stream, prost::Message::encode_to_vec(&other)).await;
    assert!(!answer.headers().contains_key("grpc-status"), "a stream is refused at its end");
    let ended = patiently(http_body_util::BodyExt::collect(answer.into_body())).await.expect("ends");
    let wanted = "workload is not authorized for the requested identities [%22spiffe://td/other%22]";
    assert_eq!(ended.trailers().expect("trailers")["grpc-message"], wanted);
}

#[tokio::test]
async fn who_calls_beyond_the_rate_of_the_file_is_told_so_and_other_workloads_are_served() {
    let served = Served::with(|config| config.call_rates = CallRates([1, 0, 0, 0, 0, 0]));
    let log = Log::start();
    let theirs = [("/test", 0), ("/other", 61_001)].map(|(path, uid)| served.authority.issue(path, uid, 3600));
    served.publish(theirs.into());
    // More at once than go through in the time that they take.
    let calls = futures_util::future::join_all((0..100).map(|_| served.fetch())).await;
    let (through, refused): (Vec<_>, Vec<_>) = calls.into_iter().partition(Result::is_ok);
    assert!(!through.is_empty() && !refused.is_empty(), "{} go through", through.len());
    for refused in refused {
        let status = refused.map(drop).expect_err("refused");
        let words = "rate limit exceeded for /SpiffeWorkloadAPI/FetchX509SVID";
        assert_eq!((status.code(), status.message()), (Code::Unavailable, words));
    }
    assert_eq!(served.told(61_001).await, "spiffe://td/other");
    assert!(log.text().contains("rate limit exceeded (experimental.ratelimit)"), "{}", log.text());
}
