//! HTTP on 127.0.0.1: which address is which page, and what every answer says to the browser.

mod answers;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::House;

/// Connections at once: each page that is open holds one for what changes.
const MAX_CONNECTIONS: usize = 64;
/// A browser that has not sent its request by then is gone.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Largest request head read, bytes: the least that hyper allows.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Largest form taken, bytes: a secret and a name.
const MAX_FORM_BYTES: usize = 4 * 1024;
/// Pause when `accept` fails for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What every answer says: nothing is kept, nothing of others is loaded, nobody frames it. Source: Content Security Policy Level 3;
/// Fetch, "X-Content-Type-Options". Under the referrer policy "no-referrer" browsers would send forms of our own without an origin.
const SAID: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Answers whoever connects, until dropped.
pub(super) async fn serve(listener: &TcpListener, house: &Arc<House>) -> io::Result<()> {
    serve_in(listener, house, Arc::new(Semaphore::new(MAX_CONNECTIONS))).await
}

/// The same; each connection has one of `places`.
async fn serve_in(listener: &TcpListener, house: &Arc<House>, places: Arc<Semaphore>) -> io::Result<()> {
    let router = router(house.clone());
    loop {
        let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        drop(tokio::spawn(async move {
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(MAX_HEAD_BYTES);
            // How one browser's connection ended is nobody's concern.
            let _ended = server.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        }));
    }
}

fn router(house: Arc<House>) -> Router {
    let home = house.door.home();
    let at = |path: &str| format!("{home}{path}");
    Router::new()
        .route("/open/{key}", get(answers::open))
        .route(&at(""), get(answers::fleet))
        .route(&at("devices/{ek_sha256}"), get(answers::device))
        .route(&at("devices/{ek_sha256}/approve"), post(answers::approve))
        .route(&at("devices/{ek_sha256}/ban"), post(answers::ban))
        .route(&at("entries"), get(answers::entries))
        .route(&at("authorities"), get(answers::authorities))
        .route(&at("live"), get(answers::live))
        .route("/style.css", get(answers::style))
        .route("/live.js", get(answers::script))
        .fallback(answers::nothing_there)
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(middleware::from_fn(say))
        .with_state(house)
}

async fn say(request: axum::extract::Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    for (name, value) in SAID {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::console::asked::Server;
    use crate::console::door::Door;
    use crate::console::live::Watcher;

    /// Longest a test waits.
    const DEADLINE: Duration = Duration::from_secs(20);

    /// A house whose server nobody has started.
    fn house() -> Arc<House> {
        let server = Server::new(Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
        Arc::new(House { door: Door::new(false), watcher: Watcher::new(server.clone()), server, audit_file: None })
    }

    #[tokio::test]
    async fn more_connections_than_there_are_places_wait_until_one_is_free() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let (address, places) = (listener.local_addr().expect("bound"), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
        let (house, taken) = (house(), places.clone());
        let serving = tokio::spawn(async move { serve_in(&listener, &house, taken).await });
        let mut held = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            held.push(TcpStream::connect(address).await.expect("connected"));
        }
        let all_taken = async {
            while places.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, all_taken).await.expect("each has a place");
        let mut late = TcpStream::connect(address).await.expect("the kernel takes it");
        late.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.expect("sent");
        drop(held.pop());
        let mut answer = String::new();
        tokio::time::timeout(DEADLINE, late.read_to_string(&mut answer)).await.expect("answered").expect("read");
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        serving.abort();
    }
}
