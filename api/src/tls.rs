//! SPIFFE mutual TLS on rustls.
