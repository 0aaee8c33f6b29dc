//! The certificate authority: keys in a PKCS#11 token, slots A and B, a journal, and rotation.
