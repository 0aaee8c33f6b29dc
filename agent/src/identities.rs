//! The immutable snapshot of everything the agent may serve.
