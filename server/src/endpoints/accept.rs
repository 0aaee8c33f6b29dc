//! Accepting connections: TLS handshakes beside the accept loop, bounded in number and time, then a place among the
//! connections of the caller's role. That a peer's certificate is still good is checked at each call, not here.
//!
//! ```text
//!  TCP ─► its client, if a balancer has passed it on ─► a place among handshakes ─► TLS ─► role ─► a place among the role's connections ─► Gathered, Watched ─► HTTP/2 of that role
//! ```
//! Nobody is refused because others came first: see [`places`].

mod activity;
mod known;
pub(super) mod places;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::Stream;
use ironroot_api::gathered::Gathered;
use ironroot_api::tls::{ClientTrust, TlsPeer, server_config};
use ironroot_api::unix_socket::{PeerCredentials, SocketListener, Tolerant, incoming};
use ironroot_api::watched::{Patience, Watched};
use ironroot_shell::logging::{LineRate, LogLimit};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpUserTimeout;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

pub use activity::{CallMark, Watching};

use super::ServerState;
use super::address::AddressBlock;
use super::agreed::AgreedLog;
use super::caller::Source;
use super::proxied::Introductions;
use super::roles::{Role, RoleLimits};
use activity::{Activity, Seat};
use known::KnownAddresses;
use places::{Place, Places};

/// A client that has not finished its handshake by then is dropped, and so is one that has not begun to speak HTTP/2.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Handshakes under way at once: each costs about 300 µs of CPU and 30 kB.
const MAX_HANDSHAKES: usize = 1024;
/// Half of them: an address that takes its share leaves room for all others.
const MAX_HANDSHAKES_PER_ADDRESS: usize = MAX_HANDSHAKES / 2;
/// As many again for addresses of agents that were here before, in number and for each.
const MAX_KNOWN_HANDSHAKES: (usize, usize) = (512, 256);
/// Finished connections waiting for the HTTP/2 server; it takes them at once, so this only smooths bursts.
const ACCEPTED_QUEUE: usize = 64;
/// Pause when `accept` fails for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// An agent whose machine acknowledges nothing of what it was sent for so long, milliseconds, is gone: its streams are held for another.
const UNACKNOWLEDGED_MS: u32 = 120_000;
/// Lines about one address's connections, and about all.
const LINES_PER_ADDRESS: LineRate = LineRate { burst: 5, interval: Duration::from_secs(10) };
const LINES_IN_ALL: LineRate = LineRate { burst: 100, interval: Duration::from_millis(200) };

/// A TLS connection as the HTTP/2 server takes it.
pub type RemoteConnection = Watched<Gathered<TlsStream<TcpStream>>, Seat<TlsPeer, Source>>;
/// A connection of the admin socket as the HTTP/2 server takes it.
pub type LocalConnection = Watched<Tolerant<UnixStream>, Seat<PeerCredentials, Source>>;

struct Acceptor {
    tls: TlsAcceptor,
    clients: Arc<ClientTrust>,
    server: Arc<ServerState>,
    strangers: Places<AddressBlock>,
    known: Places<AddressBlock>,
    known_addresses: KnownAddresses,
    introductions: Introductions,
    log: LogLimit<AddressBlock>,
    agreed: AgreedLog<AddressBlock>,
    doors: Vec<Door>,
}

/// Where connections of a role go.
struct Door {
    role: Role,
    connections: Places<Source>,
    accepted: mpsc::Sender<RemoteConnection>,
}

/// Accepts on `listener` until the receivers are dropped; the connections of each role.
pub fn accept(
    listener: TcpListener,
    clients: Arc<ClientTrust>,
    server: Arc<ServerState>,
    introductions: Introductions,
) -> [(Role, mpsc::Receiver<RemoteConnection>); Role::REMOTE.len()] {
    let mut doors = Vec::new();
    let receivers = Role::REMOTE.map(|role| {
        let (accepted, receiver) = mpsc::channel(ACCEPTED_QUEUE);
        doors.push(Door { role, connections: places_of(role), accepted });
        (role, receiver)
    });
    let acceptor = Acceptor {
        tls: TlsAcceptor::from(server_config(clients.clone(), server.svid.clone(), server.key_exchanges)),
        clients,
        server,
        strangers: Places::new(MAX_HANDSHAKES, MAX_HANDSHAKES_PER_ADDRESS),
        known: Places::new(MAX_KNOWN_HANDSHAKES.0, MAX_KNOWN_HANDSHAKES.1),
        known_addresses: KnownAddresses::default(),
        introductions,
        log: LogLimit::new(LINES_PER_ADDRESS, LINES_IN_ALL),
        agreed: AgreedLog::new(),
        doors,
    };
    tokio::spawn(Arc::new(acceptor).run(listener));
    receivers
}

fn places_of(role: Role) -> Places<Source> {
    let limits = role.limits();
    Places::new(limits.connections, limits.connections_per_source)
}

fn patience_of(limits: &RoleLimits) -> Patience {
    Patience {
        preface: HANDSHAKE_DEADLINE,
        idle: limits.idle,
        age: limits.connection_age.map(|age| age + RoleLimits::GRACE),
    }
}

