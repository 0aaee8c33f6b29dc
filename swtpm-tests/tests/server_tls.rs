//! The TCP port before any RPC: versions, resumption, silence, garbage.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::certificate::Certificate;
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_lab::deployment::{Server, ServerOptions, TRUST_DOMAIN};
use ironroot_lab::server_client::{ServerClient, SharedServer};
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What the server gives a client for its handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How much later a busy machine may notice.
const SLACK: Duration = Duration::from_secs(20);
/// Service is not held up if an answer comes well before any deadline of the server's.
const PROMPT: Duration = Duration::from_secs(5);

static SERVER: SharedServer = SharedServer::new();

async fn lab() -> (Arc<Server>, ServerClient) {
    let server = SERVER.get(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    (server, client)
}

async fn tcp(server: &Server) -> TcpStream {
    TcpStream::connect(("127.0.0.1", server.port())).await.expect("the port is open")
}

async fn shake(server: &Server, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("spire-server").expect("a constant legal name");
    TlsConnector::from(config).connect(name, tcp(server).await).await
}

/// A stranger asks for the bundle on a new connection.
async fn served(client: &ServerClient) {
    let answer = async { BundleClient::new(client.anonymous().await).get_bundle(GetBundleRequest::default()).await };
    timeout(PROMPT, answer).await.expect("the server is held up").expect("a bundle");
}

/// What the peer sends until it closes; an abort counts as a close.
async fn read_to_end(tcp: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let _ = tcp.read_to_end(&mut received).await;
    received
}

/// A ClientHello of TLS 1.2: no supported_versions. Source: RFC 5246 §7.4.1.2.
fn tls12_client_hello() -> Vec<u8> {
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 23, // supported_groups: secp256r1
        0, 11, 0, 2, 1, 0, // ec_point_formats: uncompressed
        0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms: ecdsa_secp256r1_sha256
    ];
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    hello.extend((extensions.len() as u16).to_be_bytes());
    hello.extend(extensions);
    let mut record = vec![22, 3, 1];
    record.extend((hello.len() as u16 + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend((hello.len() as u16).to_be_bytes());
    record.extend(hello);
    record
}

#[tokio::test]
async fn tls_1_2_is_refused_with_the_alert_for_it() {
    let (server, client) = lab().await;
    let mut tcp = tcp(&server).await;
    tcp.write_all(&tls12_client_hello()).await.expect("sent");
    let answer = timeout(PROMPT, read_to_end(&mut tcp)).await.expect("refused at once");
    // Record type alert, two bytes, fatal; protocol_version. Source: RFC 8446 §6.
    assert_eq!((answer.first(), &answer[3..]), (Some(&21), &[0, 2, 2, 70][..]), "{answer:x?}");
    served(&client).await;
}

#[tokio::test]
async fn anyone_may_connect_without_a_certificate_and_sees_the_servers_svid() {
    let (server, client) = lab().await;
    let tls = shake(&server, client.tls(None)).await.expect("no certificate is needed");
    let (_, session) = tls.get_ref();
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    let [leaf, ca] = session.peer_certificates().expect("certificates") else { panic!("the leaf and its CA") };
    assert!(Certificate::parse(ca).expect("a certificate").is_ca());
    let leaf = Certificate::parse(leaf).expect("a certificate");
    assert_eq!(
        leaf.leaf_spiffe_id().expect("an X509-SVID").to_string(),
        format!("spiffe://{TRUST_DOMAIN}/spire/server")
    );
}

//= FLT-S14 REG-02
#[tokio::test]
async fn no_session_is_resumed_because_no_ticket_is_given() {
    let (server, client) = lab().await;
    let agent = client.agent().await;
    let mut config = Arc::unwrap_or_clone(client.tls(Some(&agent.credentials)));
    config.resumption = Resumption::in_memory_sessions(8);
    config.enable_early_data = true;
    let config = Arc::new(config);
    for round in 0..3 {
        let mut tls = shake(&server, config.clone()).await.expect("a handshake");
        // An HTTP/2 preface and SETTINGS: what the server sends back comes after any ticket.
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
        let mut settings = [0; 9];
        timeout(PROMPT, tls.read_exact(&mut settings)).await.expect("answered").expect("SETTINGS");
        let session = tls.get_ref().1;
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full), "round {round}");
        assert_eq!((session.tls13_tickets_received(), session.is_early_data_accepted()), (0, false));
    }
}

