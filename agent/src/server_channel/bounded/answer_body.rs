//! An answer's body, looked at before the decoder sees it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body as HttpBody, Frame, SizeHint};
use ironroot_api::arriving::{Messages, PREFIX_BYTES, Part};
use prost::bytes::Bytes;
use tonic::Status;
use tonic::body::Body;

use super::decoded_size::{DecodedSize, decoded_size};
use super::shapes::Shape;

pub(super) struct AnswerBody {
    body: Body,
    shape: Shape,
    call_bytes: usize,
    messages: Messages,
    size: DecodedSize,
}

impl AnswerBody {
    pub fn new(body: Body, shape: Shape) -> Self {
        let size = decoded_size(0, shape.fields, shape.decoded_bytes);
        Self { body, shape, call_bytes: 0, messages: Messages::default(), size }
    }

    fn inspect(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        self.call_bytes = self.call_bytes.saturating_add(bytes.len());
        if self.call_bytes > self.shape.call_bytes.saturating_add(PREFIX_BYTES) {
            return Err(refused(format!("all of it is longer than {} bytes", self.shape.call_bytes)));
        }
        while let Some(part) = self.messages.next(&mut bytes) {
            match part {
                Part::Begin(length) => self.begin(length)?,
                Part::Bytes(bytes) => self.size.feed(bytes).map_err(|refusal| refused(refusal.to_string()))?,
                Part::End => {}
            }
        }
        Ok(())
    }

    fn begin(&mut self, length: usize) -> Result<(), Status> {
        let limit = self.shape.message_bytes;
        if length > limit {
            return Err(refused(format!("a message has {length} bytes, more than {limit}")));
        }
        self.size = decoded_size(length as u64, self.shape.fields, self.shape.decoded_bytes);
        Ok(())
    }
}

fn refused(why: String) -> Status {
    Status::out_of_range(format!("the server's answer is refused: {why}"))
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        match data.map_or(Ok(()), |data| this.inspect(data)) {
            Ok(()) => Poll::Ready(frame),
            Err(refusal) => Poll::Ready(Some(Err(refusal))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
