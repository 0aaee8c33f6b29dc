//! Whose fault it is that a node is not attested: all that an endpoint has to know of a refusal.

use crate::store::StoreError;

/// Whose fault a refusal is.
#[derive(Debug)]
pub enum Fault {
    /// The configuration's: the type does not attest here.
    Type,
    /// The message's: it can never be right.
    Message,
    /// The node's: it has not proven what it must.
    Node,
    /// The node's: nobody has enrolled it, or nobody has any more.
    Unknown,
    /// The node's, and an operator has said so: it is banned.
    Banned,
    /// The server's own: it cannot see what it has to look at.
    Server,
    /// The data store's: it cannot be read or written.
    Store(StoreError),
}