impl Acceptor {
    async fn run(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (tcp, address) = tokio::select! {
                () = self.is_over() => return,
                incoming = listener.accept() => match incoming {
                    Ok(incoming) => incoming,
                    Err(error) => {
                        // Out of file descriptors, or a client gone before accept: neither may end the server.
                        tracing::warn!(%error, "connection not accepted");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            if self.introductions.are_due(address) {
                drop(tokio::spawn(self.clone().introduce(tcp, address)));
            } else if let Some(place) = self.begin(address) {
                drop(tokio::spawn(self.clone().serve(tcp, address, place)));
            }
        }
    }

    /// One connection that a balancer has passed on.
    async fn introduce(self: Arc<Self>, mut tcp: TcpStream, balancer: SocketAddr) {
        match self.introductions.of(&mut tcp, balancer).await {
            Ok(client) => {
                if let Some(place) = self.begin(client) {
                    self.serve(tcp, client, place).await;
                }
            }
            Err(error) => self.say(balancer, "connection dropped", Some(&error)),
        }
    }

    async fn is_over(&self) {
        for door in &self.doors {
            door.accepted.closed().await;
        }
    }

    /// A place among the handshakes; a line if there is none.
    fn begin(&self, address: SocketAddr) -> Option<Place<AddressBlock>> {
        let block = AddressBlock::from(address.ip());
        let places = if self.known_addresses.contains(block) { &self.known } else { &self.strangers };
        let place = places.take(block, Arc::default(), Instant::now());
        if place.is_none() {
            self.say(address, "connection dropped: too many handshakes of this address are under way", None);
        }
        place
    }

    /// One connection, until the HTTP/2 server has it or it is dropped.
    async fn serve(self: Arc<Self>, tcp: TcpStream, address: SocketAddr, mut place: Place<AddressBlock>) {
        let shaken = tokio::select! {
            //= FLT-S13 server faults: "each handshake and request has a deadline"
            shaken = tokio::time::timeout(HANDSHAKE_DEADLINE, self.shake(tcp, address)) => shaken,
            () = place.lost() => return self.say(address, "TLS handshake broken off: others need the place", None),
        };
        drop(place);
        match shaken {
            Ok(Ok((stream, peer))) => self.hand_on(stream, peer).await,
            Ok(Err(error)) => self.say(address, "TLS handshake refused", Some(&error)),
            Err(_) => self.say(address, "TLS handshake not finished in time", None),
        }
    }

    async fn shake(&self, tcp: TcpStream, address: SocketAddr) -> io::Result<(TlsStream<TcpStream>, TlsPeer)> {
        tcp.set_nodelay(true)?;
        let dialled = tcp.local_addr()?;
        let tls = self.tls.accept(tcp).await?;
        self.agreed.say(address.ip().into(), address, tls.get_ref().1, "TLS handshake finished");
        let svid = match tls.get_ref().1.peer_certificates() {
            Some(chain) => Some(self.clients.svid(chain, self.server.now_unix()).map_err(io::Error::other)?),
            None => None,
        };
        Ok((tls, TlsPeer { address, dialled, svid }))
    }

    /// Through the door of its role, if there is a place behind it.
    async fn hand_on(&self, stream: TlsStream<TcpStream>, peer: TlsPeer) {
        let (role, address) = (self.server.role_of(&peer), peer.address);
        if role == Role::Agent {
            self.known_addresses.seen(address.ip().into());
            // Without it the connection ends all the same, some quarter of an hour after it broke.
            let _ = setsockopt(stream.get_ref().0, TcpUserTimeout, &UNACKNOWLEDGED_MS);
        }
        let Some(door) = self.doors.iter().find(|door| door.role == role) else { return };
        let activity = Arc::<Activity>::default();
        match door.connections.take(Source::of_peer(&peer), activity.clone(), Instant::now()) {
            Some(place) => {
                let seat = Seat::new(peer, activity, place);
                let connection = Watched::new(Gathered::new(stream), seat, patience_of(&role.limits()));
                drop(door.accepted.send(connection).await);
            }
            None => self.say(address, "connection dropped: its caller has too many that are at work", None),
        }
    }

    /// A line about a connection, unless there were enough of its address lately.
    fn say(&self, address: SocketAddr, what: &'static str, error: Option<&(dyn Error + 'static)>) {
        if let Some(pass) = self.log.admit(address.ip().into(), Instant::now()) {
            tracing::info!(%address, error, suppressed = pass.suppressed, "{what}");
        }
    }
}

/// The connections of a role as a stream.
pub fn as_stream(
    receiver: mpsc::Receiver<RemoteConnection>,
) -> impl Stream<Item = Result<RemoteConnection, Infallible>> {
    ReceiverStream::new(receiver).map(Ok)
}

/// Accepts on the admin socket: its mode says who may connect, each user has only so many places.
pub fn accept_local(listener: SocketListener) -> impl Stream<Item = Result<LocalConnection, Infallible>> {
    let (role, path) = (Role::LocalAdministrator, listener.path().to_owned());
    let (places, log) = (places_of(role), LogLimit::new(LINES_PER_ADDRESS, LINES_IN_ALL));
    let patience = patience_of(&role.limits());
    incoming(listener, move |stream| {
        let peer = PeerCredentials::of(&stream).ok()?;
        let activity = Arc::<Activity>::default();
        let Some(place) = places.take(Source::Uid(peer.uid), activity.clone(), Instant::now()) else {
            if let Some(pass) = log.admit(peer.uid, Instant::now()) {
                let (path, suppressed) = (path.display(), pass.suppressed);
                tracing::warn!(%path, uid = peer.uid, suppressed, "connection dropped: this user has too many");
            }
            return None;
        };
        Some(Watched::new(Tolerant::new(stream), Seat::new(peer, activity, place), patience))
    })
}
