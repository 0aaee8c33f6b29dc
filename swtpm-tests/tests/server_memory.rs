//! What strangers, workloads and agents can make the server hold: measured, against the numbers of the handbook's table "What
//! each role can take of the server".

use std::time::{Duration, Instant};

use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{BatchCreateEntryRequest, SyncAuthorizedEntriesRequest};
use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN};
use ironroot_lab::raw_http2::{PREFACE, data, half_open_call};
use ironroot_lab::server_client::{Agent, Credentials, ServerClient};
use ironroot_server::endpoints::{Role, RoleLimits, policy};
use prost::bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::Request;
use tonic::transport::Channel;
use tonic::{Code, Status};

const MIB: u64 = 1024 * 1024;
/// What the server's memory may move by itself while a test runs, bytes.
const NOISE: u64 = 6 * MIB;
const CREATE_ENTRIES: &str = "/spire.api.server.entry.v1.Entry/BatchCreateEntry";
const IMPORT: &str = "/ironroot.api.server.device.v1.Device/ImportDevices";
const NEW_SVIDS: &str = "/spire.api.server.svid.v1.SVID/BatchNewX509SVID";
const GET_BUNDLE: &str = "/spire.api.server.bundle.v1.Bundle/GetBundle";

/// A call's state in the HTTP/2 and gRPC libraries, bytes. Measured: 4.9 kB.
const CALL_BYTES: usize = 8 * 1024;
/// A connection's state in TLS and HTTP/2, bytes. Measured: 46 kB at 5,000 agents.
const CONNECTION_BYTES: usize = 64 * 1024;

/// What a connection's calls hold at the worst, bytes: headers and windows, which the server bounds, and the libraries' state,
/// which these tests measure.
fn connection_bytes(limits: &RoleLimits) -> usize {
    limits.streams as usize * (limits.header_bytes as usize + CALL_BYTES) + limits.windows.1 as usize + CONNECTION_BYTES
}

/// The server's resident memory, bytes: `VmRSS` now, `VmHWM` at its highest since [`forget_peak`].
fn memory(server: &mut Server, field: &str) -> u64 {
    let pid = server.process().expect("running").pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib: u64 = line.expect("a line").trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// Begins a measurement; the memory as it is.
fn forget_peak(server: &mut Server) -> u64 {
    let pid = server.process().expect("running").pid();
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the peak is forgotten");
    memory(server, "VmRSS")
}

/// By how much the server grew at most since `before`, bytes.
fn growth(server: &mut Server, before: u64) -> u64 {
    memory(server, "VmHWM").saturating_sub(before)
}

/// A gRPC message of empty items, two bytes each.
fn empty_items(bytes: usize) -> Bytes {
    let mut message = vec![0];
    message.extend((bytes as u32).to_be_bytes());
    message.extend([0x0a, 0].repeat(bytes / 2));
    message.into()
}

/// The gRPC code of one unary call, whose body need be no message.
async fn call(channel: &Channel, path: &str, body: Bytes) -> Code {
    let mut channel = channel.clone();
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.expect("connected");
    let mut request = Request::post(format!("http://localhost{path}"));
    request = request.header("content-type", "application/grpc").header("te", "trailers");
    let body = Body::new(http_body_util::Full::new(body));
    match channel.call(request.body(body).expect("a request")).await {
        Ok(response) => Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code()),
        Err(_) => Code::Cancelled,
    }
}

async fn workload(server: &Server, agent: &Agent, more: &[&str]) -> Credentials {
    let entry_id = server.create_entry(agent.id().as_str(), "/g1000", &["unix:uid:1000"], more);
    agent.fetch_svid(entry_id).await
}

