//! Bodies of admitted requests: bounded in bytes and time, and in how many long ones are read at the same time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use ironroot_api::arriving::{Messages, Part};
use prost::bytes::Bytes;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use super::offer::MAX_MESSAGE_BYTES;
use super::room::{Reader, Room};
use crate::endpoints::admission::LongMessage;

/// What a client sends.
pub(super) struct RequestBody {
    body: Body,
    reader: Reader,
    /// How much of it may come in all, bytes, and how much has.
    most: usize,
    read: usize,
    /// How long each message says it is; `None`: nobody needs to know, since what has come of one does not stay for long, or has its room.
    messages: Option<Messages>,
    room: Room,
    /// What has come and waits for room.
    waiting: Option<Frame<Bytes>>,
    deadline: Pin<Box<Sleep>>,
}

impl RequestBody {
    /// One message, which is kept until it is whole.
    pub fn message(body: Body, reader: Reader, bytes: usize, time: Duration) -> Self {
        Self {
            body,
            reader,
            most: bytes,
            read: 0,
            messages: Some(Messages::default()),
            room: Room::of_a_short_message(),
            waiting: None,
            deadline: Box::pin(tokio::time::sleep(time)),
        }
    }

    /// Messages that each go on as soon as they are there.
    pub fn conversation(body: Body, reader: Reader, bytes: usize, time: Duration) -> Self {
        Self { messages: None, ..Self::message(body, reader, bytes, time) }
    }

    /// Before a message is announced to those who make room for it, it has a turn.
    fn looked_at(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let (Some(messages), Some(data)) = (&mut self.messages, frame.data_ref()) else { return frame };
        let mut left = &data[..];
        let is_long = std::iter::from_fn(|| messages.next(&mut left))
            .any(|part| matches!(part, Part::Begin(length) if length > MAX_MESSAGE_BYTES));
        if !is_long {
            return frame;
        }
        // One right is enough for all that may come.
        self.messages = None;
        self.room = self.reader.room_for(LongMessage::Request);
        // What waits keeps nothing of the connection's own buffer.
        Frame::data(Bytes::copy_from_slice(data))
    }

    fn poll_in_bounds(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.waiting.is_none() {
            let frame = match ready!(http_body::Body::poll_frame(Pin::new(&mut self.body), cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            self.read += frame.data_ref().map_or(0, Bytes::len);
            if self.read > self.most {
                return Poll::Ready(Some(Err(Status::resource_exhausted("the request is too long"))));
            }
            self.waiting = Some(self.looked_at(frame));
        }
        ready!(self.room.poll_given(cx))?;
        Poll::Ready(self.waiting.take().map(Ok))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = this.poll_in_bounds(cx) else {
            ready!(this.deadline.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Status::deadline_exceeded("the request did not end in time"))));
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Of what waits the body behind knows no more.
        match self.waiting {
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}
