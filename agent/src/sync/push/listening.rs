//! A stream of changes that the server holds: what was heard on it, in order.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use ironroot_api::pb::change::change_client::ChangeClient;
use ironroot_api::pb::change::{Delta, WatchChangesRequest, WatchChangesResponse};
use tonic::{Request, Status, Streaming};

use super::super::entries::{head_in, with_head};
use super::{COME_BACK, Heard, LASTED, come_back_of};
use crate::server_channel::Channel;

/// Words that are taken off the stream at once before a sync that answers them all. More of them cost another sync.
const MAX_WAITING: usize = 256;
/// The same of deltas, each as long as a message may be.
const MAX_WAITING_DELTAS: usize = 16;
/// A server that tells what changes says every four minutes that nothing has. After this silence the connection is given up for dead.
const LONGEST_SILENCE: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Listening {
    stream: Box<Streaming<WatchChangesResponse>>,
    since: Instant,
    /// When the server has last said something.
    heard: Instant,
    /// The number of the next delta, if the server tells some.
    next_delta: Option<u64>,
    /// What was heard and is not done yet.
    waiting: Vec<WatchChangesResponse>,
    /// Why nothing comes behind what waits: told when that is done.
    end: Option<Status>,
    come_back: Duration,
}

impl Listening {
    /// The stream, its first message, and the head that the server has shown. `held`, `kept`: see [`super::Pushes::listen`].
    pub(super) async fn open(
        channel: &Channel,
        held: WatchChangesRequest,
        kept: &[u8],
    ) -> Result<(Self, WatchChangesResponse, Option<Vec<u8>>), Status> {
        let answer = ChangeClient::new(channel.clone()).watch_changes(with_head(Request::new(held), kept)).await?;
        let (now, head) = (Instant::now(), head_in(answer.metadata()));
        let (stream, waiting) = (Box::new(answer.into_inner()), Vec::new());
        let mut listening =
            Self { stream, since: now, heard: now, next_delta: None, waiting, end: None, come_back: COME_BACK };
        let first = listening.stream.message().await?.ok_or_else(ended)?;
        listening.next_delta = first.delta.as_ref().map(|_| 1);
        listening.count(&first)?;
        Ok((listening, first, head))
    }

    /// Whether the server says what has changed.
    pub(super) fn tells_deltas(&self) -> bool {
        self.next_delta.is_some()
    }

    /// What was heard so far is done.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }

    /// Whether it was none that failed.
    pub(super) fn has_lasted(&self) -> bool {
        self.since.elapsed() >= LASTED
    }

    /// As the server has said it last: see [`super::Pushes::come_back`].
    pub(super) fn come_back(&self) -> Duration {
        self.come_back
    }

    /// What the server says, told at `not_before` or later.
    pub(super) async fn next(&mut self, not_before: Instant) -> Result<Heard, Status> {
        if self.waiting.is_empty() {
            if let Some(end) = self.end.take() {
                return Err(end);
            }
            let message = self.message().await?;
            self.waiting.push(message);
        }
        tokio::time::sleep_until(not_before.into()).await;
        let most = if self.next_delta.is_some() { MAX_WAITING_DELTAS } else { MAX_WAITING };
        while self.waiting.len() < most && self.end.is_none() {
            match self.stream.message().now_or_never() {
                Some(Ok(Some(later))) => {
                    self.count(&later)?;
                    self.waiting.push(later);
                }
                Some(Ok(None)) => self.end = Some(ended()),
                Some(Err(status)) => self.end = Some(status),
                None => break,
            }
        }
        self.all_that_waits().ok_or_else(ended)
    }

    /// Deltas up to the first word that says nothing else; it asks for a sync, and what comes behind it is heard after that.
    fn all_that_waits(&mut self) -> Option<Heard> {
        let revision = self.waiting.last()?.revision;
        let waiting = std::mem::take(&mut self.waiting);
        let deltas: Option<Vec<Delta>> = waiting.into_iter().map(|message| message.delta).collect();
        Some(deltas.map_or(Heard::Revision(revision), Heard::Deltas))
    }

    /// The next message in order, before the silence has lasted too long.
    async fn message(&mut self) -> Result<WatchChangesResponse, Status> {
        let message = match self.next_delta {
            None => self.stream.message().await,
            Some(_) => {
                let patience = self.heard + LONGEST_SILENCE;
                let silent = |_| Status::deadline_exceeded("the server has said nothing for too long");
                tokio::time::timeout_at(patience.into(), self.stream.message()).await.map_err(silent)?
            }
        };
        let message = message?.ok_or_else(ended)?;
        self.count(&message)?;
        Ok(message)
    }

    /// A delta that is out of order belongs to another stream, and so do those behind it.
    fn count(&mut self, message: &WatchChangesResponse) -> Result<(), Status> {
        self.heard = Instant::now();
        self.come_back = come_back_of(message.come_back_ms);
        let number = message.delta.as_ref().map(|delta| delta.number);
        if number != self.next_delta {
            return Err(Status::data_loss("the server's deltas are out of order"));
        }
        self.next_delta = number.map(|number| number.saturating_add(1));
        Ok(())
    }
}

/// Why nothing more is heard.
pub(super) fn ended() -> Status {
    Status::unavailable("the stream has ended")
}

#[cfg(test)]
impl Listening {
    /// For `age` to a server that says nothing.
    pub(super) fn silent(age: Duration) -> Self {
        let decoder = tonic_prost::ProstDecoder::<WatchChangesResponse>::default();
        let since = Instant::now().checked_sub(age).expect("this machine has been up for longer");
        Self { since, ..Self::to(Streaming::new_empty(decoder, tonic::body::Body::empty())) }
    }

    /// To a server that says these, and then ends the stream so.
    pub(super) fn that_hears(words: &[WatchChangesResponse], end: &Status) -> Self {
        use prost::Message;
        let mut said = Vec::new();
        for word in words {
            said.push(0);
            said.extend(u32::try_from(word.encoded_len()).expect("short").to_be_bytes());
            word.encode(&mut said).expect("encoded");
        }
        let mut trailers = http::HeaderMap::new();
        end.add_header(&mut trailers).expect("legal");
        let frames = [http_body::Frame::data(said.into()), http_body::Frame::trailers(trailers)];
        let frames = futures_util::stream::iter(frames.map(Ok::<http_body::Frame<prost::bytes::Bytes>, Status>));
        let (decoder, body) = (tonic_prost::ProstDecoder::default(), http_body_util::StreamBody::new(frames));
        Self::to(Streaming::new_response(decoder, body, http::StatusCode::OK, None, None))
    }

    fn to(stream: Streaming<WatchChangesResponse>) -> Self {
        let (stream, now) = (Box::new(stream), Instant::now());
        let waiting = Vec::new();
        Self { stream, since: now, heard: now, next_delta: None, waiting, end: None, come_back: COME_BACK }
    }
}
