//! Identities in a file that only this TPM, booted as before, can open.
