//! Requests of an Envoy on their way in: each message read whole, and brought down to what is looked at before it goes on.
//!
//! An Envoy sends some 60 KiB with each message, nearly all of it the list of its extensions, and a stream stays for as long as
//! its secret is used. What gRPC reads with keeps room for the longest message so far; so long ones must not get there. One
//! user's long messages are read a few at a time, the others wait in their senders.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http_body::Frame;
use ironroot_api::arriving::{Messages, PREFIX_BYTES, Part};
use ironroot_api::pb::discovery::DiscoveryRequest;
use ironroot_api::pb::envoy_core::Node;
use prost::Message;
use prost::bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use super::offer::MAX_MESSAGE_BYTES;
use super::room::{Reader, Room};
use crate::endpoints::admission::LongMessage;

/// Longest message of an Envoy, bytes: twice what Envoy 1.40 sends (61,165), which its list of extensions is.
pub(super) const MAX_DISCOVERY_BYTES: usize = 128 * 1024;
/// Longest message that goes on, bytes: its names, each at most a SPIFFE ID, and a few short texts.
pub(in crate::endpoints) const MAX_CONDENSED_BYTES: usize = 20 * 1024;
/// Most resources that one message names. An Envoy names one on each of its streams.
const MAX_NAMES: usize = 128;
/// What is kept of an Envoy's complaint, characters.
const MAX_COMPLAINT_CHARS: usize = 512;
/// How long a message may take to be there, the wait for its turn included.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(10);
/// What of a node's metadata is looked at. Source: SPIRE, pkg/agent/endpoints/sdsv3.
pub(in crate::endpoints) const VALIDATION_KEY: &str = "disable_spiffe_cert_validation";

/// Why a message goes no further.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum DiscoveryRefusal {
    #[error("the request has {0} bytes, at most {MAX_DISCOVERY_BYTES} are read")]
    TooLong(usize),
    #[error("the request is no envoy.service.discovery.v3.DiscoveryRequest")]
    Malformed,
    #[error("the request names {0} resources, at most {MAX_NAMES} are looked at")]
    TooManyNames(usize),
    #[error("what the request names has {0} bytes, at most {MAX_CONDENSED_BYTES} are looked at")]
    LongNames(usize),
}

impl From<DiscoveryRefusal> for Status {
    fn from(refusal: DiscoveryRefusal) -> Self {
        match refusal {
            DiscoveryRefusal::TooLong(_) => Self::resource_exhausted(refusal.to_string()),
            _ => Self::invalid_argument(refusal.to_string()),
        }
    }
}

/// What is looked at of a message, and nothing else.
pub(super) fn condensed(message: &[u8]) -> Result<DiscoveryRequest, DiscoveryRefusal> {
    let mut request = DiscoveryRequest::decode(message).map_err(|_| DiscoveryRefusal::Malformed)?;
    if request.resource_names.len() > MAX_NAMES {
        return Err(DiscoveryRefusal::TooManyNames(request.resource_names.len()));
    }
    request.node = request.node.map(condensed_node);
    if let Some(complaint) = &mut request.error_detail {
        complaint.message = complaint.message.chars().take(MAX_COMPLAINT_CHARS).collect();
    }
    match request.encoded_len() {
        length if length > MAX_CONDENSED_BYTES => Err(DiscoveryRefusal::LongNames(length)),
        _ => Ok(request),
    }
}

fn condensed_node(node: Node) -> Node {
    let metadata = node.metadata.map(|mut metadata| {
        metadata.fields.retain(|key, value| key == VALIDATION_KEY && is_short(value));
        metadata
    });
    Node { metadata, user_agent_version_type: node.user_agent_version_type, ..Node::default() }
}

fn is_short(value: &prost_types::Value) -> bool {
    value.encoded_len() <= 64
}

