//! A DevID that certificates and the chip's attestation key vouch for.

use super::certificate::DevIdCertificate;
use crate::authorities::Fingerprint;
use crate::structures::Public;

/// A claim whose certificates lead to authorities and whose attestation key says that the DevID key is beside it. Whether the
/// device has them is what the challenge finds out.
#[derive(Clone, Debug)]
pub struct Verified {
    pub(super) certificate: DevIdCertificate,
    /// Every certificate above it, on any path, in no order.
    pub(super) issuers: Vec<Fingerprint>,
    pub(super) ek_sha256: [u8; 32],
    pub(super) ek: Public,
    pub(super) ak: Public,
}
