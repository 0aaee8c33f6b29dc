//! What an agent with several servers serves: the identities of each and the authorities of all, as one.
//!
//! ```text
//!  loop of the north ─► Identities ─┐
//!                                   ├─► unite ─► Identities ─► endpoints
//!  loop of the south ─► Identities ─┘      (pure; again on each change, and when an SVID comes near its end)
//! ```
//! Each server is followed by a loop of its own (`crate::sync`), which believes it under its own authorities alone, keeps what it has
//! of it by itself, and has a clock of its own: a server that is away, wrong or hostile reaches nothing of another's but by its
//! authorities in the bundle, which one trust domain has in common. `docs/design.md` says what was chosen, and what not.

mod bans;
mod follow;
mod shares;

pub use bans::Bans;
pub use follow::{Follower, Source};
pub use shares::{Share, United, unite};
