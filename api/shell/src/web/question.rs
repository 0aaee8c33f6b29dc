//! One question over a connection that is open: a GET, whose answer is bounded in bytes. By when it ends, and whether a redirect is
//! followed, is the caller's to say.

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

/// Longest head of an answer read, bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Why there is no answer.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum WebQuestionError {
    #[error("it does not speak HTTP")]
    Http(#[source] hyper::Error),
    #[error("it answers with more than {0} bytes")]
    TooLong(usize),
    /// The answer breaks off, or is not as long as it said.
    #[error("its answer breaks off")]
    BrokenOff(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub struct WebQuestion<'a> {
    /// Host and port as the URL has them.
    pub authority: &'a str,
    /// Path and query of a URL that was parsed.
    pub path: &'a str,
    /// The media type that is wanted.
    pub accept: &'static str,
    /// Who asks: a name and a version.
    pub user_agent: &'static str,
    /// Longest document read.
    pub max_bytes: usize,
}

/// What a web server says.
#[derive(Debug)]
pub enum WebAnswer {
    /// The document.
    Document(Bytes),
    /// It is at this place, if the server says where.
    Elsewhere(Option<String>),
    /// Anything else.
    Status(StatusCode),
}

impl WebQuestion<'_> {
    /// Asks over `stream`, which ends with this call, however it ends.
    pub async fn ask<S>(&self, stream: S) -> Result<WebAnswer, WebQuestionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connecting = http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(stream));
        let (mut sender, connection) = connecting.await.map_err(WebQuestionError::Http)?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = sender.send_request(self.request()).await.map_err(WebQuestionError::Http)?;
        self.read(response).await
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let request = Request::get(self.path).header(header::HOST, self.authority).header(header::ACCEPT, self.accept);
        let request = request.header(header::USER_AGENT, self.user_agent);
        request.body(Empty::new()).expect("parts of a URL that was parsed")
    }

    async fn read(&self, response: Response<Incoming>) -> Result<WebAnswer, WebQuestionError> {
        match response.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => {
                let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
                return Ok(WebAnswer::Elsewhere(location.map(str::to_owned)));
            }
            status => return Ok(WebAnswer::Status(status)),
        }
        let body = Limited::new(response.into_body(), self.max_bytes).collect().await;
        body.map(|body| WebAnswer::Document(body.to_bytes())).map_err(|why| match why.is::<LengthLimitError>() {
            true => WebQuestionError::TooLong(self.max_bytes),
            false => WebQuestionError::BrokenOff(why),
        })
    }
}
