//! What the device claims to be, parsed and bounded; then what of it certificates and the attestation key vouch for.

use super::certificate::DevIdCertificate;
use super::messages::Evidence;
use super::refusal::TpmDevIdRefusal;
use super::verified::Verified;
use crate::authorities::Authorities;
use crate::ek_certificate::{EkCertificate, ManufacturerRoots, ek_sha256};
use crate::node::device_certificate::issuers;
use crate::node::tpm_keys::{attestation_key, endorsement_key};
use crate::node::{Part, Refusal};
use crate::structures::{Attest, Attested, Attributes, Hash, Public, Signature};

/// The device's first message. The keys are plausible and have the attributes that they must have, both certificates are for
/// them; nothing was verified, and no asymmetric operation done.
#[derive(Clone, Debug)]
pub struct Claim {
    certificate: DevIdCertificate,
    /// The DevID certificate, then intermediates, DER.
    chain: Vec<Vec<u8>>,
    devid: Public,
    ek: Public,
    ek_certificate: EkCertificate,
    ak: Public,
    certify: Vec<u8>,
    certify_signature: Vec<u8>,
}

impl Claim {
    /// Parses the first message and refuses what could not be what it is said to be.
    pub fn parse(payload: &[u8]) -> Result<Self, TpmDevIdRefusal> {
        let evidence = Evidence::from_json(payload)?;
        let ek = endorsement_key(&evidence.ek_public)?;
        let ek_certificate = EkCertificate::parse(&evidence.ek_certificate.ok_or(Refusal::NoEkCertificate)?)?;
        if ek_certificate.key() != ek.key() {
            return Err(Refusal::EkCertificateOfAnotherKey.into());
        }
        let ak = attestation_key(&evidence.ak_public)?;
        let devid = devid_key(&evidence.devid_public)?;
        let certificate = DevIdCertificate::parse(&evidence.devid_certificates[0])?;
        //= TPM-12 TCG TPM 2.0 Keys for Device Identity: "DevID certificate of another key than the certified one: the two are compared"
        if certificate.key != *devid.key() {
            return Err(TpmDevIdRefusal::CertificateOfAnotherKey);
        }
        Ok(Self {
            certificate,
            chain: evidence.devid_certificates,
            devid,
            ek,
            ek_certificate,
            ak,
            certify: evidence.certify,
            certify_signature: evidence.certify_signature,
        })
    }

    /// SHA-256 of the endorsement key's DER SubjectPublicKeyInfo: look here for bans before going on.
    pub fn ek_sha256(&self) -> [u8; 32] {
        ek_sha256(self.ek.key())
    }

    /// SHA-256 of what the authority has signed of the DevID certificate, as [`AttestedDevId`](super::AttestedDevId) calls it.
    pub fn certificate_sha256(&self) -> [u8; 32] {
        self.certificate.signed_sha256
    }

    /// Verifies both chains and the attestation key's word. `authorities`: who issues DevID certificates; `makers`: whose chips are
    /// believed; `now_unix`: UNIX seconds.
    pub fn verify(
        self,
        authorities: &Authorities,
        makers: &ManufacturerRoots,
        now_unix: i64,
    ) -> Result<Verified, TpmDevIdRefusal> {
        let (leaf, intermediates) = self.chain.split_first().ok_or(TpmDevIdRefusal::NoCertificate)?;
        let issuers = issuers(leaf, intermediates, authorities, now_unix).map_err(TpmDevIdRefusal::Untrusted)?;
        self.ek_certificate.verify(&[], makers, now_unix)?;
        self.check_certify()?;
        let ek_sha256 = self.ek_sha256();
        Ok(Verified { certificate: self.certificate, issuers, ek_sha256, ek: self.ek, ak: self.ak })
    }

    /// The attestation key signed, with its own scheme, that the DevID key is loaded beside it.
    fn check_certify(&self) -> Result<(), Refusal> {
        let of_structure = |error| Refusal::of_structure(Part::Certify, error);
        let signature = Signature::parse(&self.certify_signature).map_err(of_structure)?;
        if Some(signature.scheme()) != self.ak.scheme() {
            return Err(Refusal::SignatureAlgorithm(Part::Certify));
        }
        if !signature.is_by(self.ak.key(), &self.certify) {
            return Err(Refusal::Signature(Part::Certify));
        }
        match Attest::parse(&self.certify).map_err(of_structure)?.attested() {
            Attested::Certify { name } if name == self.devid.name() => Ok(()),
            Attested::Certify { .. } => Err(Refusal::CertifiedAnotherKey),
            _ => Err(Refusal::AttestationKind(Part::Certify)),
        }
    }
}

/// A signing key made in a chip and fixed to it, that signs with SHA-256 if it is bound to a hash.
fn devid_key(public: &[u8]) -> Result<Public, TpmDevIdRefusal> {
    let devid = Public::parse(public).map_err(|error| Refusal::of_public(Part::CertifiedKey, error))?;
    let attributes = devid.attributes();
    let forbidden = Attributes::DECRYPT | Attributes::ENCRYPTED_DUPLICATION | Attributes::X509_SIGN;
    if !attributes.are(Attributes::RESIDENT | Attributes::SIGN, forbidden) {
        return Err(TpmDevIdRefusal::NotADevIdKey { attributes: attributes.bits() });
    }
    if devid.scheme().is_some_and(|scheme| scheme.hash() != Hash::Sha256) {
        return Err(TpmDevIdRefusal::OtherHash);
    }
    Ok(devid)
}
