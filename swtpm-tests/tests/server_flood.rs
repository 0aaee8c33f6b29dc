//! More connections than the usual descriptor limit, most of them silent: others are still served.

use std::net::SocketAddr;
use std::time::Duration;

use ironroot_lab::deployment::{Server, ServerOptions};
use ironroot_lab::server_client::ServerClient;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// What a shell or a service manager gives a process, or less.
const USUAL_DESCRIPTORS: u64 = 256;
/// More than a server lets one address hold in unfinished handshakes, and than it could hold at all with the usual limit.
const FLOOD: usize = 700;
/// Well before any of the server's own deadlines.
const PROMPT: Duration = Duration::from_secs(5);

/// A server started with the usual limit. The limit of this process is as before afterwards.
fn server_with_few_descriptors() -> Server {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("reads");
    setrlimit(Resource::RLIMIT_NOFILE, USUAL_DESCRIPTORS, hard).expect("lowers");
    let server = Server::start(&ServerOptions::default());
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(4096)), hard).expect("raises");
    server
}

async fn connect(from: [u8; 4], port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await
}

/// Whether a stranger at `from` gets through the handshake and an HTTP/2 SETTINGS frame.
async fn served(client: &ServerClient, from: [u8; 4], port: u16) -> std::io::Result<()> {
    let name = ServerName::try_from("spire-server").expect("a constant legal name");
    let connector = TlsConnector::from(client.tls(None));
    let mut tls = connector.connect(name, connect(from, port).await?).await?;
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    tls.read_exact(&mut [0; 9]).await.map(drop)
}

#[tokio::test]
async fn an_address_that_floods_the_port_with_silent_connections_shuts_out_only_itself() {
    let server = server_with_few_descriptors();
    let client = ServerClient::new(&server).await;
    let (attacker, stranger) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    served(&client, attacker, server.port()).await.expect("before the flood anyone is served");
    let mut silent = Vec::new();
    for _ in 0..FLOOD {
        silent.push(connect(attacker, server.port()).await.expect("the port is open"));
    }
    for _ in 0..20 {
        let answer = timeout(PROMPT, served(&client, stranger, server.port())).await;
        answer.expect("a stranger is held up").expect("a stranger is served");
    }
    let refused = timeout(PROMPT, served(&client, attacker, server.port())).await.expect("dropped at once");
    assert!(refused.is_err(), "the flooding address got another connection");
    let log = server.log();
    assert!(log.contains("too many handshakes under way"), "{log}");
    assert!(!log.contains("connection not accepted"), "out of descriptors: {log}");
    drop(silent);
    let end = std::time::Instant::now() + PROMPT;
    while served(&client, attacker, server.port()).await.is_err() {
        assert!(std::time::Instant::now() < end, "the address stays shut out though its connections are closed");
    }
}
