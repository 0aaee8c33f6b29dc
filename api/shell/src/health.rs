//! The HTTP health listener of both daemons: is the process alive, and can it do its work? 200 or 500 with a JSON object keyed
//! by what answers (`{"server":{}}`), as SPIRE has it.

use std::io;
use std::sync::Arc;

use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::net::TcpListener;

use crate::local_http::{self, answer};
use crate::settings::HealthChecks;

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
        let listener = local_http::bind("health", &checks.host, checks.port).await?;
        Ok(Self { listener, checks: Arc::new(checks) })
    }

    /// Answers until dropped. `subsystem` is the key of the JSON object: `server` or `agent`.
    pub async fn serve(self, subsystem: &'static str, ready: Ready) {
        let health = Health { checks: self.checks, subsystem, ready };
        local_http::serve("health", self.listener, move |method, path| {
            std::future::ready(health.answer(&method, &path))
        })
        .await;
    }
}

impl Health {
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
        answer(status, "application/json", format!("{details}\n"))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

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
        let listener = HealthListener::bind(checks).await.expect("a port");
        let address = listener.listener.local_addr().expect("bound");
        let ready: Ready = Arc::new(move || reason.map(str::to_owned));
        tokio::spawn(listener.serve(subsystem, ready));
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
