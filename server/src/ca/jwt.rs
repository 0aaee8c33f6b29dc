//! JWT-SVIDs: who gets one, what it says, and its signature by a key that stays in the token.
//!
//! Source: SPIFFE JWT-SVID; SPIRE pkg/server/credtemplate/builder.go, pkg/server/ca/ca.go.

mod audience;
mod claims;
mod error;
mod key_to_publish;
mod signer;
mod subject;

pub use audience::{Audience, AudienceError};
pub use error::JwtError;
pub use signer::IssuedToken;
pub(in crate::ca) use subject::workload_id;
pub use subject::{JwtSubject, NotForWorkloads};

pub(super) use claims::Claims;
pub(super) use key_to_publish::publishable;
pub(super) use signer::{Lasting, TokenSigner};
