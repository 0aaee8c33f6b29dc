//! A TPM in software, for evidence that no real one would make, and for more chips than there are emulators. Writes Part 2
//! structures with no code of the parser.
#![allow(missing_docs, reason = "for tests only; the names are those of TPM 2.0 Part 2")]
#![allow(clippy::new_without_default, reason = "a chip is made, with fresh keys")]

mod activation;
mod boot_log;
mod ima_list;
mod keys;
mod marshal;
mod node;

use ironroot_attest::node::tpm2::{Challenge, Evidence, PcrHash};

pub use boot_log::{BootLog, efi_variable, kind, vendor};
pub use ima_list::ImaList;
pub use keys::{Decryptor, SigningKey};
pub use marshal::{AttestFields, PublicFields, Unique, certify_info, name, qualified_name, quote_info};
pub use node::SoftwareNode;

pub const FIXED_TPM: u32 = 0x2;
pub const FIXED_PARENT: u32 = 0x10;
pub const SENSITIVE_DATA_ORIGIN: u32 = 0x20;
pub const USER_WITH_AUTH: u32 = 0x40;
pub const NO_DA: u32 = 0x400;
pub const RESTRICTED: u32 = 0x1_0000;
pub const DECRYPT: u32 = 0x2_0000;
pub const SIGN: u32 = 0x4_0000;

/// Template L-1 and L-2.
pub const EK_ATTRIBUTES: u32 = 0x0003_00b2;
pub const AK_ATTRIBUTES: u32 =
    FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | NO_DA | RESTRICTED | SIGN;
pub const LEAF_ATTRIBUTES: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | NO_DA | SIGN;

pub const SHA1: u16 = 0x0004;
pub const SHA256: u16 = 0x000b;
pub const SHA384: u16 = 0x000c;
pub const RSASSA: u16 = 0x0014;
pub const ECDSA: u16 = 0x0018;
pub const CERTIFY: u16 = 0x8017;
pub const QUOTE: u16 = 0x8018;
pub const ENDORSEMENT: u32 = 0x4000_000b;
pub const OWNER: u32 = 0x4000_0001;

/// PCR values: `PCR[n]` is 32 times n + 1.
pub fn pcr_value(index: u8) -> [u8; 32] {
    [index + 1; 32]
}

/// One chip: its keys, and the public areas it shows for them.
pub struct SoftwareTpm {
    pub ek: Decryptor,
    pub ek_public: PublicFields,
    pub ak: SigningKey,
    pub ak_public: PublicFields,
    pub leaf: SigningKey,
    pub leaf_public: PublicFields,
    /// PCRs 0 to 23 of the SHA-256 bank.
    pub pcrs: Vec<[u8; 32]>,
    /// What it says was booted.
    pub event_log: Option<Vec<u8>>,
    /// What it says was measured since.
    pub ima_list: Option<Vec<u8>>,
}

impl SoftwareTpm {
    /// EK, AK and leaf on P-256, as our agent makes them.
    pub fn new() -> Self {
        Self::with(Decryptor::p256(), SigningKey::p256())
    }

    pub fn with(ek: Decryptor, ak: SigningKey) -> Self {
        let leaf = SigningKey::p256();
        let ek_hash = if ek.is_p384() { SHA384 } else { SHA256 };
        Self {
            ek_public: PublicFields::storage(ek.unique(), ek_hash, EK_ATTRIBUTES),
            ak_public: PublicFields::signing(&ak, AK_ATTRIBUTES),
            leaf_public: PublicFields::signing(&leaf, LEAF_ATTRIBUTES),
            ek,
            ak,
            leaf,
            pcrs: (0..24).map(pcr_value).collect(),
            event_log: None,
            ima_list: None,
        }
    }

    pub fn evidence(&self) -> Evidence {
        Evidence {
            ek_certificates: Vec::new(),
            ek_public: self.ek_public.marshal(),
            ak_public: self.ak_public.marshal(),
            boot_id: "5b2a6c0e-11aa-4a57-8d5b-0d6f5d2a9c11".into(),
            pcr_banks: vec![PcrHash::Sha256],
            event_log: self.event_log.is_some(),
            ima_log: self.ima_list.is_some(),
        }
    }

    /// The registers and the log of that boot.
    pub fn boot(&mut self, log: &BootLog) {
        (self.pcrs, self.event_log) = (log.pcrs().to_vec(), Some(log.bytes().to_vec()));
    }

    /// The list of measured files, and its register.
    pub fn measured(&mut self, list: &ImaList) {
        self.pcrs[10] = list.register();
        self.ima_list = Some(list.bytes().to_vec());
    }

    /// TPM2_ActivateCredential for the AK; `None` is TPM_RC_INTEGRITY.
    pub fn activate(&self, challenge: &Challenge) -> Option<Vec<u8>> {
        self.ek.activate(&self.ek_public, &name(&self.ak_public), &challenge.credential, &challenge.secret)
    }

    /// What TPM2_Quote fills in, for the PCRs of `mask`.
    pub fn quote(&self, extra_data: &[u8], mask: u32) -> AttestFields {
        let values: Vec<u8> = (0..24).filter(|n| mask >> n & 1 == 1).flat_map(|n: usize| self.pcrs[n]).collect();
        let digest = marshal::digest(self.ak.hash(), &values);
        AttestFields::new(
            QUOTE,
            self.qualified_ak(ENDORSEMENT),
            extra_data,
            marshal::quote_info(&[(SHA256, mask)], &digest),
        )
    }

    /// What TPM2_Certify fills in, for the object with these public fields.
    pub fn certify(&self, extra_data: &[u8], object: &PublicFields) -> AttestFields {
        let info = marshal::certify_info(&name(object));
        AttestFields::new(CERTIFY, self.qualified_ak(ENDORSEMENT), extra_data, info)
    }

    /// Qualified name of the AK as a child of the EK in the given hierarchy.
    pub fn qualified_ak(&self, hierarchy: u32) -> Vec<u8> {
        let ek = qualified_name(&hierarchy.to_be_bytes(), &self.ek_public);
        qualified_name(&ek, &self.ak_public)
    }
}
