//! Where Prometheus asks. A page is written when somebody asks for it, and shown to whoever asks within a second after.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use thiserror::Error;
use tokio::net::TcpListener;

use super::Prometheus;
use super::tls::{ListenerTls, ListenerTlsError};
use crate::local_http::{self, Answer, answer};

/// A page is shown for this time before another is written: whoever asks without a pause costs one page a second.
const FRESH: Duration = Duration::from_secs(1);
/// Source: Prometheus, "Exposition formats".
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes a page. It may take its time, on a thread where that holds up nobody.
type Writer = dyn Fn() -> String + Send + Sync;

/// Why there is no listener.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// The place is taken, or not ours.
    #[error("cannot open the listener for metrics; telemetry {{ Prometheus {{ host, port }} }} names another place")]
    Bind(#[from] io::Error),
    /// The files of its certificate.
    #[error("cannot use the files of telemetry {{ Prometheus {{ tls }} }}")]
    Tls(#[from] ListenerTlsError),
}

/// The listener, bound: connections wait until it is served.
#[derive(Debug)]
pub struct MetricsListener {
    tcp: TcpListener,
    tls: Option<Arc<ListenerTls>>,
}

impl MetricsListener {
    /// Binds the listener.
    pub async fn bind(at: &Prometheus) -> Result<Self, MetricsError> {
        let tls = match at.tls.clone() {
            Some(tls) => Some(ListenerTls::load(tls).await?),
            None => None,
        };
        let tcp = local_http::bind("metrics", &at.host, at.port).await?;
        Ok(Self { tcp, tls })
    }

    /// Answers until dropped, on every path, as SPIRE does.
    pub async fn serve(self, page: impl Fn() -> String + Send + Sync + 'static) {
        let shown = Arc::new(Shown { write: Box::new(page), last: Mutex::default() });
        let respond = move |method, _| respond(method, Arc::clone(&shown));
        match self.tls {
            None => local_http::serve("metrics", self.tcp, respond).await,
            Some(tls) => {
                let shake = move |tcp| Arc::clone(&tls).shake(tcp);
                local_http::serve_over("metrics", self.tcp, shake, respond).await;
            }
        }
    }
}

async fn respond(method: Method, shown: Arc<Shown>) -> Answer {
    if ![Method::GET, Method::HEAD].contains(&method) {
        return answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, String::new());
    }
    match tokio::task::spawn_blocking(move || shown.page(Instant::now())).await {
        Ok(page) => answer(StatusCode::OK, TEXT, page),
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, String::new()),
    }
}

struct Shown {
    write: Box<Writer>,
    last: Mutex<Option<(Instant, String)>>,
}

impl Shown {
    /// The last page if it is fresh, or another; written once however many wait for it.
    fn page(&self, now: Instant) -> String {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((written, page)) if now.saturating_duration_since(*written) < FRESH => page.clone(),
            _ => last.insert((now, (self.write)())).1.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn who_asks_without_a_pause_costs_one_page_a_second() {
        let written = Arc::new(AtomicU64::new(0));
        let writer = Arc::clone(&written);
        let write = move || writer.fetch_add(1, Ordering::Relaxed).to_string();
        let shown = Shown { write: Box::new(write), last: Mutex::default() };
        let start = Instant::now();
        let pages: Vec<_> = (0..2000).map(|millis| shown.page(start + Duration::from_millis(millis))).collect();
        assert_eq!((pages[0].as_str(), pages[999].as_str(), pages[1000].as_str()), ("0", "0", "1"));
        assert_eq!(written.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn scrapers_that_hang_keep_nobody_from_the_metrics() {
        let at = Prometheus { host: "127.0.0.1".to_owned(), port: 0, tls: None };
        let listener = MetricsListener::bind(&at).await.expect("a port");
        let address = listener.tcp.local_addr().expect("bound");
        tokio::spawn(listener.serve(|| "a_metric 1\n".to_owned()));
        // Whoever has to wait for others waits each time; a machine that is busy elsewhere does not keep everybody waiting.
        let mut tries = 0;
        while !answers_beside_others_that_hang(address).await {
            tries += 1;
            assert!(tries < 20, "answered only when nobody else was left");
        }
    }

    /// Whether there was an answer while the youngest of two hundred others was still waited for.
    async fn answers_beside_others_that_hang(address: SocketAddr) -> bool {
        let mut hanging = Vec::new();
        for _ in 0..200 {
            let mut silent = TcpStream::connect(address).await.expect("the port is open");
            silent.write_all(b"GET /metrics HTTP/1.1\r\n").await.expect("sent");
            hanging.push(silent);
        }
        let mut stream = TcpStream::connect(address).await.expect("the port is open");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(
            answer.contains("content-type: text/plain; version=0.0.4") && answer.ends_with("\r\n\r\na_metric 1\n"),
            "{answer}"
        );
        let youngest = hanging.last_mut().expect("there are some");
        tokio::time::timeout(Duration::from_millis(1), youngest.read_u8()).await.is_err()
    }
}