#[tokio::test]
async fn a_workload_or_an_agent_cannot_make_the_server_decode_millions_of_empty_items() {
    let mut server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let workload = client.with(&workload(&server, &agent, &[]).await).await.expect("a good certificate");
    let before = forget_peak(&mut server);
    for path in [CREATE_ENTRIES, IMPORT, NEW_SVIDS] {
        for caller in [&workload, &agent.channel] {
            let bodies = (0..2).map(|_| call(caller, path, empty_items(16_000_000)));
            for code in futures_util::future::join_all(bodies).await {
                assert!(
                    [Code::PermissionDenied, Code::OutOfRange, Code::Cancelled].contains(&code),
                    "{path}: {code:?}"
                );
            }
        }
        assert_eq!(call(&agent.channel, NEW_SVIDS, empty_items(1_000_000)).await, Code::InvalidArgument);
    }
    let grown = growth(&mut server, before);
    assert!(grown < NOISE, "the server grew by {grown} bytes");
}

//= FLT-S16
#[tokio::test]
async fn an_administrators_empty_items_are_counted_while_they_are_read() {
    let mut server = Server::start(&ServerOptions::default());
    let admin = ServerClient::new(&server).await.admin().await;
    let before = forget_peak(&mut server);
    for path in [CREATE_ENTRIES, IMPORT] {
        assert_eq!(call(&admin, path, empty_items(16_000_000)).await, Code::InvalidArgument, "{path}");
    }
    let grown = growth(&mut server, before);
    // The message itself may have been read to its middle.
    assert!(grown < 40 * MIB, "the server grew by {grown} bytes");
}

/// A connection on which `calls` calls of `path` are begun, each with headers of `padding` bytes and `body`, and nothing more.
async fn half_open(
    client: &ServerClient,
    credentials: Option<&Credentials>,
    path: &str,
    calls: u32,
    padding: usize,
    body: &[u8],
) -> Option<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let mut tls = client.shake(credentials).await.ok()?;
    let mut frames = PREFACE.to_vec();
    for call in 0..calls {
        frames.extend(half_open_call(2 * call + 1, path, padding));
        if !body.is_empty() {
            frames.extend(data(2 * call + 1, body));
        }
    }
    // A server that breaks the connection off need not read all of it.
    let _ = tls.write_all(&frames).await;
    Some(tls)
}

/// Waits until the server has nothing more to read of what was sent: its memory stands still.
async fn settled(server: &mut Server) {
    let end = Instant::now() + DEADLINE;
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = memory(server, "VmRSS");
        if now == last || Instant::now() > end {
            return;
        }
        last = now;
    }
}

//= FLT-S13
#[tokio::test]
async fn a_hundred_connections_of_a_stranger_hold_no_more_than_the_handbook_says() {
    let mut server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let before = forget_peak(&mut server);
    let mut open = Vec::new();
    for connection in 0..100 {
        // Half of them with headers that are too large, half with the largest that are read.
        let padding = if connection % 2 == 0 { 14_700 } else { 3500 };
        open.extend(half_open(&client, None, GET_BUNDLE, 120, padding, &[]).await);
    }
    assert_eq!(open.len(), 100, "each was let in");
    settled(&mut server).await;
    let grown = growth(&mut server, before);
    let bound = 100 * connection_bytes(&Role::Stranger.limits()) as u64;
    println!("100 connections of a stranger: {} kB of {} kB", grown / 1024, bound / 1024);
    assert!(grown < bound + NOISE, "the server grew by {grown} bytes, the handbook says {bound}");
}

