//! Small web listeners for strangers: one short answer to one request, and the connection is over.
//!
//! ```text
//!  TCP ─► a place ─► TLS ─► a request's head ─► answer ─► closed
//!         └ the oldest of whoever holds most gives way   └ all of it within a deadline
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ironroot_api::tls::ACME_TLS_ALPN;
use ironroot_api::unix_socket::{SocketListener, UnixSocketError};
use ironroot_shell::listen;
use ironroot_shell::logging::{LineRate, LogLimit};
use prost::bytes::Bytes;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::accept::places::Places;
use super::address::AddressBlock;
use super::agreed::AgreedLog;
use super::proxied::Introductions;
use crate::config::Balancers;

/// Connections at once, some 40 kB each while they shake hands.
const MAX_CONNECTIONS: usize = 256;
/// Of one address: behind a proxy or a NAT are many.
const MAX_CONNECTIONS_PER_ADDRESS: usize = 64;
/// A client that has not finished its handshake by then is dropped, and so is one that has not sent its request.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Everybody may ask over the unix socket.
const PUBLIC_SOCKET_MODE: u32 = 0o777;
/// Longest a whole connection may take, bytes that drip included.
const DEADLINE: Duration = Duration::from_secs(30);
/// Largest request head read, bytes: the least that hyper allows.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Pause when `accept` fails for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Lines about one address's connections, and about all.
const LINES_PER_ADDRESS: LineRate = LineRate { burst: 5, interval: Duration::from_secs(10) };
const LINES_IN_ALL: LineRate = LineRate { burst: 100, interval: Duration::from_millis(200) };

/// An answer, whole.
pub type Answer = Response<Full<Bytes>>;

/// What is answered to a request by its head. Called on the thread that serves: it must not block.
pub type Answers = Arc<dyn Fn(&Parts) -> Answer + Send + Sync>;

/// An answer that takes a while.
pub type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Who answers: all of it within the deadline of the connection.
pub trait Respond: Send + Sync {
    /// The answer to `request`, whose body is read no further than this reads it. `from`: none at a unix socket.
    fn respond(self: Arc<Self>, request: Request<Incoming>, from: Option<SocketAddr>) -> Answering;
}

/// Answers by heads alone.
struct ByHead(Answers);

impl Respond for ByHead {
    fn respond(self: Arc<Self>, request: Request<Incoming>, _: Option<SocketAddr>) -> Answering {
        Box::pin(std::future::ready((self.0)(&request.into_parts().0)))
    }
}

/// A bound listener: connections wait until it is served.
#[derive(Debug)]
pub struct WebListener {
    name: &'static str,
    socket: Socket,
    introductions: Introductions,
}

#[derive(Debug)]
enum Socket {
    /// Strangers, over TLS.
    Tcp(TcpListener),
    /// A proxy on this machine, which ends TLS.
    Unix(SocketListener),
}

/// Whom places and lines are counted for: an address, or whoever is at the unix socket.
type Stranger = Option<AddressBlock>;

impl WebListener {
    /// Binds `address`; `name` is what the log calls it. `balancers` may say whose a connection is.
    pub async fn bind(name: &'static str, address: SocketAddr, balancers: Balancers) -> io::Result<Self> {
        let tcp = listen::tcp(address).await?;
        tracing::info!(address = %tcp.local_addr()?, "{name} listener started");
        Ok(Self { name, socket: Socket::Tcp(tcp), introductions: Introductions::new(balancers) })
    }

    /// Binds a unix socket for a proxy of any local user: what it is given is public.
    pub fn bind_socket(name: &'static str, path: &Path) -> Result<Self, UnixSocketError> {
        let unix = SocketListener::bind(path, PUBLIC_SOCKET_MODE)?;
        tracing::info!(path = %path.display(), "{name} listener started");
        Ok(Self { name, socket: Socket::Unix(unix), introductions: Introductions::new(Balancers::default()) })
    }

    /// Where it listens; none at a unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(tcp) => tcp.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Answers by heads until dropped; `tls` is what a TCP listener shows.
    pub async fn serve(self, tls: Arc<ServerConfig>, answers: Answers) {
        self.serve_by(tls, Arc::new(ByHead(answers))).await;
    }

