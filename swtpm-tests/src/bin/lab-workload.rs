//! A workload of the lab: takes its identity from the Workload API and talks mutual TLS to another one.
//!
//!   lab-workload serve SOCKET               prints the port, then who called
//!   lab-workload dial SOCKET PORT SPIFFE-ID  calls, requires that ID of the other side
//!   lab-workload watch SOCKET               holds a stream open, prints a line for each message
//!   lab-workload crowd SOCKET CONNECTIONS STREAMS SECONDS
//!                                            has so many FetchX509SVID streams on each of so many connections, and those that end again a
//!                                            second later; prints how many it held at most
//!   lab-workload besiege SOCKET METHOD CONNECTIONS STREAMS HEADERS ANNOUNCED SENT SECONDS
//!                                            asks on all streams again and again, with so many bytes of headers and messages that never end, or, where as much is sent as was
//!                                            announced, with whole ones

use std::error::Error;
use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body::Frame;
use http_body_util::StreamBody;

use ironroot_api::SpiffeId;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::workload::X509svid;
use ironroot_api::pb::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ironroot_api::tls::{
    ClientTrust, KeyExchanges, ServerTrust, SvidResolver, TrustAnchors, client_config, provider, server_config,
};
use ironroot_api::unix_socket;
use ironroot_lab::workload_client;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_stream::StreamExt;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

/// What a besieger sends at once, bytes.
const PIECE_BYTES: usize = 16 * 1024;
/// Before a crowd's connection that has lost its streams comes back.
const CROWD_PAUSE: Duration = Duration::from_secs(1);

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", socket] => serve(Path::new(socket)).await,
        ["dial", socket, port, id] => dial(Path::new(socket), port.parse()?, SpiffeId::parse(id)?).await,
        ["besiege", socket, method, connections, streams, headers, announced, sent, seconds] => {
            let (headers, announced, sent) = (headers.parse()?, announced.parse()?, sent.parse()?);
            let siege = Siege { method: method.into(), headers, announced, sent };
            siege.lay(Path::new(socket), connections.parse()?, streams.parse()?, seconds.parse()?).await
        }
        ["crowd", socket, connections, streams, seconds] => {
            crowd(Path::new(socket), connections.parse()?, streams.parse()?, seconds.parse()?).await
        }
        ["watch", socket] => watch(Path::new(socket)).await,
        _ => {
            Err("usage: lab-workload serve SOCKET | dial SOCKET PORT SPIFFE-ID | watch SOCKET | crowd SOCKET ... | besiege SOCKET ..."
                .into())
        }
    }
}

struct Identity {
    id: SpiffeId,
    anchors: Arc<TrustAnchors>,
    svid: Arc<SvidResolver>,
}

async fn identity(socket: &Path) -> Outcome<Identity> {
    let response = workload_client::fetch(socket).await?;
    let svid: &X509svid = response.svids.first().ok_or("no identity")?;
    let ders = |bytes: &[u8]| -> Outcome<Vec<CertificateDer<'static>>> {
        Ok(Certificate::parse_concatenated(bytes)?.into_iter().map(|c| c.der().clone()).collect())
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.x509_svid_key.to_vec()));
    let id = SpiffeId::parse(&svid.spiffe_id)?;
    Ok(Identity {
        anchors: TrustAnchors::new(id.trust_domain(), &ders(&svid.bundle)?)?,
        svid: SvidResolver::new(CertifiedKey::from_der(ders(&svid.x509_svid)?, key, &provider())?),
        id,
    })
}

async fn serve(socket: &Path) -> Outcome<()> {
    let own = identity(socket).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    let acceptor = TlsAcceptor::from(server_config(ClientTrust::new(own.anchors), own.svid, KeyExchanges::default()));
    let mut tls = acceptor.accept(listener.accept().await?.0).await?;
    let caller =
        tls.get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or("the caller showed no certificate")?;
    let caller = Certificate::parse(caller)?.leaf_spiffe_id()?;
    tls.write_all(format!("{} greets {caller}", own.id).as_bytes()).await?;
    tls.shutdown().await?;
    println!("{caller}");
    Ok(())
}

async fn dial(socket: &Path, port: u16, expected: SpiffeId) -> Outcome<()> {
    let own = identity(socket).await?;
    let connector = TlsConnector::from(client_config(
        ServerTrust::Bundle { anchors: own.anchors, expected },
        own.svid,
        KeyExchanges::default(),
    ));
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut tls = connector.connect(ServerName::try_from("workload.invalid")?, tcp).await?;
    let mut greeting = String::new();
    tls.read_to_string(&mut greeting).await?;
    println!("{greeting}");
    Ok(())
}

async fn watch(socket: &Path) -> Outcome<()> {
    let mut client = workload_client::client(socket).await?;
    let mut stream = workload_client::watch(&mut client).await?;
    while let Some(message) = stream.message().await? {
        println!("{}", message.svids.len());
    }
    Ok(())
}

