//! The one loop that keeps identities current.