    /// Has `answers` answer until dropped; `tls` is what a TCP listener shows.
    pub async fn serve_by(self, tls: Arc<ServerConfig>, answers: Arc<dyn Respond>) {
        let door = Arc::new(Door {
            name: self.name,
            answers,
            places: Places::new(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS),
            log: LogLimit::new(LINES_PER_ADDRESS, LINES_IN_ALL),
            agreed: AgreedLog::new(),
        });
        let tls = TlsAcceptor::from(tls);
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(tcp) => tcp.accept().await.map(|(tcp, address)| {
                    let introductions = self.introductions.are_due(address).then(|| self.introductions.clone());
                    drop(tokio::spawn(door.clone().meet(tls.clone(), tcp, address, introductions)));
                }),
                Socket::Unix(unix) => unix.accept().await.map(|stream| {
                    drop(tokio::spawn(door.clone().admit(std::future::ready(Ok(Some(stream))), None)));
                }),
            };
            if let Err(error) = accepted {
                // Out of file descriptors, or a client gone before accept: neither may end the server.
                tracing::warn!(%error, "{}: connection not accepted", self.name);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Why a connection ended before its time.
type Ended = Box<dyn Error + Send + Sync>;

struct Door {
    name: &'static str,
    answers: Arc<dyn Respond>,
    places: Places<Stranger>,
    log: LogLimit<Stranger>,
    agreed: AgreedLog<Stranger>,
}

impl Door {
    /// `introductions`: if a balancer has passed the connection on.
    async fn meet(
        self: Arc<Self>,
        tls: TlsAcceptor,
        mut tcp: TcpStream,
        address: SocketAddr,
        introductions: Option<Introductions>,
    ) {
        let introduced = match introductions {
            Some(introductions) => introductions.of(&mut tcp, address).await,
            None => Ok(address),
        };
        match introduced {
            Ok(client) => self.clone().admit(self.shake(tls, tcp, client), Some(client)).await,
            Err(error) => self.say(Some(address.ip().into()), "connection dropped", Some(&error)),
        }
    }

    async fn shake(
        self: Arc<Self>,
        tls: TlsAcceptor,
        tcp: TcpStream,
        from: SocketAddr,
    ) -> Result<Option<TlsStream<TcpStream>>, Ended> {
        tcp.set_nodelay(true)?;
        let shaken = tokio::time::timeout(HANDSHAKE_DEADLINE, tls.accept(tcp)).await;
        let stream = shaken.map_err(|_| "TLS handshake not finished in time")??;
        self.agreed.say(Some(from.ip().into()), from, stream.get_ref().1, "TLS handshake of a web client finished");
        // A CA that looks whether a name is ours has seen it: with it nothing else is spoken. Source: RFC 8737 §3.
        let has_seen = stream.get_ref().1.alpn_protocol() == Some(ACME_TLS_ALPN);
        Ok((!has_seen).then_some(stream))
    }

    /// `stream`: none if all is said. `address`: none at a unix socket.
    async fn admit<S>(
        self: Arc<Self>,
        stream: impl Future<Output = Result<Option<S>, Ended>>,
        address: Option<SocketAddr>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let from = address.map(|address| address.ip().into());
        let Some(mut place) = self.places.take(from, Arc::default(), Instant::now()) else {
            return self.say(from, "connection dropped: this address has too many", None);
        };
        let converse = async {
            match stream.await? {
                Some(stream) => self.converse(stream, address).await,
                None => Ok(()),
            }
        };
        let outcome = tokio::select! {
            //= FLT-S13 server faults: "each handshake and request has a deadline"
            outcome = tokio::time::timeout(DEADLINE, converse) => outcome,
            () = place.lost() => return self.say(from, "connection broken off: others need the place", None),
        };
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.say(from, "connection ended early", Some(&*error)),
            Err(_) => self.say(from, "connection broken off: it took too long", None),
        }
    }

    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        address: Option<SocketAddr>,
    ) -> Result<(), Ended> {
        let service = service_fn(|request: Request<Incoming>| {
            let answer = self.answers.clone().respond(request, address);
            async { Ok::<_, Infallible>(answer.await) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
        server.keep_alive(false).max_buf_size(MAX_HEAD_BYTES);
        Ok(server.serve_connection(TokioIo::new(stream), service).await?)
    }

    /// A line about a connection, unless there were enough of its address lately.
    fn say(&self, from: Stranger, what: &'static str, error: Option<&(dyn Error + 'static)>) {
        if let Some(pass) = self.log.admit(from, Instant::now()) {
            let address = from.map_or_else(|| "unix socket".to_owned(), |address| address.to_string());
            tracing::info!(address, error, suppressed = pass.suppressed, "{}: {what}", self.name);
        }
    }
}

/// `body` with that status.
pub fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Why `request` is not one for `path`, as an answer. Source of the words: SPIRE and Go's library.
pub fn refusal(request: &Parts, path: &str) -> Option<Answer> {
    let text =
        |status, words: &'static str| answer(status, "text/plain; charset=utf-8", Bytes::from_static(words.as_bytes()));
    if request.method != Method::GET {
        return Some(text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n"));
    }
    (request.uri.path() != path).then(|| text(StatusCode::NOT_FOUND, "404 page not found\n"))
}
