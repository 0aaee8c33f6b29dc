//! TPM 2.0 Part 2 structures as bounded Rust values.
