//! The body of a request as far as its caller may go: message bytes, items, time, and its part of the memory that all bodies
//! share. It stands between the network and the decoder: what is refused here was never decoded.

mod fields;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body as HttpBody, Frame, SizeHint};
use ironroot_api::arriving::{Messages, Part};
use prost::bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

pub use fields::FieldLimits;
pub(super) use fields::{Counted, FieldCounter};

use super::caller::Source;
use super::fair_share::Share;

/// Memory that a message takes beside its decoded items, in lengths of it: as it was read, and its texts once more.
const COPIES: usize = 2;
/// Memory of one field of an inner message, bytes: a selector, a label.
const INNER_FIELD_BYTES: usize = 64;

/// What one request of a method may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestShape {
    /// Largest message, bytes.
    pub bytes: usize,
    /// Most fields of a message.
    pub fields: FieldLimits,
    /// Memory of one item once it is decoded, bytes.
    pub item_bytes: usize,
    /// Whether the body is a stream of messages; otherwise it is one.
    pub streaming: bool,
}

/// The memory that a request's body holds, for as long as the request is worked on.
pub type Charge = Arc<Mutex<Share<Source>>>;

/// A request's body between its limits.
#[derive(Debug)]
pub struct BoundedBody {
    body: Body,
    shape: RequestShape,
    arriving: Messages,
    counter: FieldCounter,
    messages: usize,
    charge: Charge,
    deadline: Duration,
    /// Runs while the caller owes us bytes.
    timer: Option<Pin<Box<Sleep>>>,
}

impl BoundedBody {
    /// `body` as `shape` lets it be; every message must be there `deadline` after it began (the first one after now).
    pub fn new(body: Body, shape: RequestShape, charge: Charge, deadline: Duration) -> Self {
        let timer = Some(Box::pin(sleep(deadline)));
        let (arriving, counter) = (Messages::default(), FieldCounter::new(shape.fields));
        Self { body, shape, arriving, counter, messages: 0, charge, deadline, timer }
    }

    /// Looks at the bytes that arrived before anybody else does.
    fn inspect(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while let Some(part) = self.arriving.next(&mut bytes) {
            match part {
                Part::Begin(length) => self.begin_message(length)?,
                Part::Bytes(bytes) => {
                    let counted = self.counter.feed(bytes).map_err(|e| Status::invalid_argument(e.to_string()))?;
                    charge(&self.charge, self.shape.memory_of_items(counted))?;
                }
                // One message at a time is waited for; between those of a stream nothing is owed.
                Part::End => self.timer = self.timer.take().filter(|_| !self.shape.streaming),
            }
        }
        Ok(())
    }

    fn begin_message(&mut self, length: usize) -> Result<(), Status> {
        let limit = self.shape.bytes;
        if length > limit {
            return Err(Status::out_of_range(format!("request has {length} bytes, at most {limit} are accepted")));
        }
        self.messages += 1;
        if self.messages > 1 && !self.shape.streaming {
            return Err(Status::invalid_argument("one message is expected"));
        }
        if self.messages > 1 {
            // The message before has been handed on and is bounded by itself.
            lock(&self.charge).release();
        }
        charge(&self.charge, self.shape.memory_of_texts(length))?;
        self.timer
            .get_or_insert_with(|| Box::pin(sleep(Duration::ZERO)))
            .as_mut()
            .reset(Instant::now() + self.deadline);
        self.counter = FieldCounter::new(self.shape.fields);
        Ok(())
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }
}

impl RequestShape {
    /// What a message of `length` bytes is charged when it begins, bytes.
    pub(super) fn memory_of_texts(&self, length: usize) -> usize {
        length.saturating_mul(COPIES)
    }

    /// What these items and fields are charged beside, as they arrive, bytes.
    pub(super) fn memory_of_items(&self, counted: Counted) -> usize {
        counted.outer.saturating_mul(self.item_bytes) + counted.inner.saturating_mul(INNER_FIELD_BYTES)
    }
}

fn lock(charge: &Charge) -> std::sync::MutexGuard<'_, Share<Source>> {
    // A number and its books, changed by calls that do not panic.
    charge.lock().unwrap_or_else(PoisonError::into_inner)
}

fn charge(charge: &Charge, bytes: usize) -> Result<(), Status> {
    if lock(charge).grow(bytes) {
        return Ok(());
    }
    let advice =
        "there is no memory for this request beside those that are being read: send less at once, or try again";
    Err(Status::resource_exhausted(advice))
}

impl HttpBody for BoundedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.is_late(cx) {
            return Poll::Ready(Some(Err(Status::deadline_exceeded("the request did not arrive in time"))));
        }
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => {
                this.timer = None;
                return Poll::Ready(other);
            }
        };
        if let Some(data) = frame.data_ref()
            && let Err(status) = this.inspect(data)
        {
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
