//! Collectors that metrics are sent to by UDP: statsd, and Datadog's agent. Source of names and forms: hashicorp/go-metrics' sinks, which
//! SPIRE sends with; Datadog, "DogStatsD datagram format".
//!
//! ```text
//!  Page, every 10 s ─► Since: what was counted since the last one ─► Sender, one a collector ─► datagrams
//! ```
//! SPIRE sends a datagram for each call. Here a call counts in memory, and what is sent is how often and, as one time with its rate of
//! sampling, how long: a flood of calls makes no flood of datagrams, nothing waits in a queue, and a collector that is away costs nobody
//! anything but the numbers of that while.

mod lines;
mod sender;
mod since;

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};

use super::Page;
use crate::settings::{Section, is_host};
use sender::Sender;
use since::Since;

/// How often is sent: what statsd adds up, too, before it passes it on.
const EVERY: Duration = Duration::from_secs(10);

/// A collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    place: Place,
    form: Form,
}

/// What its lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The values of labels are parts of the name.
    Statsd,
    /// Labels are tags.
    DogStatsd,
}

/// Where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// Host name or address.
    host: String,
    port: u16,
}

/// No place of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("give HOST:PORT, such as localhost:8125")]
struct NoPlace;

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let (host, port) = text.rsplit_once(':').ok_or(NoPlace)?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_legal = match bare {
            Some(address) => address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()),
            None => !host.contains(':') && is_host(host),
        };
        let port = port.parse().ok().filter(|port| *port > 0 && is_legal).ok_or(NoPlace)?;
        Ok(Self { host: bare.unwrap_or(host).to_owned(), port })
    }
}

impl Collector {
    /// Reads SPIRE's `Statsd` and `DogStatsd`.
    pub(super) fn read_all(telemetry: &Section<'_>) -> Vec<Self> {
        let of = |key, form| {
            let read = move |section: Section<'_>| {
                let place = section.parsed("address", str::parse::<Place>);
                let place = section.required("address", place, "give HOST:PORT, such as localhost:8125");
                section.finish();
                Some(Self { place: place?, form })
            };
            telemetry.blocks(key).into_iter().filter_map(read)
        };
        of("Statsd", Form::Statsd).chain(of("DogStatsd", Form::DogStatsd)).collect()
    }
}

/// Sends to each collector what `write` shows, until dropped. `write` may take its time, on a thread where that holds up nobody.
pub async fn send(collectors: Vec<Collector>, write: impl Fn() -> Page + Send + Sync + 'static) {
    send_every(EVERY, collectors, write).await;
}

async fn send_every(period: Duration, collectors: Vec<Collector>, write: impl Fn() -> Page + Send + Sync + 'static) {
    let (write, mut since) = (Arc::new(write), Since::default());
    let mut senders: Vec<Sender> = collectors.into_iter().map(Sender::new).collect();
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let write = Arc::clone(&write);
        // A page that could not be written is told by its panic; the next one has its numbers.
        let Ok(page) = tokio::task::spawn_blocking(move || write()).await else { continue };
        let changes = since.changes(page);
        for sender in &mut senders {
            sender.send(&changes).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::net::UdpSocket;
    use tokio::time::timeout;

    use super::*;
    use crate::settings::Settings;
    use crate::telemetry::Kind;

    fn collectors(text: &str) -> Result<Vec<Collector>, String> {
        let settings = Settings::parse(Path::new("x.conf"), text).expect("HCL");
        let read = settings.check(|root| Some(Collector::read_all(root)));
        read.map(|checked| checked.value).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn collectors_are_read_and_every_wrong_address_is_told_with_its_line() {
        let read = collectors(
            "Statsd = [{ address = \"localhost:8125\" }, { address = \"[::1]:1\" }] DogStatsd { address = \"10.0.0.1:8125\" }",
        );
        let places: Vec<_> =
            read.expect("sound").into_iter().map(|it| (it.place.host, it.place.port, it.form)).collect();
        let wanted = [("localhost", 8125, Form::Statsd), ("::1", 1, Form::Statsd), ("10.0.0.1", 8125, Form::DogStatsd)];
        assert_eq!(places, wanted.map(|(host, port, form)| (host.to_owned(), port, form)));
        let told = collectors("Statsd = [{ address = \"::1:1\" },\n { }]\nDogStatsd = [{ address = \"unix:///x\" }]")
            .expect_err("three");
        let lines: Vec<_> = told.lines().collect();
        for (line, wanted) in lines.iter().zip([
            "x.conf:1: Statsd[0].address: \"::1:1\": give HOST:PORT",
            "x.conf:2: Statsd[1].address: missing: give HOST:PORT",
            "x.conf:3: DogStatsd[0].address: \"unix:///x\": give HOST:PORT",
        ]) {
            assert!(line.starts_with(wanted), "{told}");
        }
        assert_eq!(lines.len(), 3, "{told}");
    }

    async fn heard(socket: &UdpSocket) -> String {
        let mut datagram = [0; 2048];
        let length =
            timeout(Duration::from_secs(60), socket.recv(&mut datagram)).await.expect("in time").expect("heard");
        String::from_utf8(datagram[..length].to_vec()).expect("text")
    }

    #[tokio::test]
    async fn a_collector_hears_what_was_counted_since_and_one_that_is_away_costs_nothing() {
        let (statsd, dog) = (
            UdpSocket::bind("127.0.0.1:0").await.expect("bound"),
            UdpSocket::bind("127.0.0.1:0").await.expect("bound"),
        );
        let away = UdpSocket::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address");
        let at = |address: std::net::SocketAddr, form| Collector {
            place: address.to_string().parse().expect("a place"),
            form,
        };
        let all = vec![
            at(away, Form::Statsd),
            at(statsd.local_addr().expect("an address"), Form::Statsd),
            at(dog.local_addr().expect("an address"), Form::DogStatsd),
        ];
        let calls = AtomicU64::new(0);
        let page = move || {
            let mut page = Page::new("spire_server", "ironroot_server", &[("host", "h".to_owned())]);
            let calls = calls.fetch_add(2, Ordering::Relaxed) + 2;
            page.spire("rpc.x", Kind::Counter, "Calls").sample(&[("status", "OK")], calls as f64);
            page
        };
        let sending = tokio::spawn(send_every(Duration::from_millis(20), all, page));
        for _ in 0..3 {
            assert_eq!(heard(&statsd).await, "spire_server.rpc.x.OK.h:2.000000|c\n");
            assert_eq!(heard(&dog).await, "spire_server.rpc.x:2|c|#status:OK,host:h\n");
        }
        sending.abort();
    }
}
