//! TCP to a host of which several addresses are known, some of which may swallow whatever is sent to them.
//!
//! ```text
//!  address 1 ──────────────────────────────► nobody answers
//!       └ 250 ms ► address 2 ──────► connected
//! ```
//! Source: RFC 8305 §5 (one attempt after the other, and not only when the one before has failed). The order is the resolver's (RFC 6724).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};

/// How long an address is waited for alone before the next one is tried beside it. Source: RFC 8305 §5, Connection Attempt Delay.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Most addresses of a host that are tried.
const MAX_ADDRESSES: usize = 8;

/// The first address of the host that takes a connection. Has no deadline of its own.
pub async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    first_of(lookup_host((host, port)).await?).await
}

/// The same of addresses that are known.
pub async fn first_of(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter().take(MAX_ADDRESSES).peekable();
    let mut under_way = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match waiting.next() {
            Some(address) => under_way.push(TcpStream::connect(address)),
            None if under_way.is_empty() => return Err(last),
            None => {}
        }
        let are_more = waiting.peek().is_some();
        tokio::select! {
            Some(connected) = under_way.next() => match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if are_more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// An address that answers nobody: a listener whose queue is full.
    async fn silent() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
        let socket = TcpSocket::new_v4().expect("socket");
        socket.bind("127.0.0.1:0".parse().expect("legal")).expect("bound");
        let listener = socket.listen(1).expect("listens");
        let address = listener.local_addr().expect("bound");
        let mut held = Vec::new();
        while let Ok(stream) = tokio::time::timeout(ATTEMPT_DELAY, TcpStream::connect(address)).await {
            held.push(stream.expect("its queue has room"));
        }
        (listener, held, address)
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        (listener, address)
    }

    #[tokio::test]
    async fn an_address_that_swallows_what_is_sent_to_it_keeps_nobody_from_the_next_one() {
        let (_full, _held, silent) = silent().await;
        let (_listener, good) = listener().await;
        let connected = first_of([silent, good]).await.expect("one answers");
        assert_eq!(connected.peer_addr().expect("connected"), good);
    }

    #[tokio::test]
    async fn one_that_refuses_gives_way_at_once_and_the_last_error_is_told() {
        let (gone, refuses) = listener().await;
        drop(gone);
        let (_listener, good) = listener().await;
        assert_eq!(first_of([refuses, good]).await.expect("one answers").peer_addr().expect("connected"), good);
        let error = first_of([refuses, refuses]).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(first_of([]).await.expect_err("nothing to try").kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn no_more_addresses_are_tried_than_are_bounded() {
        let (gone, refuses) = listener().await;
        drop(gone);
        let (_listener, good) = listener().await;
        let addresses = [refuses; MAX_ADDRESSES].into_iter().chain([good]);
        assert_eq!(first_of(addresses).await.expect_err("not reached").kind(), io::ErrorKind::ConnectionRefused);
    }
}
