//! Durable facts.
