//! Node attestation: one module per attestation type.