/// A body of such messages, each condensed.
pub(super) struct CondensedBody {
    body: Body,
    reader: Reader,
    messages: Messages,
    /// Of the frame that is being looked at, what is left.
    frame: Bytes,
    reading: Option<Reading>,
    /// Runs while the caller owes bytes: from the start, and from the beginning of each message to its end.
    owed: Option<Pin<Box<Sleep>>>,
}

/// A message of which bytes are there.
struct Reading {
    bytes: Vec<u8>,
    length: usize,
    room: Room,
}

impl CondensedBody {
    pub fn new(body: Body, reader: Reader) -> Self {
        let owed = Some(Box::pin(tokio::time::sleep(MESSAGE_PATIENCE)));
        Self { body, reader, messages: Messages::default(), frame: Bytes::new(), reading: None, owed }
    }

    /// A message of `length` bytes begins.
    fn begin(&mut self, length: usize) -> Result<(), Status> {
        if length > MAX_DISCOVERY_BYTES {
            return Err(DiscoveryRefusal::TooLong(length).into());
        }
        if !self.reader.admission.is_in_rate(self.reader.uid, Instant::now()) {
            return Err(Status::unavailable("too many requests of this user; try again later"));
        }
        let room = match length <= MAX_MESSAGE_BYTES {
            true => Room::of_a_short_message(),
            false => self.reader.room_for(LongMessage::Discovery),
        };
        self.reading = Some(Reading { bytes: Vec::new(), length, room });
        let patience = || Box::pin(tokio::time::sleep(MESSAGE_PATIENCE));
        self.owed.get_or_insert_with(patience).as_mut().reset(tokio::time::Instant::now() + MESSAGE_PATIENCE);
        Ok(())
    }

    /// Looks at what is left of the frame, to the end of a message.
    fn advance(&mut self) -> Result<Option<Bytes>, Status> {
        let frame = std::mem::take(&mut self.frame);
        let mut left = &frame[..];
        let mut found = None;
        while let Some(part) = self.messages.next(&mut left) {
            match (part, &mut self.reading) {
                (Part::Begin(length), _) => {
                    self.begin(length)?;
                    break;
                }
                (Part::Bytes(bytes), Some(reading)) => reading.bytes.extend_from_slice(bytes),
                (Part::Bytes(_), None) => return Err(Status::internal("bytes of no message")),
                (Part::End, _) => {
                    found = self.end()?;
                    break;
                }
            }
        }
        self.frame = frame.slice(frame.len() - left.len()..);
        Ok(found)
    }

    fn end(&mut self) -> Result<Option<Bytes>, Status> {
        self.owed = None;
        let Some(reading) = self.reading.take() else { return Ok(None) };
        let request = condensed(&reading.bytes)?;
        let length = request.encoded_len();
        let mut message = BytesMut::with_capacity(PREFIX_BYTES + length);
        message.put_u8(0);
        // A few KiB.
        message.put_u32(length as u32);
        request.encode(&mut message).map_err(|_| Status::internal("a request that cannot be written again"))?;
        Ok(Some(message.freeze()))
    }

