//! The channel that every call to the server goes through: an answer that is larger than its method needs, in bytes on the
//! wire or in memory once it is decoded, ends the call before it is decoded.

mod answer_body;
mod decoded_size;
mod shapes;

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use ironroot_shell::telemetry::otlp::{TRACEPARENT, traceparent};
use tonic::body::Body;
use tonic::transport;
use tower::Service;

use answer_body::AnswerBody;
use shapes::shape_of;

pub use shapes::MAX_ANSWER_BYTES;

/// A connection to the server. Clones share it.
#[derive(Clone, Debug)]
pub struct Channel(transport::Channel);

impl Channel {
    pub(super) fn new(channel: transport::Channel) -> Self {
        Self(channel)
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, transport::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), transport::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let above = traceparent().and_then(|above| HeaderValue::try_from(above).ok());
        above.into_iter().for_each(|above| _ = request.headers_mut().insert(TRACEPARENT, above));
        let shape = shape_of(request.uri().path());
        let answer = self.0.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Body::new(AnswerBody::new(body, shape)))) })
    }
}
