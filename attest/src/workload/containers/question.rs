//! One question over HTTP, to a daemon of this machine: bounded in bytes and time, without redirects, and nothing kept open.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Builder;
use tokio_rustls::TlsConnector;

/// Longest head of an answer read, bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Why a daemon's answer could not be had.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum QuestionError {
    #[error("cannot connect to {0}")]
    Connect(String, #[source] io::Error),
    #[error("{0:?} is no name that a certificate can be for")]
    Name(String, #[source] InvalidDnsNameError),
    /// It could not prove who it is, or speaks no TLS 1.3.
    #[error("{0} is not proven to be the kubelet")]
    Tls(String, #[source] io::Error),
    #[error("{0} does not speak HTTP")]
    Http(String, #[source] hyper::Error),
    #[error("{0} does not answer in time")]
    Late(String),
    #[error("{0} answers with the status {1}")]
    Status(String, u16),
    #[error("{place} answers with more than {max_bytes} bytes")]
    TooLong { place: String, max_bytes: usize },
    /// The answer breaks off, or is not as long as it said.
    #[error("the answer of {0} breaks off")]
    BrokenOff(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// Descriptors or threads have run out.
    #[error("nobody can be asked")]
    Runtime(#[source] io::Error),
}

impl QuestionError {
    /// Whether there was no answer: whoever is asked is away, is not itself yet, or answers that it cannot now.
    pub(super) fn is_unasked(&self) -> bool {
        match self {
            // Docker's word for a container that it does not know.
            Self::Status(_, status) => *status != StatusCode::NOT_FOUND.as_u16(),
            Self::Name(..) | Self::TooLong { .. } => false,
            Self::Connect(..)
            | Self::Tls(..)
            | Self::Http(..)
            | Self::Late(_)
            | Self::BrokenOff(..)
            | Self::Runtime(_) => true,
        }
    }
}

/// Whom to ask.
#[derive(Clone, Debug)]
pub(super) enum Door<'a> {
    Unix(&'a Path),
    /// On this machine, without TLS.
    Tcp(u16),
    Tls {
        host: &'a str,
        port: u16,
        config: Arc<ClientConfig>,
    },
}

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    /// A legal path of a URL.
    pub path: &'a str,
    pub bearer: Option<&'a str>,
    /// Longest answer read.
    pub max_bytes: usize,
}

impl Door<'_> {
    /// For messages.
    pub fn place(&self) -> String {
        match self {
            Self::Unix(path) => path.display().to_string(),
            Self::Tcp(port) => format!("127.0.0.1:{port}"),
            Self::Tls { host, port, .. } => format!("{host}:{port}"),
        }
    }

    /// The body of the answer, which must be there by `deadline`. Blocks.
    pub fn ask(&self, question: Question<'_>, deadline: Instant) -> Result<Bytes, QuestionError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(QuestionError::Runtime)?;
        let answer = async {
            //= FLT-A27 agent faults: "after a deadline and a bound in bytes"
            let answer = tokio::time::timeout_at(deadline.into(), self.answer(question)).await;
            answer.unwrap_or_else(|_| Err(QuestionError::Late(self.place())))
        };
        let answer = runtime.block_on(answer);
        // Looking up a name may still block a thread: nobody waits for it.
        runtime.shutdown_timeout(Duration::ZERO);
        answer
    }

    async fn answer(&self, question: Question<'_>) -> Result<Bytes, QuestionError> {
        let connect = |error| QuestionError::Connect(self.place(), error);
        match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(connect)?;
                self.over(stream, "localhost", question).await
            }
            Self::Tcp(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port)).await.map_err(connect)?;
                self.over(stream, "127.0.0.1", question).await
            }
            Self::Tls { host, port, config } => {
                let name = ServerName::try_from((*host).to_owned());
                let name = name.map_err(|error| QuestionError::Name((*host).to_owned(), error))?;
                let stream = TcpStream::connect((*host, *port)).await.map_err(connect)?;
                let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
                self.over(stream.map_err(|error| QuestionError::Tls(self.place(), error))?, host, question).await
            }
        }
    }

    async fn over<S>(&self, stream: S, host: &str, question: Question<'_>) -> Result<Bytes, QuestionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let http = |error| QuestionError::Http(self.place(), error);
        let connecting = http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(stream));
        let (mut sender, connection) = connecting.await.map_err(http)?;
        // Ends with the runtime.
        tokio::spawn(connection);
        let response = sender.send_request(request(host, question)).await.map_err(http)?;
        self.read(response, question.max_bytes).await
    }

    async fn read(&self, response: Response<Incoming>, max_bytes: usize) -> Result<Bytes, QuestionError> {
        if response.status() != StatusCode::OK {
            return Err(QuestionError::Status(self.place(), response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), max_bytes).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| match error.is::<LengthLimitError>() {
            true => QuestionError::TooLong { place: self.place(), max_bytes },
            false => QuestionError::BrokenOff(self.place(), error),
        })
    }
}

fn request(host: &str, question: Question<'_>) -> Request<Empty<Bytes>> {
    let request = Request::get(question.path).header(header::HOST, host).header(header::ACCEPT, "application/json");
    let bearer = question.bearer.map(|token| format!("Bearer {token}"));
    let request = match bearer {
        Some(bearer) => request.header(header::AUTHORIZATION, bearer),
        None => request,
    };
    request.body(Empty::new()).expect("a path and a token that were checked")
}

/// The user whose socket `path` is.
pub(super) fn owner(path: &Path) -> Result<u32, QuestionError> {
    let place = || path.display().to_string();
    let metadata = std::fs::symlink_metadata(path).map_err(|error| QuestionError::Connect(place(), error))?;
    Ok(metadata.uid())
}

/// The path of a URL of the form `unix:///path`, or a path alone.
pub(super) fn socket_path(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    path.starts_with('/').then(|| path.into())
}
