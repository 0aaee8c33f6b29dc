//! A toy TPM maker: certifies endorsement keys and writes the certificates into the chip.

pub(crate) mod certificates;
mod nv;

use std::error::Error;

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_attest::structures::{Curve, PublicKey};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tss_esapi::Context;
use tss_esapi::abstraction::AsymmetricAlgorithmSelection;
use tss_esapi::abstraction::ek::create_ek_public_from_default_template_2;
use tss_esapi::handles::PersistentTpmHandle;
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::Public;

use crate::swtpm::Swtpm;

pub use certificates::EkProfile;
pub use nv::Readers;

/// NV index of the RSA-2048 EK certificate (EK Credential Profile §2.2.1.4).
pub const RSA_CERTIFICATE_INDEX: u32 = 0x01c0_0002;
/// NV index of the P-256 EK certificate.
pub const P256_CERTIFICATE_INDEX: u32 = 0x01c0_000a;
/// NV index of the P-384 EK certificate (§2.2.1.5).
pub const P384_CERTIFICATE_INDEX: u32 = 0x01c0_0016;
/// First NV index for certificates of CAs on the chip (§2.2.1.5.2).
pub const CHAIN_INDEX: u32 = 0x01c0_0100;

/// Whatever goes wrong in the lab ends a test.
pub type LabResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Which of a chip's endorsement keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EkKind {
    /// Template L-2.
    P256,
    /// Template L-1.
    Rsa2048,
    /// Template H-3.
    P384,
}

/// A TPM vendor with a root CA and an issuing CA.
#[derive(Debug)]
pub struct Manufacturer {
    root: CertifiedIssuer<'static, KeyPair>,
    issuing: CertifiedIssuer<'static, KeyPair>,
}

impl Manufacturer {
    /// `name` goes into the CAs' common names.
    pub fn new(name: &str) -> LabResult<Self> {
        let root = certificates::root(name)?;
        let issuing = certificates::issuing(name, &root)?;
        Ok(Self { root, issuing })
    }

    /// What a server trusts: the root CA's certificate, PEM.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// Both, for servers that take no certificates of CAs from a chip (SPIRE's `tpm_devid`).
    pub fn authorities_pem(&self) -> String {
        self.root.pem() + &self.issuing.pem()
    }

    /// The issuing CA's certificate, DER. It is in every chip that this maker certified.
    pub fn issuing_der(&self) -> Vec<u8> {
        self.issuing.der().to_vec()
    }

    /// Certifies the chip's P-256 EK and writes certificate and issuing CA into its NV. Returns the EK certificate, DER.
    pub fn certify(&self, chip: &Swtpm) -> LabResult<Vec<u8>> {
        self.certify_as(chip, EkKind::P256, &EkProfile::default())
    }

    /// As [`certify`](Manufacturer::certify), for the RSA-2048 EK.
    pub fn certify_rsa(&self, chip: &Swtpm) -> LabResult<Vec<u8>> {
        self.certify_as(chip, EkKind::Rsa2048, &EkProfile::default())
    }

    /// As [`certify`](Manufacturer::certify), with a model of one's own.
    pub fn certify_as(&self, chip: &Swtpm, kind: EkKind, profile: &EkProfile) -> LabResult<Vec<u8>> {
        let certificate = self.issue(&ek_public_key(chip, kind)?, profile)?;
        let index = match kind {
            EkKind::P256 => P256_CERTIFICATE_INDEX,
            EkKind::Rsa2048 => RSA_CERTIFICATE_INDEX,
            EkKind::P384 => P384_CERTIFICATE_INDEX,
        };
        let mut esys = chip.esys()?;
        nv::write(&mut esys, index, &certificate)?;
        nv::write(&mut esys, CHAIN_INDEX, &self.issuing_der())?;
        Ok(certificate)
    }

    /// An EK certificate for any public key, DER; nothing is written.
    pub fn issue(&self, key: &PublicKey, profile: &EkProfile) -> LabResult<Vec<u8>> {
        certificates::endorsement_key(key, profile, &self.issuing)
    }

    /// A certificate with any contents from the issuing CA, DER: for what a careless maker might sign.
    pub fn issue_raw(&self, key: &PublicKey, params: &CertificateParams) -> LabResult<Vec<u8>> {
        certificates::raw(key, params, &self.issuing)
    }
}

/// SHA-256 of the DER SubjectPublicKeyInfo of the chip's P-256 EK: how it is enrolled.
pub fn ek_sha256(chip: &Swtpm) -> LabResult<[u8; 32]> {
    ek_sha256_of(chip, EkKind::P256)
}

/// As [`ek_sha256`], of any of its EKs.
pub fn ek_sha256_of(chip: &Swtpm, kind: EkKind) -> LabResult<[u8; 32]> {
    let spki = ek_public_key(chip, kind)?.to_spki_der();
    Ok(digest(&SHA256, &spki).as_ref().try_into()?)
}

/// Writes anything into an NV index, as anybody with the platform's authorization can.
pub fn write_index(chip: &Swtpm, index: u32, content: &[u8]) -> LabResult<()> {
    nv::write(&mut chip.esys()?, index, content)
}

/// Defines an index anew for these readers and writes nothing into it, or `content`.
pub fn define_index(chip: &Swtpm, index: u32, readers: Readers, content: Option<&[u8]>) -> LabResult<()> {
    nv::define(&mut chip.esys()?, index, readers, content)
}

/// Makes a primary key from the template of `kind` persistent at `handle`, as swtpm_setup and other systems do.
pub fn persist_ek(chip: &Swtpm, kind: EkKind, handle: u32) -> LabResult<()> {
    persist(&mut chip.esys()?, Hierarchy::Endorsement, template(kind)?, handle)
}

/// Makes a primary key persistent.
pub fn persist(esys: &mut Context, hierarchy: Hierarchy, template: Public, handle: u32) -> LabResult<()> {
    let handle = PersistentTpmHandle::new(handle)?;
    let made = esys.execute_with_session(Some(AuthSession::Password), |esys| {
        esys.create_primary(hierarchy, template, None, None, None, None)
    })?;
    let mut kept = esys.execute_with_session(Some(AuthSession::Password), |esys| {
        esys.evict_control(Provision::Owner, made.key_handle.into(), Persistent::Persistent(handle))
    })?;
    esys.flush_context(made.key_handle.into())?;
    esys.tr_close(&mut kept)?;
    Ok(())
}

fn template(kind: EkKind) -> LabResult<Public> {
    let algorithm = match kind {
        EkKind::P256 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256),
        EkKind::P384 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP384),
        EkKind::Rsa2048 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
    };
    Ok(create_ek_public_from_default_template_2(algorithm, None)?)
}

/// The chip's endorsement key, computed by the chip.
pub fn ek_public_key(chip: &Swtpm, kind: EkKind) -> LabResult<PublicKey> {
    let curve = if kind == EkKind::P384 { Curve::P384 } else { Curve::P256 };
    match create_primary(&mut chip.esys()?, template(kind)?)? {
        Public::Ecc { unique, .. } => Ok(PublicKey::ecc(curve, unique.x().value(), unique.y().value())?),
        Public::Rsa { unique, .. } => Ok(PublicKey::rsa(unique.value())?),
        _ => Err("an EK is RSA or ECC".into()),
    }
}

fn create_primary(esys: &mut Context, template: Public) -> LabResult<Public> {
    let made = esys.execute_with_session(Some(AuthSession::Password), |esys| {
        esys.create_primary(Hierarchy::Endorsement, template, None, None, None, None)
    })?;
    esys.flush_context(made.key_handle.into())?;
    Ok(made.out_public)
}
