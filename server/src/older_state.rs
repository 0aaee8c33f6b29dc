//! A database that is older than what was here before: noticed before anything is issued, and issuing waits for the operator's word.
//!
//! ```text
//!  restore ─────────────────► row in the database ─┐
//!  mark on another path ─ outruns the database? ───┤
//!  issuance log beside it ─ outruns it? ───────────┼─► waits: nothing but "not ready, and why" is answered
//!  key made after the CA's journal was written ────┘        │ restore accept: join tokens burnt
//!                                                           │                  bans of the log given again
//!                                                           └─► the CA goes on; keys that it does not know give way
//! ```
//! What was done since cannot be known from an older database: what it says is served to nobody before somebody has looked.

mod accepting;
mod bans;
mod mark;

pub use accepting::{AcceptError, Accepted, accept, recover_bans};
pub use bans::{BANS_TOLD_ANEW, RecoveredBans, carry_ban};
pub use mark::{MAX_MARK_BYTES, Mark, MarkError, keep_mark, note_of_mark, outrun};
