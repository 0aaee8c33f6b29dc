//! What stays the same of a certificate however its signature is written.

use aws_lc_rs::digest::{SHA256, digest};

use crate::link::signed_part;

/// SHA-256 of a TBSCertificate: the same for a certificate however its signature is written.
pub(super) type SignedSha256 = [u8; 32];

/// Of a certificate that nobody has looked at yet, DER.
pub(super) fn of_certificate(der: &[u8]) -> Option<SignedSha256> {
    signed_part(der).map(of_signed)
}

/// Of what the issuer has signed, DER with its header.
pub(super) fn of_signed(tbs: &[u8]) -> SignedSha256 {
    digest(&SHA256, tbs).as_ref().try_into().expect("SHA-256 gives 32 bytes")
}
