//! The HTTP health listener of both daemons: is the process alive, and can it do its work? 200 or 500 with a JSON object keyed
//! by what answers (`{"server":{}}`), as SPIRE has it.
//!
//! Anybody on the machine may connect, also to say nothing: connections are many, short, and the oldest gives way.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use crate::listen;
use crate::settings::HealthChecks;

/// Connections at once. One more ends the oldest: an honest probe is answered in milliseconds, so that is a silent one.
const MAX_CONNECTIONS: usize = 64;
/// A probe that has not sent its request by then is dropped.
const HEADER_DEADLINE: Duration = Duration::from_secs(2);
/// Longest a whole connection may take: the request, and a client that is slow to take the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Largest request head read, bytes: the least that hyper allows.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Pause when `accept` fails for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a daemon is not ready, for a person; none when it is. Called on each probe: it must not block.
pub type Ready = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What answers: `server` or `agent`, and whether it is ready.
#[derive(Clone)]
struct Health {
    checks: Arc<HealthChecks>,
    subsystem: &'static str,
    ready: Ready,
}

/// The listener, bound: connections wait until it is served.
#[derive(Debug)]
pub struct HealthListener {
    listener: TcpListener,
    checks: Arc<HealthChecks>,
}

impl HealthListener {
    /// Binds the listener that `checks` describe.
    pub async fn bind(checks: HealthChecks) -> io::Result<Self> {
        let listener = listen::tcp((checks.host.as_str(), checks.port)).await?;
        info!(address = %listener.local_addr()?, "health listener started");
        Ok(Self { listener, checks: Arc::new(checks) })
    }

    /// Answers until dropped. `subsystem` is the key of the JSON object: `server` or `agent`.
    pub async fn serve(self, subsystem: &'static str, ready: Ready) {
        accept(self.listener, Health { checks: self.checks, subsystem, ready }).await;
    }
}

async fn accept(listener: TcpListener, health: Health) {
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(MAX_CONNECTIONS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "health listener cannot accept");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let health = health.clone();
        // A probe that hangs up early is nobody's concern.
        let connection = async move { drop(tokio::time::timeout(DEADLINE, health.converse(stream)).await) };
        open.push_back(tokio::spawn(connection).abort_handle());
    }
}

impl Health {
    async fn converse(&self, stream: TcpStream) -> hyper::Result<()> {
        let service = service_fn(|request: http::Request<Incoming>| {
            let answer = self.answer(request.method(), request.uri().path());
            async { Ok::<_, Infallible>(answer) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE);
        server.keep_alive(false).max_buf_size(MAX_HEAD_BYTES);
        server.serve_connection(TokioIo::new(stream), service).await
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, details) = if ![Method::GET, Method::HEAD].contains(method) {
            (StatusCode::METHOD_NOT_ALLOWED, serde_json::json!({}))
        } else if path == self.checks.live_path {
            (StatusCode::OK, serde_json::json!({ self.subsystem: {} }))
        } else if path == self.checks.ready_path {
            match (self.ready)() {
                None => (StatusCode::OK, serde_json::json!({ self.subsystem: {} })),
                Some(error) => {
                    (StatusCode::INTERNAL_SERVER_ERROR, serde_json::json!({ self.subsystem: { "error": error } }))
                }
            }
        } else {
            (StatusCode::NOT_FOUND, serde_json::json!({}))
        };
        let mut response = Response::new(Full::new(Bytes::from(format!("{details}\n"))));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        response
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Well before any deadline of the listener.
    const PROMPT: Duration = Duration::from_secs(1);
    /// What starved both listeners once.
    const IDLE: usize = 200;

    async fn listening(subsystem: &'static str, reason: Option<&'static str>) -> SocketAddr {
        let checks = HealthChecks {
            host: "127.0.0.1".to_owned(),
            port: 0,
            live_path: "/live".to_owned(),
            ready_path: "/ready".to_owned(),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let ready: Ready = Arc::new(move || reason.map(str::to_owned));
        tokio::spawn(accept(listener, Health { checks: Arc::new(checks), subsystem, ready }));
        address
    }

    async fn ask(address: SocketAddr, request_line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("the port is open");
        stream.write_all(format!("{request_line} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn bodies_and_codes_are_spires() {
        let ready = listening("server", None).await;
        let answer = ask(ready, "GET /ready").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n{\"server\":{}}\n"), "{answer}");
        let starting = listening("agent", Some("no identities yet")).await;
        for (request, status, body) in [
            ("GET /live", "200 OK", "{\"agent\":{}}\n"),
            ("GET /live?verbose", "200 OK", "{\"agent\":{}}\n"),
            ("GET /ready", "500 Internal Server Error", "{\"agent\":{\"error\":\"no identities yet\"}}\n"),
            ("HEAD /live", "200 OK", ""),
            ("GET /other", "404 Not Found", "{}\n"),
            ("POST /live", "405 Method Not Allowed", "{}\n"),
        ] {
            let answer = ask(starting, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{request}: {answer}");
        }
    }

    #[tokio::test]
    async fn two_hundred_idle_connections_starve_no_probe() {
        let address = listening("server", None).await;
        let mut idle = Vec::new();
        for _ in 0..IDLE {
            idle.push(TcpStream::connect(address).await.expect("the port is open"));
        }
        for _ in 0..6 {
            let answer = tokio::time::timeout(PROMPT, ask(address, "GET /ready")).await;
            assert!(answer.expect("answered while others idle").starts_with("HTTP/1.1 200"));
        }
        let mut oldest = idle.swap_remove(0);
        let closed = tokio::time::timeout(PROMPT, oldest.read(&mut [0; 1])).await.expect("the oldest gave way");
        assert!(matches!(closed, Ok(0) | Err(_)));
    }
}
