//! Drives one attestation conversation to an AttestedNode.
