//! The way to one collector. What it does not take is lost: the next numbers are new ones.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;
use tracing::warn;

use super::Collector;
use super::since::Change;

/// Most bytes of a datagram: what passes every link whole. Source: go-metrics, statsd.go.
const MAX_DATAGRAM_BYTES: usize = 1400;
/// Longest wait for the name service, and for room to send.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often is said that it is away.
const TOLD_EVERY: Duration = Duration::from_secs(10 * 60);

pub(super) struct Sender {
    to: Collector,
    socket: Option<UdpSocket>,
    /// How often it failed: of several addresses the next is tried.
    failures: usize,
    told: Option<Instant>,
}

impl Sender {
    pub(super) fn new(to: Collector) -> Self {
        Self { to, socket: None, failures: 0, told: None }
    }

    /// Sends the lines, as many in a datagram as fit.
    pub(super) async fn send(&mut self, changes: &[Change]) {
        if let Err(error) = self.try_send(changes).await {
            self.socket = None;
            self.failures = self.failures.wrapping_add(1);
            self.tell(&error, Instant::now());
        }
    }

    async fn try_send(&mut self, changes: &[Change]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => timeout(PATIENCE, self.open()).await??,
        };
        let mut datagram = String::with_capacity(MAX_DATAGRAM_BYTES);
        for change in changes {
            let lines = self.to.form.lines(change);
            if !datagram.is_empty() && datagram.len() + lines.len() > MAX_DATAGRAM_BYTES {
                timeout(PATIENCE, socket.send(datagram.as_bytes())).await??;
                datagram.clear();
            }
            datagram.push_str(&lines);
        }
        if !datagram.is_empty() {
            timeout(PATIENCE, socket.send(datagram.as_bytes())).await??;
        }
        self.socket = Some(socket);
        Ok(())
    }

    async fn open(&self) -> io::Result<UdpSocket> {
        let place = &self.to.place;
        let addresses: Vec<SocketAddr> = lookup_host((place.host.as_str(), place.port)).await?.collect();
        let of = |length: usize| self.failures % length;
        let address = (!addresses.is_empty()).then(|| addresses[of(addresses.len())]);
        let address = address.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "its name has no address"))?;
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        Ok(socket)
    }

    fn tell(&mut self, error: &io::Error, now: Instant) {
        let is_told = self.told.is_some_and(|told| now.saturating_duration_since(told) < TOLD_EVERY);
        if !is_told {
            self.told = Some(now);
            let place = &self.to.place;
            warn!(host = place.host, port = place.port, %error, "metrics cannot be sent to this collector; what was counted meanwhile is lost to it");
        }
    }
}
