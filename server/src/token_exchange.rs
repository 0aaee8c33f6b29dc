//! Identity for whoever has no agent: a CI job or a function shows a token of its own issuer (OpenID Connect), and is who the token says.
//!
//! ```text
//!  text ─► UnverifiedIdToken ─► its issuer is known ─► a key of that issuer has signed it ─► for us, now, with the claims that it must have
//!     ─► ProvenToken (whose, selectors oidc:CLAIM:VALUE) ─► registry: entries below /spire/exchange/NAME ─► one use ─► SVID
//! ```
//! What a token is good for, entries say, as of every other workload: nothing here makes a name. Checks that cost nothing come before the
//! signature, and that before anything is fetched or remembered for long. An issuer that is hostile gets tokens for its own entries alone.
//!
//! Source: RFC 8693, RFC 8725; OpenID Connect Core 1.0 §3.1.3.7, Discovery 1.0 §4.

mod claims;
mod discovery;
mod issuer;
mod judgement;
mod keeper;
mod keys;
mod policy;
mod proven;
mod refusal;
mod single_use;

pub use claims::{SELECTOR_TYPE, selectors};
pub use discovery::document_url;
pub use issuer::Issuers;
pub use keeper::Keeper;
pub use policy::{IssuerPolicy, KeySource, exchange_parent};
pub use proven::ProvenToken;
pub use refusal::TokenRefusal;
pub use single_use::{MAX_REMEMBERED, OneUse};
