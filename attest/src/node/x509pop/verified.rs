//! A certificate that an authority of ours has issued; whether the device has its key is what the challenge finds out.

use std::net::IpAddr;

use der::Decode;
use x509_cert::Certificate;

use super::NONCE_BYTES;
use super::certificate::DeviceCertificate;
use super::messages::{Challenge, Evidence};
use super::pending::Pending;
use super::refusal::X509PopRefusal;
use super::size_limits::SizeLimits;
use crate::authorities::{Authorities, Fingerprint};
use crate::node::device_certificate::issuers;

/// A certificate with at least one path to an authority.
#[derive(Clone, Debug)]
pub struct Verified {
    certificate: DeviceCertificate,
    /// Every certificate above it, on any path, in no order.
    issuers: Vec<Fingerprint>,
}

impl Evidence {
    /// Looks for the paths from the device's certificate to `authorities` at `now_unix` (UNIX seconds). Nothing is computed with what is over `limits`.
    pub fn verify(
        &self,
        authorities: &Authorities,
        limits: &SizeLimits,
        now_unix: i64,
    ) -> Result<Verified, X509PopRefusal> {
        self.check_sizes(limits)?;
        let (leaf, intermediates) = self.certificates.split_first().ok_or(X509PopRefusal::NoCertificate)?;
        let issuers = issuers(leaf, intermediates, authorities, now_unix).map_err(X509PopRefusal::Untrusted)?;
        Ok(Verified { certificate: DeviceCertificate::parse(leaf)?, issuers })
    }

    fn check_sizes(&self, limits: &SizeLimits) -> Result<(), X509PopRefusal> {
        limits.check_number(self.certificates.len())?;
        for (place, der) in self.certificates.iter().enumerate() {
            let malformed = if place == 0 { X509PopRefusal::Malformed } else { X509PopRefusal::Intermediate(place) };
            limits.check_key(&Certificate::from_der(der).map_err(|_| malformed)?)?;
        }
        Ok(())
    }
}

impl Verified {
    /// Whether the certificate is for the machine at `address`, by its iPAddress names.
    pub fn is_for(&self, address: IpAddr) -> bool {
        self.certificate.alternative_names().ip_addresses.contains(&address.to_canonical())
    }

    /// Asks for the proof. `nonce`: fresh from a cryptographic random source, used once. `now_unix`: UNIX seconds.
    pub fn challenge(self, nonce: [u8; NONCE_BYTES], now_unix: i64) -> (Pending, Challenge) {
        let challenge = Challenge { family: self.certificate.key.family(), nonce };
        (Pending::new(self.certificate, self.issuers, challenge, now_unix), challenge)
    }
}
