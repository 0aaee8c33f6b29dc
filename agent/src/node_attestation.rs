//! The conversation with AttestAgent.
