//! A root that is kept apart: made once, by two people, on a token that is plugged in for that; and what it signs.
//!
//! ```text
//!  key in the root's token ──► make_root ──► root.pem ──► images, roots_path
//!  request of a server ──► WantedCa::asked (of this trust domain?) ─┐
//!  root.pem, key ──► RootToSign::of (a CA? ended? its own key?) ───┴─► sign ──► ca.pem ──► Delivery::judge (the waiting key's?) ──► exchange
//! ```
//! Pure but for the signatures; files, tokens and paper are the command line's.

mod delivery;
mod refusal;
mod root;
mod wanted;

pub use delivery::Delivery;
pub use refusal::CeremonyRefusal;
pub use root::{RootToSign, make_root, refuse_no_root};
pub use wanted::WantedCa;
