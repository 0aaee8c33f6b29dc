//! WIT-SVIDs: tokens that name a workload's key, and are worth nothing to whoever has not that key.
//!
//! Source: SPIFFE WIT-SVID; SPIRE pkg/server/credtemplate/builder.go, pkg/server/ca/ca.go.

mod claims;
mod subject;

pub use subject::WitSubject;

pub(super) use claims::WitClaims;
