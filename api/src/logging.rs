//! Structured logs in text or JSON.
