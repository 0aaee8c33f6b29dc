//! The table of answers: how large each may be.
//!
//! A fleet's device has some hundred entries of a few hundred bytes. The numbers leave room for what servers send at most
//! (SPIRE's agent takes 4 MiB of anything) and keep what a hostile one can make of this agent below [`MAX_ANSWER_BYTES`] for
//! the bytes and [`MAX_DECODED_BYTES`] for what they decode to.

use ironroot_api::pb::entry::EntryRevision;
use ironroot_api::pb::svid::{batch_new_witsvid_response, batch_new_x509svid_response};
use ironroot_api::pb::types::{Entry, JwtKey, Selector, WitKey, X509Certificate};
use prost::bytes::Bytes;

/// Longest message of any answer, bytes: a page of 500 entries of 16 kB each.
pub const MAX_ANSWER_BYTES: usize = 8 * MIB;
/// Most memory that the items of one message take once decoded, bytes.
pub const MAX_DECODED_BYTES: usize = 24 * MIB;
/// All messages of one call together, bytes: 20,000 entries of 3 kB each.
const MAX_CALL_BYTES: usize = 64 * MIB;
/// A trust bundle: 256 authorities of 1 kB each.
const MAX_BUNDLE_BYTES: usize = 256 * KIB;
/// A certificate chain, or a challenge of a TPM.
const MAX_SMALL_BYTES: usize = 64 * KIB;
/// What has changed, or only a number. Servers of this version put up to 64 KiB into one.
const MAX_WORD_BYTES: usize = 256 * KIB;
/// All words of a stream together: then it is opened anew.
const MAX_WORDS_BYTES: usize = 64 * MIB;
/// 500 chains of 16 kB each: an SVID and its CA below a root, by ML-DSA-87, have 13.
const MAX_SVIDS_BYTES: usize = MAX_ANSWER_BYTES;
/// 500 tokens of 8 kB each.
const MAX_WITS_BYTES: usize = 4 * MIB;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// How large an answer may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Of one message, on the wire.
    pub message_bytes: usize,
    /// Of all messages of the call, on the wire.
    pub call_bytes: usize,
    /// Of what the repeated fields of one message become in memory, their texts aside.
    pub decoded_bytes: usize,
    /// The fields that are messages or repeated.
    pub fields: &'static [Field],
}

/// A field of which there may be many, or in which there may be many.
#[derive(Debug)]
pub(super) struct Field {
    /// Its number in the .proto file.
    pub number: u64,
    /// What one more of them takes in memory, bytes.
    pub size: usize,
    /// Of a message, those of its own fields.
    pub fields: &'static [Field],
    /// Whether it is a message.
    pub is_message: bool,
}

const fn message<T>(number: u64, fields: &'static [Field]) -> Field {
    Field { number, size: grown::<T>(), fields, is_message: true }
}

const fn plain<T>(number: u64) -> Field {
    Field { number, size: grown::<T>(), fields: &[], is_message: false }
}

/// A vector that grows holds up to twice what is in it.
const fn grown<T>() -> usize {
    2 * size_of::<T>()
}

const ENTRY: &[Field] = &[message::<Selector>(4, &[]), plain::<String>(6), plain::<String>(10)];
const SVID: &[Field] = &[plain::<Bytes>(1)];
const BUNDLE: &[Field] = &[message::<X509Certificate>(2, &[]), message::<JwtKey>(3, &[]), message::<WitKey>(6, &[])];
const SYNC: &[Field] = &[message::<EntryRevision>(1, &[]), message::<Entry>(2, ENTRY)];
const ENTRIES: &[Field] = &[message::<Entry>(1, ENTRY)];
const SVIDS: &[Field] = &[message::<batch_new_x509svid_response::Result>(1, &[message::<()>(2, SVID)])];
const WITS: &[Field] = &[message::<batch_new_witsvid_response::Result>(1, &[message::<()>(2, &[])])];
const ATTESTED: &[Field] = &[message::<()>(1, &[message::<()>(1, SVID)])];
const DELTA: &[Field] = &[message::<Entry>(3, ENTRY), plain::<String>(4), message::<()>(5, BUNDLE)];
const WORD: &[Field] = &[message::<()>(2, DELTA)];
const RENEWED: &[Field] = &[message::<()>(1, SVID)];

/// What the method at `path` may answer.
pub(super) fn shape_of(path: &str) -> Shape {
    let entries = |fields| Shape {
        message_bytes: MAX_ANSWER_BYTES,
        call_bytes: MAX_CALL_BYTES,
        decoded_bytes: MAX_DECODED_BYTES,
        fields,
    };
    match path {
        "/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries" => entries(SYNC),
        "/spire.api.server.entry.v1.Entry/GetAuthorizedEntries" => entries(ENTRIES),
        "/spire.api.server.svid.v1.SVID/BatchNewX509SVID" => once(MAX_SVIDS_BYTES, SVIDS),
        "/spire.api.server.svid.v1.SVID/BatchNewWITSVID" => once(MAX_WITS_BYTES, WITS),
        "/spire.api.server.bundle.v1.Bundle/GetBundle" | "/spire.api.server.bundle.v1.Bundle/GetFederatedBundle" => {
            once(MAX_BUNDLE_BYTES, BUNDLE)
        }
        "/spire.api.server.agent.v1.Agent/AttestAgent" => conversation(ATTESTED),
        "/spire.api.server.agent.v1.Agent/RenewAgent" => once(MAX_SMALL_BYTES, RENEWED),
        "/ironroot.api.server.change.v1.Change/WatchChanges" => WORDS,
        // PostStatus, and what this agent does not call yet.
        _ => once(MAX_SMALL_BYTES, &[]),
    }
}

/// For as long as the stream is held.
const WORDS: Shape =
    Shape { call_bytes: MAX_WORDS_BYTES, decoded_bytes: 4 * MAX_WORD_BYTES, ..once(MAX_WORD_BYTES, WORD) };

const fn once(bytes: usize, fields: &'static [Field]) -> Shape {
    Shape { message_bytes: bytes, call_bytes: bytes, decoded_bytes: bytes, fields }
}

/// A few small messages.
const fn conversation(fields: &'static [Field]) -> Shape {
    Shape { call_bytes: 4 * MAX_SMALL_BYTES, ..once(MAX_SMALL_BYTES, fields) }
}
