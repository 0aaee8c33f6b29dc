//! What the device claims to be, parsed and bounded; then who vouches for its endorsement key.

use ironroot_text::hex::hex;
use rustls_pki_types::pem::{PemObject, SectionKind};

use super::messages::{Challenge, Evidence};
use super::pending::Pending;
use super::refusal::TpmRefusal;
use crate::ek_certificate::{EkCertificate, EkCertificateError, ManufacturerRoots, ek_sha256};
use crate::node::tpm_keys::attestation_key;
use crate::node::{Part, Refusal};
use crate::structures::{Attest, Attested, Public, PublicKey, Signature, make_credential_by_template, sized};

/// The device's first message. The keys are plausible, the certificate, if one can be read, is for this endorsement key, and
/// the attestation key was made as it should be if its signature holds; no asymmetric operation was done.
#[derive(Clone, Debug)]
pub struct Claim {
    ek: PublicKey,
    /// One that does not parse keeps nobody out who is known by the key.
    certificate: Option<Result<EkCertificate, EkCertificateError>>,
    ak: Public,
    creation: Vec<u8>,
    creation_signature: Signature,
}

/// Who vouches for an endorsement key.
#[derive(Clone, Copy, Debug)]
pub enum Admission<'a> {
    /// Its hash is in a list of ours.
    Known,
    /// Its certificate, if it leads to one of these.
    Manufacturer {
        /// The makers' CAs.
        roots: &'a ManufacturerRoots,
        /// UNIX seconds.
        now_unix: i64,
    },
}

/// An endorsement key that somebody vouches for, and an attestation key that a TPM made. Whether the device has them is what the
/// challenge finds out.
#[derive(Clone, Debug)]
pub struct AdmittedEk {
    pub(super) ek_sha256: [u8; 32],
    ek: PublicKey,
    ak: Public,
}

impl Claim {
    /// Parses the first message and refuses what could not be what it is said to be.
    pub fn parse(payload: &[u8]) -> Result<Self, TpmRefusal> {
        let evidence = Evidence::from_json(payload)?;
        if evidence.as_tpm12 {
            return Err(TpmRefusal::Tpm12);
        }
        let (ek, certificate) = parse_ek(&evidence.ek_pem)?;
        let ak = attestation_key(&evidence.ak_public)?;
        check_creation(&ak, &evidence)?;
        let creation_signature = Signature::parse(&evidence.creation_signature);
        let creation_signature = creation_signature.map_err(|error| Refusal::of_structure(Part::Creation, error))?;
        Ok(Self { ek, certificate, ak, creation: evidence.creation, creation_signature })
    }

    /// SHA-256 of the endorsement key's DER SubjectPublicKeyInfo: look here for bans and in lists before going on.
    pub fn ek_sha256(&self) -> [u8; 32] {
        ek_sha256(&self.ek)
    }

    /// Admits the endorsement key, or refuses it; then verifies that the attestation key says itself how it was made.
    pub fn admit(self, admission: Admission<'_>) -> Result<AdmittedEk, TpmRefusal> {
        if let Admission::Manufacturer { roots, now_unix } = admission {
            self.check_certificate(roots, now_unix).map_err(|certificate| {
                let ek_sha256 = hex(&self.ek_sha256());
                TpmRefusal::Unknown { ek_sha256, certificate }
            })?;
        }
        if Some(self.creation_signature.scheme()) != self.ak.scheme() {
            return Err(Refusal::SignatureAlgorithm(Part::Creation).into());
        }
        if !self.creation_signature.is_by(self.ak.key(), &self.creation) {
            return Err(Refusal::Signature(Part::Creation).into());
        }
        Ok(AdmittedEk { ek_sha256: self.ek_sha256(), ek: self.ek, ak: self.ak })
    }

    /// The plugin's agents send no certificates of CAs. None: there is no certificate.
    fn check_certificate(&self, roots: &ManufacturerRoots, now_unix: i64) -> Result<(), Option<EkCertificateError>> {
        let certificate = self
            .certificate
            .as_ref()
            .ok_or(None::<EkCertificateError>)?
            .as_ref()
            .map_err(|error| Some(error.clone()))?;
        certificate.verify(&[], roots, now_unix).map(drop).map_err(Some)
    }
}

impl AdmittedEk {
    /// Wraps `secret`, fresh from a cryptographic random source and used once, for these two keys. `now_unix`: UNIX seconds.
    pub fn challenge(self, secret: [u8; 32], now_unix: i64) -> Result<(Pending, Challenge), TpmRefusal> {
        let credential = make_credential_by_template(&self.ek, self.ak.name(), &secret);
        let credential = credential.map_err(|_| Refusal::Credential)?;
        let challenge =
            Challenge { credential: sized(&credential.id_object), secret: sized(&credential.encrypted_secret) };
        Ok((Pending::new(self.ek_sha256, secret, now_unix), challenge))
    }
}

type ReadEk = (PublicKey, Option<Result<EkCertificate, EkCertificateError>>);

/// One or two sections; the certificate, if it can be read, must be for the key.
fn parse_ek(text: &[u8]) -> Result<ReadEk, TpmRefusal> {
    let (mut key, mut certificate) = (None, None);
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        let (kind, der) = section.map_err(|_| TpmRefusal::Pem)?;
        match kind {
            SectionKind::PublicKey if key.is_none() => key = Some(der),
            SectionKind::Certificate if certificate.is_none() => certificate = Some(EkCertificate::parse(&der)),
            _ => return Err(TpmRefusal::Pem),
        }
    }
    let key = PublicKey::from_spki_der(&key.ok_or(TpmRefusal::NoKey)?).map_err(TpmRefusal::Key)?;
    if matches!(&certificate, Some(Ok(certificate)) if *certificate.key() != key) {
        return Err(Refusal::EkCertificateOfAnotherKey.into());
    }
    Ok((key, certificate))
}

/// What is said of the attestation key's making is about this key, and about the data that came with it.
fn check_creation(ak: &Public, evidence: &Evidence) -> Result<(), TpmRefusal> {
    let attest = Attest::parse(&evidence.creation).map_err(|error| Refusal::of_structure(Part::Creation, error))?;
    let Attested::Creation { name, hash } = attest.attested() else {
        return Err(Refusal::AttestationKind(Part::Creation).into());
    };
    if name != ak.name() {
        return Err(Refusal::CertifiedAnotherKey.into());
    }
    match ak.name_hash().digest(&[&evidence.creation_data]).as_ref() == hash.as_slice() {
        true => Ok(()),
        false => Err(TpmRefusal::CreationData),
    }
}