    /// Waits until the message that has begun may be kept.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let Some(Reading { bytes, length, room }) = &mut self.reading else { return Poll::Ready(Ok(())) };
        if ready!(room.poll_given(cx))? {
            bytes.reserve_exact(*length);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        match &mut self.owed {
            Some(patience) => {
                patience.as_mut().poll(cx).map(|()| Status::deadline_exceeded("the request did not end in time"))
            }
            None => Poll::Pending,
        }
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            ready!(self.poll_room(cx))?;
            // Also without another byte: a message may be empty.
            if let Some(message) = self.advance()? {
                return Poll::Ready(Some(Ok(Frame::data(message))));
            }
            if !self.frame.is_empty() {
                continue;
            }
            match ready!(http_body::Body::poll_frame(Pin::new(&mut self.body), cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.frame = data,
                    // Trailers of a request say nothing.
                    Err(_) => return Poll::Ready(None),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl http_body::Body for CondensedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        match this.poll_message(cx) {
            Poll::Pending => this.poll_late(cx).map(|late| Some(Err(late))),
            ready => ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::envoy_core::BuildVersion;
    use ironroot_api::pb::envoy_core::node::UserAgentVersionType;
    use ironroot_api::pb::google::rpc;
    use prost_types::value::Kind;
    use prost_types::{ListValue, Struct, Value};

    use super::*;

    fn text(text: &str) -> Value {
        Value { kind: Some(Kind::StringValue(text.to_owned())) }
    }

    #[test]
    fn only_what_is_looked_at_goes_on() {
        let metadata = [(VALIDATION_KEY, "true"), ("more", "x")].map(|(key, value)| (key.to_owned(), text(value)));
        let version = || Some(UserAgentVersionType::UserAgentBuildVersion(BuildVersion { version: None }));
        let node = Node {
            id: "id".repeat(1000),
            cluster: "cluster".into(),
            metadata: Some(Struct { fields: metadata.into() }),
            user_agent_version_type: version(),
        };
        let mut message = DiscoveryRequest {
            node: Some(node),
            resource_names: vec!["default".into()],
            error_detail: Some(rpc::Status { code: 3, message: "é".repeat(10_000) }),
            ..DiscoveryRequest::default()
        }
        .encode_to_vec();
        // Field 9 of the node, as Envoy sends hundreds of them; here beside the node, where nobody looks either.
        message.extend([0x4a, 3, 1, 2, 3]);
        let request = condensed(&message).expect("is one");
        let node = request.node.expect("kept");
        assert_eq!((node.id.as_str(), node.cluster.as_str()), ("", ""));
        assert_eq!(node.user_agent_version_type, version());
        assert_eq!(node.metadata.expect("kept").fields.into_keys().collect::<Vec<_>>(), [VALIDATION_KEY]);
        assert_eq!(request.error_detail.expect("kept").message.chars().count(), MAX_COMPLAINT_CHARS);
        assert_eq!(request.resource_names, ["default"]);
    }

    #[test]
    fn each_reason_to_read_no_further_has_its_name() {
        let naming = |names: Vec<String>| {
            condensed(&DiscoveryRequest { resource_names: names, ..DiscoveryRequest::default() }.encode_to_vec())
        };
        assert_eq!(naming(vec!["a".into(); MAX_NAMES + 1]), Err(DiscoveryRefusal::TooManyNames(MAX_NAMES + 1)));
        assert!(naming(vec!["a".into(); MAX_NAMES]).is_ok());
        assert!(matches!(naming(vec!["a".repeat(MAX_CONDENSED_BYTES)]), Err(DiscoveryRefusal::LongNames(_))));
        assert_eq!(condensed(&[0x0a]), Err(DiscoveryRefusal::Malformed));
        let list = |value| Value { kind: Some(Kind::ListValue(ListValue { values: vec![value] })) };
        let deep = (0..200).fold(text("x"), |value, _| list(value));
        let node = Node { metadata: Some(Struct { fields: [("k".to_owned(), deep)].into() }), ..Node::default() };
        let deep = DiscoveryRequest { node: Some(node), ..DiscoveryRequest::default() }.encode_to_vec();
        assert_eq!(condensed(&deep), Err(DiscoveryRefusal::Malformed));
    }

    //= FLT-A9
    #[test]
    fn messages_of_an_envoy_survive_damage() {
        let node = Node {
            metadata: Some(Struct { fields: [(VALIDATION_KEY.to_owned(), text("1"))].into() }),
            ..Node::default()
        };
        let request =
            DiscoveryRequest { node: Some(node), resource_names: vec!["ALL".into()], ..DiscoveryRequest::default() };
        ironroot_fuzz::Target::new("requests of an Envoy").seed(request.encode_to_vec()).survives(|bytes| {
            if let Ok(request) = condensed(bytes) {
                assert!(request.encoded_len() <= MAX_CONDENSED_BYTES);
            }
        });
    }
}
