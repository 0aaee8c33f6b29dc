//! HTTP listeners for whoever looks at a daemon from its own machine: probes and scrapers.
//!
//! Anybody there may connect, also to say nothing: connections are many, short, and the oldest gives way.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use crate::listen;
use crate::logging::in_moderation;

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

/// What is sent back.
pub type Answer = Response<Full<Bytes>>;

/// Binds the listener of that name.
pub(crate) async fn bind(name: &'static str, host: &str, port: u16) -> io::Result<TcpListener> {
    let listener = listen::tcp((host, port)).await?;
    info!(address = %listener.local_addr()?, "{name} listener started");
    Ok(listener)
}

/// Answers each request by its method and path until dropped.
pub async fn serve<F, Fut>(name: &'static str, listener: TcpListener, respond: F)
where
    F: Fn(Method, String) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send,
{
    serve_over(name, listener, |tcp| std::future::ready(Ok(tcp)), respond).await;
}

/// The same over what `shake` makes of each connection, which counts towards its deadline.
pub(crate) async fn serve_over<S, Shaken, Stream, F, Fut>(
    name: &'static str,
    listener: TcpListener,
    shake: S,
    respond: F,
) where
    S: Fn(TcpStream) -> Shaken,
    Shaken: Future<Output = io::Result<Stream>> + Send + 'static,
    Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Fn(Method, String) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send,
{
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(MAX_CONNECTIONS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "{name} listener cannot accept");
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
        let (shaken, respond) = (shake(stream), respond.clone());
        let conversation = async move {
            match shaken.await {
                Ok(stream) => converse(stream, respond).await.map_err(io::Error::other),
                Err(error) => Err(error),
            }
        };
        let connection = async move {
            // A probe that hangs up early is nobody's concern.
            if let Ok(Err(error)) = tokio::time::timeout(DEADLINE, conversation).await
                && let Some(pass) = in_moderation(name)
            {
                let (error, suppressed) = (&error as &dyn std::error::Error, pass.suppressed);
                debug!(error, suppressed, "{name} connection broken off");
            }
        };
        open.push_back(tokio::spawn(connection).abort_handle());
    }
}

async fn converse<F, Fut>(stream: impl AsyncRead + AsyncWrite + Send + Unpin, respond: F) -> hyper::Result<()>
where
    F: Fn(Method, String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send,
{
    let service = service_fn(|request: http::Request<Incoming>| {
        let answer = respond(request.method().clone(), request.uri().path().to_owned());
        async { Ok::<_, Infallible>(answer.await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE);
    server.keep_alive(false).max_buf_size(MAX_HEAD_BYTES);
    server.serve_connection(TokioIo::new(stream), service).await
}

/// An answer with that text.
pub fn answer(status: StatusCode, content_type: &'static str, text: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