#[tokio::test]
async fn unfinished_bodies_hold_no_more_than_the_budget_and_not_for_long() {
    let mut server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let workload = workload(&server, &agent, &[]).await;
    let before = forget_peak(&mut server);
    // The beginning of a message of 16 MiB, and of one as large as a CSR batch may be.
    let huge = [&[0, 1, 0, 0, 0][..], &[0x0a; 16_000]].concat();
    let large = [&[0, 0, 0x0f, 0, 0][..], &[0x0a, 0].repeat(100)].concat();
    let mut open = Vec::new();
    for credentials in [&workload, &agent.credentials] {
        for path in [CREATE_ENTRIES, NEW_SVIDS] {
            open.extend(half_open(&client, Some(credentials), path, 32, 10, &huge).await);
            open.extend(half_open(&client, Some(credentials), path, 32, 10, &large).await);
        }
    }
    assert_eq!(open.len(), 8, "each was let in");
    settled(&mut server).await;
    let grown = growth(&mut server, before);
    println!("unfinished bodies of a workload and an agent: {} kB", grown / 1024);
    let limits = Role::Agent.limits();
    let bound = (4 * connection_bytes(&limits) + limits.body_bytes / (limits.portion + 1)) as u64;
    assert!(grown < bound + NOISE, "the server grew by {grown} bytes");
    // Its deadline is the server's, not the client's.
    let mut oldest = open.swap_remove(0);
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(limits.body_deadline + DEADLINE, oldest.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "a connection with nothing but unfinished bodies lives on");
}

fn entry(parent: &SpiffeId, number: usize) -> types::Entry {
    let id = TrustDomain::new(TRUST_DOMAIN).expect("legal").id_with_path(&format!("/w/{number}")).expect("legal");
    types::Entry {
        spiffe_id: Some(id.to_pb()),
        parent_id: Some(parent.to_pb()),
        selectors: vec![types::Selector { r#type: "unix".into(), value: format!("uid:{number}") }],
        ..Default::default()
    }
}

#[tokio::test]
async fn an_agent_that_does_not_read_its_answers_holds_a_few_of_them() {
    let mut server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let agent = client.agent().await;
    let entries = (0..3000).map(|number| entry(&agent.id(), number)).collect();
    let request = BatchCreateEntryRequest { entries, output_mask: None };
    EntryClient::new(client.admin().await).batch_create_entry(request).await.expect("created");
    let slow = client.clone().reading_slowly(65_535);
    let before = forget_peak(&mut server);
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..10 {
        let Ok(channel) = slow.with(&agent.credentials).await else { continue };
        for _ in 0..100 {
            let first = SyncAuthorizedEntriesRequest {
                output_mask: Some(ironroot_server::facts::mask::agent_entry_mask()),
                ..Default::default()
            };
            let asked = tokio_stream::StreamExt::chain(tokio_stream::once(first), tokio_stream::pending());
            match tokio::time::timeout(
                Duration::from_secs(5),
                EntryClient::new(channel.clone()).sync_authorized_entries(asked),
            )
            .await
            {
                Ok(Ok(answers)) => open.push(answers),
                Ok(Err(status)) => {
                    assert!(
                        [Code::ResourceExhausted, Code::Unavailable, Code::Unknown].contains(&status.code()),
                        "{status}"
                    );
                    refused += 1;
                }
                Err(_) => break,
            }
        }
    }
    settled(&mut server).await;
    let grown = growth(&mut server, before);
    println!("an agent with {} unread syncs, {refused} refused: {} kB", open.len(), grown / 1024);
    assert!((1..=Role::Agent.limits().large_answers_per_source).contains(&open.len()), "{} at once", open.len());
    assert!(grown < 16 * MIB, "the server grew by {grown} bytes");
}

#[test]
fn the_handbook_says_what_each_role_can_take() {
    let handbook = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/handbook.md");
    let handbook = std::fs::read_to_string(handbook).expect("the handbook");
    for role in Role::ALL {
        let limits = role.limits();
        let row = format!(
            "| {} | {} | {} | {} kB | {} kB | {} MiB |",
            limits.connections,
            limits.connections_per_source,
            limits.streams,
            limits.header_bytes / 1024,
            connection_bytes(&limits) / 1024,
            limits.body_bytes / 1024 / 1024,
        );
        assert!(handbook.contains(&row), "the handbook has no row for {role:?} with {row}");
    }
    let budget = format!("{} MiB", ironroot_server::endpoints::BODY_BUDGET_BYTES / 1024 / 1024);
    assert!(handbook.contains(&budget), "the budget of bodies, {budget}, does not stand in the handbook");
    assert!(policy::POLICY.len() > 20);
}
