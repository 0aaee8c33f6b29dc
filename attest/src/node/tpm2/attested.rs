//! A TPM that has proven itself: the only way to a node identity of this attestation type.

use ironroot_text::hex::hex;

use super::{ATTESTATION_TYPE, AdmittedEk, BootState, ClockReading, ImaState, PcrHash, Voucher};
use crate::ek_certificate::EkCertificate;
use crate::event_log::{SecureBoot, SecureBootVariable};
use crate::weak_chips::{Maker, has_roca_fingerprint};
use crate::{Selector, SelectorSet};

/// What an attestation proved. Made by [`Pending::complete`](super::Pending::complete) alone.
#[derive(Clone, Debug)]
pub struct AttestedTpm {
    ek_sha256: [u8; 32],
    voucher: Voucher,
    selectors: SelectorSet,
    clock: ClockReading,
    firmware_version: u64,
    maker: Maker,
    has_weak_key: bool,
    boot_id: String,
    boot: BootState,
    ima: ImaState,
    key_is_resident: bool,
}

/// What the quote and certify showed.
pub(super) struct Proven {
    pub clock: ClockReading,
    pub firmware_version: u64,
    pub boot: BootState,
    pub ima: ImaState,
    pub key_is_resident: bool,
}

impl AttestedTpm {
    /// SHA-256 of the endorsement key's DER SubjectPublicKeyInfo.
    pub fn ek_sha256(&self) -> [u8; 32] {
        self.ek_sha256
    }

    /// On whose word it was let prove itself.
    pub fn voucher(&self) -> Voucher {
        self.voucher
    }

    /// The facts that this attestation proved, type "tpm2".
    pub fn selectors(&self) -> &SelectorSet {
        &self.selectors
    }

    /// Clock and counters, to be kept for the next attestation.
    pub fn clock(&self) -> ClockReading {
        self.clock
    }

    /// The vendor's version of the running TPM firmware.
    pub fn firmware_version(&self) -> u64 {
        self.firmware_version
    }

    /// Who made the chip.
    pub fn maker(&self) -> &Maker {
        &self.maker
    }

    /// Whether the private half of its endorsement key can be computed: whoever did that speaks for the chip.
    pub fn has_weak_key(&self) -> bool {
        self.has_weak_key
    }

    /// The kernel's boot id, as the device claims it.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// What was booted, as far as the quote proves it.
    pub fn boot(&self) -> &BootState {
        &self.boot
    }

    /// What its list of measured files has to lead to.
    pub fn ima(&self) -> &ImaState {
        &self.ima
    }

    /// Whether the key of the certificate request lives in this TPM.
    pub fn key_is_resident(&self) -> bool {
        self.key_is_resident
    }

    /// Path of the agent's SPIFFE ID: `/spire/agent/tpm2/` and the SHA-256 of the endorsement key in hex.
    pub fn agent_path(&self) -> String {
        format!("/spire/agent/{ATTESTATION_TYPE}/{}", hex(&self.ek_sha256))
    }

    pub(super) fn new(admitted: AdmittedEk, proven: Proven) -> Self {
        Self {
            selectors: selectors(&admitted, &proven),
            ek_sha256: admitted.ek_sha256,
            voucher: admitted.voucher,
            clock: proven.clock,
            firmware_version: proven.firmware_version,
            has_weak_key: has_roca_fingerprint(admitted.ek.key()),
            maker: admitted.maker,
            boot_id: admitted.boot_id,
            boot: proven.boot,
            ima: proven.ima,
            key_is_resident: proven.key_is_resident,
        }
    }
}

fn selectors(admitted: &AdmittedEk, proven: &Proven) -> SelectorSet {
    let mut values =
        vec![format!("ek:sha256:{}", hex(&admitted.ek_sha256)), format!("fw:{:016x}", proven.firmware_version)];
    if proven.key_is_resident {
        values.push("key:resident".into());
    }
    let bank = proven.boot.bank;
    values.extend(proven.boot.pcrs.iter().map(|(index, value)| format!("pcr:{bank}:{index}:{}", hex(value))));
    values.extend(proven.boot.secure_boot().into_iter().flat_map(|state| secure_boot_values(state, bank)));
    values.extend(admitted.verified_certificate.iter().flat_map(certificate_values));
    // A certificate's text may hold what no selector holds, such as control characters: no entry could ask for it.
    values.iter().filter_map(|value| Selector::new(ATTESTATION_TYPE, value).ok()).collect()
}

/// Whether Secure Boot was on, and the digests of its keys and lists as they were measured. A machine whose firmware was being
/// debugged has none of these.
fn secure_boot_values(state: &SecureBoot, bank: PcrHash) -> Vec<String> {
    let mut values = vec![format!("secureboot:{}", if state.enabled { "on" } else { "off" }), "debug:off".into()];
    let variable = |(variable, digest): &(SecureBootVariable, Vec<u8>)| {
        format!("secureboot:{}:{bank}:{}", variable.name().to_ascii_lowercase(), hex(digest))
    };
    values.extend(state.variables.iter().map(variable));
    values
}

fn certificate_values(certificate: &EkCertificate) -> Vec<String> {
    let mut values = Vec::new();
    if let Some(tpm) = certificate.tpm_model() {
        values.push(format!("manufacturer:{}", tpm.manufacturer));
        values.push(format!("model:{}", tpm.model));
    }
    values.extend(certificate.issuer_common_name().map(|name| format!("ek:issuer:cn:{name}")));
    values
}
