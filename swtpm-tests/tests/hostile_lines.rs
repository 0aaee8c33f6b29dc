//! What strangers leave in the logs of both daemons and on operators' terminals: few lines, and none of their own making.

use ironroot_api::pb::agent::PostStatusRequest;
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::svid::NewJwtsvidRequest;
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::raw_http2::{PREFACE, ping, ping_answer};
use ironroot_lab::server_client::ServerClient;
use ironroot_lab::workload_client;
use nix::unistd::geteuid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::Code;

/// Frames of a flood that HTTP/2's library warns of, each.
const FRAMES: usize = 10_000;
/// Most lines that it may leave: more than the daemons let a library say at once.
const MOST_LINES: usize = 50;
/// Fetches of one workload, and most lines about them.
const FETCHES: usize = 300;
const MOST_SERVED: usize = 100;

/// Sends [`FRAMES`] answers to pings that nobody sent, and waits until the other side has read them all.
async fn flood(mut connection: impl AsyncRead + AsyncWrite + Unpin) {
    connection.write_all(PREFACE).await.expect("sent");
    connection.write_all(&ping_answer(*b"unasked!").repeat(FRAMES)).await.expect("sent");
    connection.write_all(&ping(*b"read all")).await.expect("sent");
    let (mut received, answer) = (Vec::new(), ping_answer(*b"read all"));
    let read = async {
        while !received.windows(answer.len()).any(|window| window == answer) {
            assert!(connection.read_buf(&mut received).await.expect("open") > 0, "closed after {received:?}");
        }
    };
    timeout(DEADLINE, read).await.expect("the last ping is answered");
}

fn lines(log: &str) -> usize {
    log.lines().count()
}

//= FLT-S21
#[tokio::test]
async fn a_stranger_that_has_the_servers_http2_library_warn_of_each_frame_leaves_few_lines_at_every_level() {
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    for level in ["debug", "info"] {
        server.cli(&["logger", "set", "-level", level]);
        let before = lines(&server.log());
        flood(client.shake(None).await.expect("a handshake without a certificate")).await;
        let served = BundleClient::new(client.anonymous().await).get_bundle(GetBundleRequest::default()).await;
        served.expect("others are served");
        let added = lines(&server.log()) - before;
        assert!(added <= MOST_LINES, "{added} lines at {level}");
    }
}

fn node_id() -> String {
    format!("spiffe://{TRUST_DOMAIN}/node")
}

/// A device whose agent serves this process.
fn device(server: &Server) -> Device {
    let token = server.cli(&["token", "generate", "-ttl", "600", "-spiffeID", &node_id()]);
    let token = token.lines().find_map(|line| line.strip_prefix("Token: ")).expect("a token").trim().to_owned();
    let options = AgentOptions { join_token: Some(token), key_manager: "disk", ..AgentOptions::default() };
    let mut device = Device::without_tpm();
    device.provision(server, &options);
    server.create_entry(&node_id(), "/own", &[&format!("unix:uid:{}", geteuid())], &[]);
    device.start();
    device.expect_log("SVID rotated");
    device
}

//= FLT-S21
#[tokio::test]
async fn a_local_user_fills_the_agents_log_neither_with_frames_nor_with_requests_that_are_served() {
    let server = Server::start(&ServerOptions::default());
    let device = device(&server);
    let before = lines(&device.log());
    flood(UnixStream::connect(device.socket()).await.expect("the workload socket")).await;
    let added = lines(&device.log()) - before;
    assert!(added <= MOST_LINES, "{added} lines");

    let mut workload = workload_client::client(&device.socket()).await.expect("connected");
    for _ in 0..FETCHES {
        let mut stream = workload_client::watch(&mut workload).await.expect("others are served");
        assert_eq!(stream.message().await.expect("served").map(|answer| answer.svids.len()), Some(1));
    }
    let log = device.log();
    let said = log.lines().filter(|line| line.contains("served a workload")).count();
    assert!((1..=MOST_SERVED).contains(&said), "{said} lines for {FETCHES} requests");
}

/// A whole line, and a field, that others could take for the server's.
const FORGED_LINE: &str = "x\n       9 1999-01-01T00:00:00Z BanAgent spiffe://example.org/fake (local)\u{202e}";
const FORGED_FIELD: &str = r#"y caller="local" caller_uid=0 caller_pid=1 z=""#;

//= FLT-S21
#[tokio::test]
async fn what_an_agent_says_of_itself_and_its_tokens_forges_no_line_and_no_field() {
    let server = Server::start(&ServerOptions::default());
    let agent = ServerClient::new(&server).await.agent().await;
    let status = PostStatusRequest { agent_version: "1.2.3\n\nSPIFFE ID         : x".into(), ..Default::default() };
    let refused = agent.agents().post_status(status).await.expect_err("it is refused");
    assert_eq!(refused.code(), Code::InvalidArgument);

    let entry_id = server.create_entry(agent.id().as_str(), "/web", &["unix:uid:1"], &[]);
    for audience in [FORGED_LINE, FORGED_FIELD] {
        let request = NewJwtsvidRequest { entry_id: entry_id.clone(), audience: vec![audience.into()] };
        agent.svids().new_jwtsvid(request).await.expect("signed");
    }
    let log = server.log();
    assert!(
        !log.contains(r#" caller="local" caller_uid=0 caller_pid=1 "#) && log.contains(r#"y caller=\"local\""#),
        "{log}"
    );
    assert!(!log.contains('\u{202e}'), "{log}");
    let config = server.config_path();
    let show = || server.cli(&["log", "show", "-config", config.to_str().expect("UTF-8")]);
    expect_within(DEADLINE, "both tokens are chained", show, || show().contains("caller_pid=1"));
    let shown = show();
    assert!(shown.contains("       9 1999-") && shown.contains(r"(local)\u{202e}"), "{shown}");
    assert!(!shown.lines().any(|line| line.trim_start().starts_with("9 1999-")), "{shown}");
}