/// How many streams of a crowd have had a message and go on, and how many were that at most.
#[derive(Default)]
struct Held {
    now: AtomicUsize,
    most: AtomicUsize,
}

async fn crowd(socket: &Path, connections: usize, streams: usize, seconds: u64) -> Outcome<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let (end, held) = (Instant::now() + Duration::from_secs(seconds), Arc::<Held>::default());
    let mut crowd = JoinSet::new();
    for _ in 0..connections {
        let (socket, held) = (socket.to_owned(), held.clone());
        crowd.spawn(async move {
            while Instant::now() < end {
                if let Ok(client) = workload_client::client(&socket).await {
                    let streams = (0..streams).map(|_| hold(client.clone(), held.clone(), end));
                    streams.collect::<JoinSet<_>>().join_all().await;
                }
                tokio::time::sleep(CROWD_PAUSE).await;
            }
        });
    }
    println!("crowding");
    crowd.join_all().await;
    println!("{} held", held.most.load(Ordering::Relaxed));
    Ok(())
}

/// One stream until it ends, or `end`.
async fn hold(mut client: SpiffeWorkloadApiClient<Channel>, held: Arc<Held>, end: Instant) {
    let Ok(Ok(mut stream)) = tokio::time::timeout_at(end.into(), workload_client::watch(&mut client)).await else {
        return;
    };
    let mut is_held = false;
    while let Ok(Ok(Some(_))) = tokio::time::timeout_at(end.into(), stream.message()).await {
        if !std::mem::replace(&mut is_held, true) {
            let now = held.now.fetch_add(1, Ordering::Relaxed) + 1;
            held.most.fetch_max(now, Ordering::Relaxed);
        }
    }
    if is_held {
        held.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Requests whose one message is announced with so many bytes, of which so many are sent.
/// A message of so many bytes: its first field is one long text.
fn one_text(bytes: usize) -> Vec<u8> {
    let text = bytes.saturating_sub(1 + prost::length_delimiter_len(bytes));
    let mut message = vec![0x0a];
    prost::encode_length_delimiter(text, &mut message).expect("a growing buffer");
    message.resize(bytes, b'a');
    message
}

#[derive(Clone)]
struct Siege {
    /// Of the Workload API.
    method: Arc<str>,
    headers: usize,
    announced: u32,
    sent: usize,
}

/// What an agent closes that has as many connections of this user as it takes is opened again, until `end`.
async fn dial_until(socket: &Path, end: Instant) -> Option<Channel> {
    loop {
        match unix_socket::connect(socket).await {
            Ok(channel) => return Some(channel),
            Err(_) if Instant::now() >= end => return None,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

impl Siege {
    async fn lay(self, socket: &Path, connections: usize, streams: usize, seconds: u64) -> Outcome<()> {
        let end = Instant::now() + Duration::from_secs(seconds);
        let (mut besiegers, mut dialled) = (JoinSet::new(), 0);
        for _ in 0..connections {
            let Some(channel) = dial_until(socket, end).await else { break };
            dialled += 1;
            (0..streams).for_each(|_| drop(besiegers.spawn(self.clone().besiege(channel.clone(), end))));
        }
        println!("besieging");
        let answers: u32 = besiegers.join_all().await.into_iter().sum();
        println!("{answers} answers");
        if dialled == 0 { Err("no connection was taken".into()) } else { Ok(()) }
    }

    /// Asks on one stream, and again when there is an answer, until `end`.
    async fn besiege(self, mut channel: Channel, end: Instant) -> u32 {
        let mut answers = 0;
        while Instant::now() < end {
            let asked = async {
                poll_fn(|cx| channel.poll_ready(cx)).await?;
                channel.call(self.request()).await
            };
            match tokio::time::timeout_at(end.into(), asked).await {
                // A connection that was closed is opened again.
                Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Ok(Ok(_)) => answers += 1,
                Err(_) => {}
            }
        }
        answers
    }

    fn request(&self) -> http::Request<Body> {
        let prefix = [&[0][..], &self.announced.to_be_bytes()].concat();
        let message = one_text(self.announced as usize);
        let pieces = message[..self.sent].chunks(PIECE_BYTES).map(<[u8]>::to_vec);
        let frames = std::iter::once(prefix).chain(pieces).map(|bytes| Ok::<_, Status>(Frame::data(bytes.into())));
        let frames = tokio_stream::iter(frames.collect::<Vec<_>>());
        let body = match self.sent < self.announced as usize {
            true => Body::new(StreamBody::new(frames.chain(tokio_stream::pending()))),
            false => Body::new(StreamBody::new(frames)),
        };
        // Of the Workload API, unless it names its service.
        let service = if self.method.contains('/') { "" } else { "SpiffeWorkloadAPI/" };
        let request = http::Request::post(format!("http://localhost/{service}{}", self.method));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let request = request.header("x-siege", "a".repeat(self.headers));
        request.header("workload.spiffe.io", "true").body(body).expect("a legal request")
    }
}
