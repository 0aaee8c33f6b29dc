//! PKCS#10 requests: the key they carry and the proof that the requester holds it.
