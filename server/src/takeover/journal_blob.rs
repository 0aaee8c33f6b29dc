//! Messages that SPIRE keeps in its database: its bundles, and its CA's journal.
//!
//! Source: SPIRE proto/spire/common/common.proto, proto/private/server/journal/journal.proto.

use prost::Message;

/// `spire.common.Bundle`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Bundle {
    #[prost(string, tag = "1")]
    pub(super) trust_domain_id: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) root_cas: Vec<RootCa>,
    #[prost(message, repeated, tag = "3")]
    pub(super) jwt_signing_keys: Vec<PublicKey>,
    /// Seconds.
    #[prost(int64, tag = "4")]
    pub(super) refresh_hint: i64,
    #[prost(uint64, tag = "5")]
    pub(super) sequence_number: u64,
    #[prost(message, repeated, tag = "6")]
    pub(super) wit_signing_keys: Vec<PublicKey>,
}

/// `spire.common.Certificate`: one certificate, or, in old rows, several.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct RootCa {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) der_bytes: Vec<u8>,
    #[prost(bool, tag = "2")]
    pub(super) tainted_key: bool,
}

/// `spire.common.PublicKey`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct PublicKey {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) pkix_bytes: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) kid: String,
    /// UNIX seconds; 0: never.
    #[prost(int64, tag = "3")]
    pub(super) not_after: i64,
    #[prost(bool, tag = "4")]
    pub(super) tainted_key: bool,
}

/// `Entries`: the oldest first.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Entries {
    #[prost(message, repeated, tag = "1")]
    pub(super) x509_cas: Vec<X509Ca>,
    #[prost(message, repeated, tag = "2")]
    pub(super) jwt_keys: Vec<TokenKeyEntry>,
    #[prost(message, repeated, tag = "3")]
    pub(super) wit_keys: Vec<TokenKeyEntry>,
}

/// `X509CAEntry`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct X509Ca {
    #[prost(string, tag = "1")]
    pub(super) slot_id: String,
    #[prost(int64, tag = "2")]
    pub(super) issued_at: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) certificate: Vec<u8>,
    /// This CA, then the intermediates above it without the root; empty if it signed itself.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub(super) upstream_chain: Vec<Vec<u8>>,
    #[prost(enumeration = "Status", tag = "5")]
    pub(super) status: i32,
}

/// `JWTKeyEntry` and `WITKeyEntry`, which have the same fields.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct TokenKeyEntry {
    #[prost(string, tag = "1")]
    pub(super) slot_id: String,
    #[prost(int64, tag = "2")]
    pub(super) issued_at: i64,
    #[prost(int64, tag = "3")]
    pub(super) not_after: i64,
    #[prost(string, tag = "4")]
    pub(super) kid: String,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) public_key: Vec<u8>,
    #[prost(enumeration = "Status", tag = "6")]
    pub(super) status: i32,
}

/// How far an authority's life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Status {
    Unknown = 0,
    Prepared = 2,
    Active = 3,
    Old = 4,
}
