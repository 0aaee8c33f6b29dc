//! HTTP on 127.0.0.1: which address is which page, and what every answer says to the browser.

mod answers;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::House;

/// Connections at once: each page that is open holds one for what changes. One more ends the oldest on which nobody has shown a session:
/// every local user may connect.
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

/// Whether somebody with a session has asked on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Seat(Arc<AtomicBool>);

impl Seat {
    /// Somebody has.
    pub(super) fn is_a_visitors(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn may_be_taken(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

/// Answers whoever connects, until dropped.
pub(super) async fn serve(listener: &TcpListener, house: &Arc<House>) -> io::Result<()> {
    let router = router(house.clone());
    let mut open: VecDeque<(AbortHandle, Seat)> = VecDeque::with_capacity(MAX_CONNECTIONS);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        open.retain(|(connection, _)| !connection.is_finished());
        if open.len() >= MAX_CONNECTIONS {
            let oldest = open.iter().position(|(_, seat)| seat.may_be_taken());
            // Visitors alone: whoever comes now comes again.
            let Some((silent, _)) = oldest.and_then(|oldest| open.remove(oldest)) else { continue };
            silent.abort();
        }
        let seat = Seat::default();
        let service = TowerToHyperService::new(router.clone().layer(Extension(seat.clone())));
        let connection = tokio::spawn(async move {
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(MAX_HEAD_BYTES);
            // How one browser's connection ended is nobody's concern.
            let _ended = server.serve_connection(TokioIo::new(stream), service).await;
        });
        open.push_back((connection.abort_handle(), seat));
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
    use std::time::Instant;

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

    async fn ask(stream: &mut TcpStream, path: &str, cookie: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: ironroot_console={cookie}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = vec![0; 64 * 1024];
        let read = tokio::time::timeout(DEADLINE, stream.read(&mut answer)).await.expect("in time").expect("open");
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    #[tokio::test]
    async fn connections_without_a_session_give_way_and_lock_no_operator_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let (address, house) = (listener.local_addr().expect("bound"), house());
        let cookie = house.door.open(&house.door.new_link(Instant::now()), Instant::now()).expect("a fresh link");
        let (home, served) = (house.door.home(), house.clone());
        let serving = tokio::spawn(async move { serve(&listener, &served).await });
        let mut operator = TcpStream::connect(address).await.expect("connected");
        let nowhere = format!("{home}no-such-page");
        assert!(ask(&mut operator, &nowhere, &cookie).await.starts_with("HTTP/1.1 404"));
        let mut idle = Vec::new();
        for _ in 0..3 * MAX_CONNECTIONS {
            idle.push(TcpStream::connect(address).await.expect("the kernel takes it"));
        }
        let mut late = TcpStream::connect(address).await.expect("the kernel takes it");
        let answer = ask(&mut late, &home, "none").await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        let closed = tokio::time::timeout(DEADLINE, idle.swap_remove(0).read(&mut [0; 1])).await;
        assert!(matches!(closed.expect("the oldest gave way"), Ok(0) | Err(_)));
        assert!(ask(&mut operator, &nowhere, &cookie).await.starts_with("HTTP/1.1 404"), "who has a session stays");
        serving.abort();
    }
}
