//! How a call ended, told once: by its trailers, by its headers where it was refused at once, or by nobody who listens any more.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body as HttpBody, Frame, SizeHint};
use prost::bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Response};
use tonic::{Code, Status};

/// `response`, which calls `tell` with the code that its call ended with: [`Code::Cancelled`] if the caller took nothing of the
/// answer, and [`Code::Ok`] if it took some and hung up, as callers end the streams that have no end of their own (so counts SPIRE).
pub fn told_at_the_end(response: Response<Body>, tell: impl FnOnce(Code) + Send + Unpin + 'static) -> Response<Body> {
    match code(response.headers()) {
        Some(code) => {
            tell(code);
            response
        }
        None => response.map(|body| Body::new(Ending { body, tell: Some(tell), code: Code::Cancelled })),
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    Status::from_header_map(headers).map(|status| status.code())
}

struct Ending<F: FnOnce(Code)> {
    body: Body,
    tell: Option<F>,
    code: Code,
}

impl<F: FnOnce(Code) + Unpin> HttpBody for Ending<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                this.code = match frame.trailers_ref() {
                    Some(trailers) => code(trailers).unwrap_or(this.code),
                    None => Code::Ok,
                }
            }
            Poll::Ready(Some(Err(status))) => this.code = status.code(),
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<F: FnOnce(Code)> Drop for Ending<F> {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(self.code);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// An answer of one frame that is trailers with this code.
    struct Trailers(Option<Code>);

    /// An answer that goes on for ever.
    struct Stream;

    impl HttpBody for Stream {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"message")))))
        }
    }

    impl HttpBody for Trailers {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let trailers = |code: Code| {
                let mut trailers = HeaderMap::new();
                let code = i32::from(code).to_string().parse().expect("a number is a header's value");
                trailers.insert("grpc-status", code);
                Ok(Frame::trailers(trailers))
            };
            Poll::Ready(self.0.take().map(trailers))
        }
    }

    fn heard(response: Response<Body>) -> (Arc<Mutex<Vec<Code>>>, Response<Body>) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = heard.clone();
        (heard, told_at_the_end(response, move |code| ear.lock().expect("no panics").push(code)))
    }

    #[tokio::test]
    async fn the_end_of_a_call_is_told_once_and_as_it_was() {
        let (told, answer) = heard(Response::new(Body::new(Trailers(Some(Code::NotFound)))));
        let mut body = answer.into_body();
        while poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.is_some() {}
        drop(body);
        assert_eq!(*told.lock().expect("no panics"), [Code::NotFound], "by its trailers");
        let (told, refused) = heard(Status::permission_denied("no").into_http());
        drop(refused);
        assert_eq!(*told.lock().expect("no panics"), [Code::PermissionDenied], "by its headers");
        let (told, unread) = heard(Response::new(Body::new(Trailers(Some(Code::Ok)))));
        drop(unread);
        assert_eq!(*told.lock().expect("no panics"), [Code::Cancelled], "nobody took it");
        let (told, stream) = heard(Response::new(Body::new(Stream)));
        let mut body = stream.into_body();
        assert!(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.is_some());
        drop(body);
        assert_eq!(*told.lock().expect("no panics"), [Code::Ok], "its caller had what it wanted");
    }
}
