//! An answer's body, looked at before the decoder sees it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body as HttpBody, Frame, SizeHint};
use prost::bytes::Bytes;
use tonic::Status;
use tonic::body::Body;

use super::decoded_size::DecodedSize;
use super::shapes::Shape;

/// Bytes before each message: compressed or not, and its length. Source: gRPC over HTTP/2, Length-Prefixed-Message.
const PREFIX_BYTES: usize = 5;

pub(super) struct AnswerBody {
    body: Body,
    shape: Shape,
    call_bytes: usize,
    reading: Reading,
}

#[derive(Debug)]
enum Reading {
    Prefix { bytes: [u8; PREFIX_BYTES], have: usize },
    Message { left: usize, size: DecodedSize },
}

impl Reading {
    fn next() -> Self {
        Self::Prefix { bytes: [0; PREFIX_BYTES], have: 0 }
    }
}

impl AnswerBody {
    pub fn new(body: Body, shape: Shape) -> Self {
        Self { body, shape, call_bytes: 0, reading: Reading::next() }
    }

    fn inspect(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        self.call_bytes = self.call_bytes.saturating_add(bytes.len());
        if self.call_bytes > self.shape.call_bytes.saturating_add(PREFIX_BYTES) {
            return Err(refused(format!("all of it is longer than {} bytes", self.shape.call_bytes)));
        }
        while !bytes.is_empty() {
            let used = match &mut self.reading {
                Reading::Prefix { bytes: prefix, have } => {
                    let used = bytes.len().min(PREFIX_BYTES - *have);
                    prefix[*have..*have + used].copy_from_slice(&bytes[..used]);
                    *have += used;
                    used
                }
                Reading::Message { left, size } => {
                    let used = bytes.len().min(*left);
                    *left -= used;
                    size.feed(&bytes[..used]).map_err(|refusal| refused(refusal.to_string()))?;
                    used
                }
            };
            bytes = &bytes[used..];
            self.step()?;
        }
        Ok(())
    }

    /// From a whole prefix to its message, from a whole message to the next prefix.
    fn step(&mut self) -> Result<(), Status> {
        if let Reading::Prefix { bytes: [_, length @ ..], have: PREFIX_BYTES } = self.reading {
            let (length, limit) = (u32::from_be_bytes(length) as usize, self.shape.message_bytes);
            if length > limit {
                return Err(refused(format!("a message has {length} bytes, more than {limit}")));
            }
            let size = DecodedSize::of(length as u64, self.shape.fields, self.shape.decoded_bytes);
            self.reading = Reading::Message { left: length, size };
        }
        if let Reading::Message { left: 0, .. } = self.reading {
            self.reading = Reading::next();
        }
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
