//! The HTTP health listener: is the process alive, and can it serve? Source: SPIRE's `health_checks` block.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ironroot_api::settings::HealthChecks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use super::RunError;
use crate::identities::Identities;

/// Longest request head read, bytes.
const MAX_HEAD_BYTES: usize = 4096;
/// Longest conversation.
const DEADLINE: Duration = Duration::from_secs(5);
/// Conversations at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 16;

#[derive(Clone)]
struct Health {
    live_path: Arc<str>,
    ready_path: Arc<str>,
    identities: watch::Receiver<Arc<Identities>>,
}

/// Binds at once; the returned future answers for ever.
pub(super) async fn listen(
    config: &HealthChecks,
    identities: watch::Receiver<Arc<Identities>>,
) -> Result<impl Future<Output = ()> + Send + use<>, RunError> {
    let address = || format!("{}:{}", config.host, config.port);
    let listener = TcpListener::bind((config.host.as_str(), config.port)).await;
    let listener = listener.map_err(|error| RunError::Health { address: address(), error })?;
    let bound = listener.local_addr().map_err(|error| RunError::Health { address: address(), error })?;
    info!(address = %bound, "health listener started");
    let (live_path, ready_path) = (config.live_path.as_str().into(), config.ready_path.as_str().into());
    Ok(serve(listener, Health { live_path, ready_path, identities }))
}

async fn serve(listener: TcpListener, health: Health) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = free.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let health = health.clone();
                tokio::spawn(async move {
                    // A client that hangs or breaks off is its own problem.
                    let _ = timeout(DEADLINE, health.answer(stream)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors: try again when some are free.
                warn!(%error, "health listener cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

impl Health {
    async fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let head = read_head(&mut stream).await?;
        let (status, body) = self.judge(&head);
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    }

    fn judge(&self, head: &[u8]) -> (&'static str, &'static str) {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let mut words = std::str::from_utf8(line).unwrap_or_default().split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        match (method, path) {
            ("GET" | "HEAD", path) if path == &*self.live_path => ("200 OK", "{}"),
            ("GET" | "HEAD", path) if path == &*self.ready_path => self.readiness(),
            ("GET" | "HEAD", _) => ("404 Not Found", "{}"),
            _ => ("405 Method Not Allowed", "{}"),
        }
    }

    /// Ready once there is something to serve from: a server's answer, or the cache.
    fn readiness(&self) -> (&'static str, &'static str) {
        match self.identities.borrow().bundle() {
            Some(_) => ("200 OK", "{}"),
            None => (
                "500 Internal Server Error",
                r#"{"agent":{"error":"neither the server nor the cache has given identities yet"}}"#,
            ),
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < MAX_HEAD_BYTES {
        let mut buffer = [0; 512];
        match stream.read(&mut buffer).await? {
            0 => break,
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironroot_api::TrustDomain;

    fn health() -> Health {
        let starting = Identities::starting(TrustDomain::new("td").expect("legal"));
        let (_, identities) = watch::channel(Arc::new(starting));
        Health { live_path: "/live".into(), ready_path: "/ready".into(), identities }
    }

    #[test]
    fn a_starting_agent_is_live_but_not_ready() {
        let status = |head: &str| health().judge(head.as_bytes()).0;
        assert_eq!(status("GET /live HTTP/1.1\r\nHost: x\r\n\r\n"), "200 OK");
        assert_eq!(status("GET /live?verbose HTTP/1.1\r\n\r\n"), "200 OK");
        assert_eq!(status("GET /ready HTTP/1.1\r\n\r\n"), "500 Internal Server Error");
        assert_eq!(status("GET /other HTTP/1.1\r\n\r\n"), "404 Not Found");
        assert_eq!(status("POST /live HTTP/1.1\r\n\r\n"), "405 Method Not Allowed");
        assert_eq!(status("\u{0}\u{1}"), "405 Method Not Allowed");
        assert_eq!(status(""), "405 Method Not Allowed");
    }
}
