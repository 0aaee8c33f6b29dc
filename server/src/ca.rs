//! The certificate authority: keys in a key manager (a PKCS#11 token, but for trials and for moving over), two slots for each purpose
//! (the root, the CAs below it, the keys of JWT-SVIDs), a journal, and one plan for all.
//!
//! ```text
//!  plan(moment, journal, paces, failed) ──► Step ──► performer: journal to disk, then token, signers, bundle
//!                                             │ Intend: the key is named     Prepare, Renew: made, certified, published
//!                                             └ Activate: it signs           Prune: expired authorities leave the bundle
//!  Order of an operator ──► by_hand: judged by the journal ──► performer, likewise
//!  AuthorizedEntry + Spki ──► profile (TBS) ──► token ──► lint ──► IssuedSvid
//!  JwtSubject + Audience ──► jwt (claims) ──► token ──► IssuedToken
//! ```
//!
//! Invariants: no key that may still be needed is destroyed, whatever the clock says; what signs is in a durable journal and was
//! published before; no SVID outlives its authority; a key that is lost is an error with a recovery step, never a reason to found
//! another CA; nothing leaves before its fields are read back, and a token that signs wrongly is found out.

mod agent_to_sign;
mod appended;
mod authority;
mod bundle;
mod ca_to_sign;
mod ceremony;
mod error;
mod issuer;
mod journal;
mod jwt;
mod key_kind;
mod key_stock;
mod lint;
mod local_authorities;
mod minted;
mod names;
mod orders;
mod performer;
mod policy;
mod profile;
mod published;
mod purpose;
mod rotating;
mod rotation;
mod rotation_failures;
mod rotation_health;
mod sampling;
mod server_name;
mod signed;
mod signers;
mod steps_done;
mod upstream;
mod wit;

pub use agent_to_sign::AgentToSign;
pub use appended::{AppendError, AppendedAuthorities, MAX_APPENDED};
pub use authority::CertificateAuthority;
pub use bundle::{TokenKey, TrustBundle};
pub use ca_to_sign::CaToSign;
pub use ceremony::{CeremonyRefusal, Delivery, RootToSign, WantedCa, make_root, refuse_no_root};
pub use error::CaError;
pub use issuer::{IssuedCa, IssuedSvid, MAX_INTERMEDIATES};
pub use journal::{
    Authority, CaCertificate, Credential, Inherited, Journal, JournalError, JwtKey, KeyId, KeyMark, KeyRecord,
    MAX_USED_KEYS, Origin, Place, Slot, SlotName, Slots, Standing, UpstreamChain, Verdict,
};
pub use jwt::{Audience, AudienceError, IssuedToken, JwtError, JwtSubject, NotForWorkloads};
pub(crate) use key_kind::certified_kind;
pub use lint::LintError;
pub use local_authorities::{AuthorityState, LocalAuthorities};
pub use minted::{MintRefusal, SvidToMint};
pub use orders::{MAX_WAITING_ORDERS, OrderError};
pub use performer::refuse_another_name;
pub use policy::{CaPolicy, CaSubject, JwtPolicy, WitPolicy};
pub use profile::ProfileError;
pub use published::{
    LONGEST_PUBLISHED_LIFE, MAX_KEYS_OF_A_SERVER, MAX_PUBLISHED_KEYS, PublishError, PublishedKey, TokenKind,
};
pub use purpose::Purpose;
pub use rotating::Rotation;
pub use rotation::by_hand::{
    Action, MAX_RETIRED_BY_HAND, MayActivate, MayDisown, MayPrepare, MayRevoke, MayTaint, Order, OrderRefusal, Status,
};
pub use rotation::{Pace, Step, plan};
pub use server_name::{KeptNameError, ServerName, ServerNameError, check_kept_name, keep_name};
pub use signed::{Outcomes, Signed, SignedFor};
pub use steps_done::{StepsDone, StepsFor};
pub use upstream::{
    DiskAuthority, DiskError, Exchange, ExchangeError, KeepError, ReadLogin, RootToken, RootTokenError, SpireAuthority,
    SpireError, SpireServer, TokenAuthority, Upstream, UpstreamError, WaitingRequest,
};
pub use wit::WitSubject;