#[tokio::test]
async fn another_protocol_than_h2_is_refused() {
    let (server, client) = lab().await;
    let mut config = Arc::unwrap_or_clone(client.tls(None));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let refused = shake(&server, Arc::new(config)).await.expect_err("no protocol in common");
    assert!(
        refused.to_string().contains("NoApplicationProtocol") || refused.kind() == io::ErrorKind::UnexpectedEof,
        "{refused}"
    );
    served(&client).await;
}

//= FLT-S13 FLT-N2
#[tokio::test]
async fn silent_and_slow_clients_are_dropped_in_ten_seconds_and_hold_nobody_up() {
    let (server, client) = lab().await;
    let begun = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tcp(&server).await);
    }
    // One byte a second keeps a connection busy, not alive: the deadline is for the whole handshake.
    let mut slow = tcp(&server).await;
    let hello = tls12_client_hello();
    let drip = tokio::spawn(async move {
        let begun = Instant::now();
        for byte in hello.chunks(1) {
            if slow.write_all(byte).await.is_err() {
                break;
            }
            if timeout(Duration::from_secs(1), slow.readable()).await.is_ok() {
                break;
            }
        }
        begun.elapsed()
    });
    let mut half = tcp(&server).await;
    half.write_all(&tls12_client_hello()[..20]).await.expect("sent");
    silent.push(half);
    for _ in 0..10 {
        served(&client).await;
    }
    client.agent().await;
    assert!(begun.elapsed() < HANDSHAKE_DEADLINE, "served while all of them were still open");
    for mut connection in silent {
        let rest = (HANDSHAKE_DEADLINE + SLACK).saturating_sub(begun.elapsed());
        let said = timeout(rest, read_to_end(&mut connection)).await.expect("dropped after its deadline");
        assert_eq!(said, [0; 0], "nothing was said to it");
        assert!(begun.elapsed() >= HANDSHAKE_DEADLINE - Duration::from_secs(1), "and not before");
    }
    let dripped = drip.await.expect("no panic");
    assert!(
        (HANDSHAKE_DEADLINE - Duration::from_secs(1)..HANDSHAKE_DEADLINE + SLACK).contains(&dripped),
        "{dripped:?}"
    );
    served(&client).await;
}

#[tokio::test]
async fn garbage_on_the_port_ends_only_its_own_connection() {
    let (server, client) = lab().await;
    let mut random = vec![0; 4096];
    aws_lc_rs::rand::fill(&mut random).expect("random bytes");
    let huge_record = [&[22, 3, 1, 0xff, 0xff][..], &[0; 0x4100]].concat();
    let lengths = [&[22, 3, 1, 0, 8, 1, 0xff, 0xff, 0xff, 3, 3, 0, 0][..], &[0; 64]].concat();
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
        vec![0; 4096],
        vec![0xff; 4096],
        random,
        huge_record,
        lengths,
    ] {
        let mut tcp = tcp(&server).await;
        let _ = tcp.write_all(&garbage).await;
        let _ = tcp.shutdown().await;
        timeout(PROMPT, read_to_end(&mut tcp)).await.expect("closed at once");
    }
    // And behind a good handshake.
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 1000],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut tls = shake(&server, client.tls(None)).await.expect("a handshake");
        let _ = tls.write_all(garbage).await;
        let mut received = Vec::new();
        let _ = timeout(PROMPT, tls.read_to_end(&mut received)).await.expect("closed at once");
    }
    served(&client).await;
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}
