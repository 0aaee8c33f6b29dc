//! Bodies of admitted requests: bounded in bytes and time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use prost::bytes::Bytes;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

/// What a client sends.
pub(super) struct RequestBody {
    body: Body,
    bytes_left: usize,
    deadline: Pin<Box<Sleep>>,
}

impl RequestBody {
    pub fn new(body: Body, bytes: usize, time: Duration) -> Self {
        Self { body, bytes_left: bytes, deadline: Box::pin(tokio::time::sleep(time)) }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            ready!(this.deadline.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Status::deadline_exceeded("the request did not end in time"))));
        };
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        match this.bytes_left.checked_sub(bytes) {
            Some(left) => this.bytes_left = left,
            None => return Poll::Ready(Some(Err(Status::resource_exhausted("the request is too long")))),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
