//! gRPC messages while their bytes arrive: how long each is and what fields it has, before anything is decoded.
//!
//! ```text
//!  bytes of a body ─► Messages: begins, bytes, ends ─► Walk: each field, by number ─► whoever counts (Fields)
//! ```

mod ending;
mod fields;
mod held;
mod messages;

pub use ending::told_at_the_end;
pub use fields::{Fields, Walk, WalkError};
pub use held::held;
pub use messages::{Messages, PREFIX_BYTES, Part};
