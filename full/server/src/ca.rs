//! The certificate authority: keys in a PKCS#11 token, two slots for each purpose (the root, the CAs below it, the keys of JWT-SVIDs), a
//! journal, and one plan for all.
//!
//! ```text
//!  plan(moment, journal, paces, failed) ──► Step ──► performer: journal to disk, then token, signers, bundle
//!                                             │ Intend: the key is named     Prepare, Renew: made, certified, published
//!                                             └ Activate: it signs           Prune: expired authorities leave the bundle
//!  AuthorizedEntry + Spki ──► profile (TBS) ──► token ──► lint ──► IssuedSvid
//!  JwtSubject + Audience ──► jwt (claims) ──► token ──► IssuedJwtSvid
//! ```
//!
//! Invariants: no key that may still be needed is destroyed, whatever the clock says; what signs is in a durable journal and was
//! published before; no SVID outlives its authority; a key that is lost is an error with a recovery step, never a reason to found
//! another CA; nothing leaves before its fields are read back, and a token that signs wrongly is found out.

mod agent_to_sign;
mod authority;
mod bundle;
mod error;
mod issuer;
mod journal;
mod jwt;
mod key_kind;
mod key_stock;
mod lint;
mod minted;
mod names;
mod performer;
mod policy;
mod profile;
mod purpose;
mod rotating;
mod rotation;
mod rotation_failures;
mod rotation_health;
mod sampling;
mod server_name;
mod signers;

pub use agent_to_sign::AgentToSign;
pub use authority::CertificateAuthority;
pub use bundle::{JwtAuthority, TrustBundle};
pub use error::CaError;
pub use issuer::IssuedSvid;
pub use journal::{
    Authority, Credential, Inherited, Journal, JournalError, JwtKey, KeyId, KeyMark, KeyRecord, MAX_USED_KEYS, Origin,
    Place, Slot, SlotName, Slots, Standing,
};
pub use jwt::{Audience, IssuedJwtSvid, JwtError, JwtSubject, NoAudience, NotForWorkloads};
pub use lint::LintError;
pub use minted::{MintRefusal, SvidToMint};
pub use policy::{CaPolicy, CaSubject, JwtPolicy};
pub use profile::ProfileError;
pub use purpose::Purpose;
pub use rotating::Rotation;
pub use rotation::{Pace, Step, plan};
pub use server_name::{ServerName, ServerNameError};
