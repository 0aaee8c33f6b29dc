//! More connections than the usual descriptor limit, most of them silent: others are still served.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ironroot_lab::deployment::{Server, ServerOptions};
use ironroot_lab::raw_http2::PREFACE;
use ironroot_lab::server_client::ServerClient;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What a shell or a service manager gives a process, or less.
const USUAL_DESCRIPTORS: u64 = 256;
/// More than a server lets one address hold in unfinished handshakes, and than it could hold at all with the usual limit.
const FLOOD: usize = 700;
/// Well before any of the server's own deadlines.
const PROMPT: Duration = Duration::from_secs(5);
/// Addresses of a distributed flood, and what each keeps open: together more than all places for handshakes.
const ATTACKERS: u8 = 16;
const EACH: usize = 70;

/// A server started with the usual limit. The limit of this process is as before afterwards, or as high as it may be.
fn server_with_few_descriptors() -> Server {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("reads");
    setrlimit(Resource::RLIMIT_NOFILE, USUAL_DESCRIPTORS, hard).expect("lowers");
    let server = Server::start(&ServerOptions::default());
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(4096)), hard).expect("raises");
    server
}

fn address(third: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, third, last)
}

/// Whether a client gets through the handshake and an HTTP/2 SETTINGS frame.
async fn served(client: &ServerClient) -> std::io::Result<()> {
    let mut tls = client.shake(None).await?;
    tls.write_all(PREFACE).await?;
    tls.read_exact(&mut [0; 9]).await.map(drop)
}

//= FLT-S13
#[tokio::test]
async fn an_address_that_floods_the_port_with_silent_connections_shuts_out_nobody() {
    let server = server_with_few_descriptors();
    let attacker = ServerClient::new(&server).await;
    let stranger = attacker.clone().at(address(0, 2));
    served(&attacker).await.expect("before the flood anyone is served");
    let mut silent = Vec::new();
    for _ in 0..FLOOD {
        silent.push(attacker.tcp().await.expect("the port is open"));
    }
    for _ in 0..20 {
        let answer = timeout(PROMPT, served(&stranger)).await;
        answer.expect("a stranger is held up").expect("a stranger is served");
    }
    // Its own oldest connections make room for an address that floods, once they are not young any more.
    let end = Instant::now() + PROMPT;
    while timeout(PROMPT, served(&attacker)).await.expect("answered at once").is_err() {
        assert!(Instant::now() < end, "an address that others share is shut out by them");
    }
    let log = server.log();
    assert!(!log.contains("connection not accepted"), "out of descriptors: {log}");
    // Which of the two it is depends on how fast the flood came: young ones keep their places, old ones give them up.
    let told = ["too many handshakes of this address", "others need the place"];
    let lines = log.lines().filter(|line| told.iter().any(|words| line.contains(words))).count();
    assert!((1..20).contains(&lines), "{lines} lines about {FLOOD} connections:\n{log}");
}

/// Keeps a connection open on which nothing is ever said, for ever.
async fn stay_silent(client: ServerClient) {
    loop {
        if let Ok(mut tcp) = client.tcp().await {
            let _ = tcp.read(&mut [0; 1]).await;
        }
    }
}

//= FLT-S13
#[tokio::test]
async fn half_open_connections_from_sixteen_addresses_leave_a_seventeenth_all_its_handshakes() {
    let server = server_with_few_descriptors();
    let client = ServerClient::new(&server).await;
    let victim = client.clone().at(address(0, 99));
    let mut attack = JoinSet::new();
    for attacker in 1..=ATTACKERS {
        for _ in 0..EACH {
            attack.spawn(stay_silent(client.clone().at(address(1, attacker))));
        }
    }
    let end = Instant::now() + PROMPT;
    while !server.log().contains("TLS handshake broken off: others need the place") && Instant::now() < end {
        let _ = served(&victim).await;
    }
    let mut refused = 0;
    for _ in 0..80 {
        let answer = timeout(PROMPT, served(&victim)).await;
        refused += usize::from(!matches!(answer, Ok(Ok(()))));
    }
    assert!(refused <= 2, "{refused} of 80 handshakes failed\n{}", server.log());
    let lines = server.log().lines().filter(|line| line.contains("TLS handshake")).count();
    assert!(lines < 300, "{lines} lines about strangers' handshakes");
}
