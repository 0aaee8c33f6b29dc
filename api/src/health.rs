//! The HTTP health listener: `/live` and `/ready`, 200 or 500 with a JSON reason, as SPIRE has it.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;

use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::settings::HealthChecks;

/// Probes served at once; more wait.
const MAX_PROBES: usize = 16;
/// A probe that has not sent its request by then is dropped.
const HEADER_DEADLINE: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a daemon is not ready, for a person; none when it is.
pub type Ready = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Binds the listener that `checks` describe and returns the future that serves it until dropped.
pub async fn serve(checks: HealthChecks, ready: Ready) -> io::Result<impl Future<Output = ()>> {
    let listener = TcpListener::bind((checks.host.as_str(), checks.port)).await?;
    let checks = Arc::new(checks);
    Ok(async move {
        let slots = Arc::new(Semaphore::new(MAX_PROBES));
        loop {
            let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (checks, ready) = (checks.clone(), ready.clone());
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let answer = answer(&checks, &ready, &request);
                    async { Ok::<_, Infallible>(answer) }
                });
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE).keep_alive(false);
                // A probe that hangs up early is nobody's concern.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
                drop(slot);
            });
        }
    })
}

fn answer(checks: &HealthChecks, ready: &Ready, request: &http::Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let (status, body) = if request.method() != Method::GET {
        (StatusCode::METHOD_NOT_ALLOWED, serde_json::json!({}))
    } else if path == checks.live_path {
        (StatusCode::OK, serde_json::json!({}))
    } else if path == checks.ready_path {
        match ready() {
            None => (StatusCode::OK, serde_json::json!({})),
            Some(reason) => (StatusCode::INTERNAL_SERVER_ERROR, serde_json::json!({ "reason": reason })),
        }
    } else {
        (StatusCode::NOT_FOUND, serde_json::json!({}))
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
}
