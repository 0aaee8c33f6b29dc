//! Connections that a balancer has passed on: whose they are stands before the TLS handshake (PROXY protocol, versions 1 and 2), and is
//! believed of balancers that the configuration names.
//!
//! ```text
//!  TCP of a balancer ─► a place among those who read ─► header, if there is one ─► the client's address ─► as everybody's
//! ```
//! Limits, lines and the audit then count the client's address, not that of the balancer. Source: The PROXY protocol (HAProxy), 2020/03/05, §2.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::accept::places::Places;
use crate::config::Balancers;

/// Balancers send the header at once; a client behind one that passes connections on without it sends its first bytes soon.
const DEADLINE: Duration = Duration::from_secs(5);
/// Connections whose header is awaited.
const MAX_AWAITED: usize = 1024;
/// Longest header read, bytes: addresses, and what a cloud's balancer adds.
const MAX_HEADER_BYTES: usize = 4096;
/// Longest of version 1, its end of line included. Source: §2.1.
const MAX_TEXT_BYTES: usize = 107;
/// How version 2 begins, and how long its fixed part is. Source: §2.2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_BYTES: usize = 16;
/// How version 1 begins.
const WORD: &[u8] = b"PROXY ";

/// Why a connection's header is not one.
#[derive(Debug, Error)]
enum HeaderRefusal {
    #[error("it broke off")]
    Read(#[from] io::Error),
    #[error("it was not there in time")]
    Late,
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    #[error(transparent)]
    Form(#[from] proxy_header::Error),
    #[error("it neither begins as a PROXY header nor as a TLS handshake")]
    Other,
    #[error("too many connections wait for theirs")]
    TooMany,
}

/// Why a connection of a balancer is not served.
#[derive(Debug, Error)]
#[error("the balancer's PROXY header is not taken")]
pub struct NotIntroduced(#[source] HeaderRefusal);

/// Who reads headers, with a bound.
#[derive(Clone, Debug)]
pub struct Introductions {
    balancers: Balancers,
    places: Places<()>,
    deadline: Duration,
}

impl Introductions {
    /// Of connections that come from `balancers`.
    pub fn new(balancers: Balancers) -> Self {
        Self { balancers, places: Places::new(MAX_AWAITED, MAX_AWAITED), deadline: DEADLINE }
    }

    /// Whether whose a connection from there is has to be read first.
    pub fn are_due(&self, from: SocketAddr) -> bool {
        self.balancers.have(from.ip())
    }

    /// Whose the connection is. A header is read to its last byte and no further; where there is none the connection is the balancer's own,
    /// as where the header says so (it looks whether we live).
    pub async fn of(&self, tcp: &mut TcpStream, from: SocketAddr) -> Result<SocketAddr, NotIntroduced> {
        let read = async {
            let mut place = self.places.take((), Arc::default(), Instant::now()).ok_or(HeaderRefusal::TooMany)?;
            tokio::select! {
                read = tokio::time::timeout(self.deadline, header(tcp)) => read.map_err(|_| HeaderRefusal::Late)?,
                () = place.lost() => Err(HeaderRefusal::TooMany),
            }
        };
        read.await.map(|client| client.unwrap_or(from)).map_err(NotIntroduced)
    }
}

/// The client of a header; none if there is no header, or none in it.
async fn header(tcp: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderRefusal> {
    let mut first = [0];
    if tcp.peek(&mut first).await? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    if first[0] != SIGNATURE[0] && first[0] != WORD[0] {
        return Ok(None);
    }
    let mut bytes = vec![0; SIGNATURE.len()];
    tcp.read_exact(&mut bytes).await?;
    if bytes == SIGNATURE {
        read_binary(tcp, &mut bytes).await?;
    } else if bytes.starts_with(WORD) {
        read_text(tcp, &mut bytes).await?;
    } else {
        return Err(HeaderRefusal::Other);
    }
    client(&bytes)
}

async fn read_binary(tcp: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), HeaderRefusal> {
    bytes.resize(FIXED_BYTES, 0);
    tcp.read_exact(&mut bytes[SIGNATURE.len()..]).await?;
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([bytes[FIXED_BYTES - 2], bytes[FIXED_BYTES - 1]]));
    if length > MAX_HEADER_BYTES {
        return Err(HeaderRefusal::TooLong(MAX_HEADER_BYTES));
    }
    bytes.resize(length, 0);
    tcp.read_exact(&mut bytes[FIXED_BYTES..]).await?;
    Ok(())
}

/// What is behind the end of line is the client's.
async fn read_text(tcp: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), HeaderRefusal> {
    while !bytes.ends_with(b"\n") {
        if bytes.len() == MAX_TEXT_BYTES {
            return Err(HeaderRefusal::TooLong(MAX_TEXT_BYTES));
        }
        bytes.push(tcp.read_u8().await?);
    }
    Ok(())
}

fn client(header: &[u8]) -> Result<Option<SocketAddr>, HeaderRefusal> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (header, _) = ProxyHeader::parse(header, config)?;
    let proxied = header.proxied_address().filter(|proxied| proxied.protocol == Protocol::Stream);
    Ok(proxied.map(|proxied| proxied.source))
}

#[cfg(test)]
mod tests {
    use proxy_header::ProxiedAddress;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const CLIENT: &str = "203.0.113.7:4711";
    const HELLO: &[u8] = b"\x16\x03\x01the rest of a TLS handshake";

    fn introductions(networks: &[&str]) -> Introductions {
        let networks = networks.iter().map(|network| network.parse().expect("a network")).collect();
        Introductions::new(Balancers::new(networks))
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// Says `sent` and stays; whose the connection is then, and what is read of it afterwards.
    async fn introduced(sent: &[u8]) -> (Result<SocketAddr, NotIntroduced>, SocketAddr, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut balancer = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
        let (mut tcp, from) = listener.accept().await.expect("accepts");
        balancer.write_all(sent).await.expect("sends");
        balancer.shutdown().await.expect("says no more");
        let whose = introductions(&["127.0.0.0/8"]).of(&mut tcp, from).await;
        let mut rest = Vec::new();
        if whose.is_ok() {
            tcp.read_to_end(&mut rest).await.expect("reads");
        }
        (whose, from, rest)
    }

    fn binary(header: &ProxyHeader<'_>) -> Vec<u8> {
        let mut bytes = [0; 256];
        let length = header.encode_to_slice_v2(&mut bytes).expect("encodes");
        bytes[..length].to_vec()
    }

    fn of_client(source: &str, destination: &str) -> ProxyHeader<'static> {
        ProxyHeader::with_address(ProxiedAddress::stream(address(source), address(destination)))
    }

    #[tokio::test]
    async fn a_header_of_either_version_says_whose_the_connection_is_and_what_follows_is_left() {
        let text = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 8081\r\n".to_vec();
        let six = "[2001:db8::7]:4711";
        let headers = [
            (text, CLIENT),
            (binary(&of_client(CLIENT, "198.51.100.1:8081")), CLIENT),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 8081\r\n".to_vec(), six),
            (binary(&of_client(six, "[2001:db8::1]:8081")), six),
        ];
        for (header, wanted) in headers {
            let (whose, _, rest) = introduced(&[&header, HELLO].concat()).await;
            assert_eq!((whose.expect("taken"), &rest[..]), (address(wanted), HELLO), "{header:?}");
        }
    }

    #[tokio::test]
    async fn without_a_client_in_it_or_without_a_header_the_connection_is_the_balancers_own() {
        for header in [binary(&ProxyHeader::with_local()), b"PROXY UNKNOWN\r\n".to_vec(), Vec::new()] {
            let (whose, from, rest) = introduced(&[&header, HELLO].concat()).await;
            assert_eq!((whose.expect("taken"), &rest[..]), (from, HELLO), "{header:?}");
        }
    }

    #[tokio::test]
    async fn a_header_that_is_none_is_refused_by_name() {
        let mut long = binary(&of_client(CLIENT, "198.51.100.1:8081"));
        long[14..16].copy_from_slice(&(MAX_HEADER_BYTES as u16).to_be_bytes());
        let mut strange = binary(&ProxyHeader::with_local());
        strange[12] = 0x31;
        let text = |rest: &str| format!("PROXY {rest}").into_bytes();
        for (sent, words) in [
            (Vec::new(), "it broke off"),
            (text("TCP4 203.0.113.7 198.5"), "it broke off"),
            (long, "it is longer than 4096 bytes"),
            (text(&"x".repeat(200)), "it is longer than 107 bytes"),
            (strange, "invalid PROXY header"),
            (text("TCP4 evil 198.51.100.1 1 2\r\n"), "invalid PROXY header"),
            (b"POST / HTTP/1.1\r\n".to_vec(), "it neither begins as a PROXY header nor as a TLS handshake"),
        ] {
            let (whose, ..) = introduced(&sent).await;
            let NotIntroduced(why) = whose.expect_err("refused");
            assert_eq!(why.to_string(), words, "{sent:?}");
        }
    }

    #[tokio::test]
    async fn a_header_that_does_not_come_is_waited_for_no_longer_than_its_time_and_by_no_more_than_there_are_places() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let _balancer = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
        let (mut tcp, from) = listener.accept().await.expect("accepts");
        let introductions = Introductions { deadline: Duration::from_millis(1), ..introductions(&["127.0.0.1/32"]) };
        let NotIntroduced(why) = introductions.of(&mut tcp, from).await.expect_err("nothing came");
        assert!(matches!(why, HeaderRefusal::Late), "{why}");
        let take = || introductions.places.take((), Arc::default(), Instant::now());
        let taken: Vec<_> = (0..MAX_AWAITED).map(|_| take().expect("a place")).collect();
        let NotIntroduced(why) = introductions.of(&mut tcp, from).await.expect_err("none is left");
        assert!(matches!(why, HeaderRefusal::TooMany), "{why}");
        drop(taken);
    }

    #[test]
    fn headers_survive_damage() {
        let seed = binary(&of_client(CLIENT, "198.51.100.1:8081"));
        let text = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 8081\r\n";
        ironroot_fuzz::Target::new("PROXY header").seed(seed).seed(*text).survives(|bytes| drop(client(bytes)));
    }
}
