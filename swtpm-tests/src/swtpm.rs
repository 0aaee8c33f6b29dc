//! A software TPM of one's own.
