//! How large things may be that are about JWT-SVIDs.

/// Longest token looked at, bytes. HTTP servers take no more than 8 to 16 kB of headers, where tokens travel.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Longest key ID, bytes. SPIRE's have 32.
pub const MAX_KEY_ID_BYTES: usize = 255;
/// Most keys of a trust domain. A server has two; many servers and a long outage, a few dozen.
pub const MAX_JWT_AUTHORITIES: usize = 256;
