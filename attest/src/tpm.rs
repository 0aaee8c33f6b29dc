//! The device's TPM: a handle to the one thread that owns the ESYS context.
