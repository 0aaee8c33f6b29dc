//! `NodeAttestor "tpm2"`.

use std::path::PathBuf;

use ironroot_attest::ek_certificate::ManufacturerRoots;
use ironroot_attest::node::tpm2::{EventLogPolicy, PcrHash, PcrSelection};
use ironroot_attest::weak_chips::{Weakness, WeaknessList};
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;
use tracing::warn;

use super::super::{ManufacturerFileError, read_manufacturer_roots};
use super::told_of_ended;
use crate::devices::AdmissionPolicy;
use crate::node_attestation::{Attestor, BootPolicy, Tpm2Policy, WeakFirmware};

/// PCRs quoted unless the file says otherwise: firmware, option ROMs, boot loader, secure boot.
const DEFAULT_PCRS: [u8; 4] = [0, 2, 4, 7];

/// What a device has to prove with its TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tpm2Config {
    /// Who says that an endorsement key belongs to a device of ours.
    pub admission: Admission,
    /// The PCRs every device quotes.
    pub pcrs: PcrSelection,
    /// The banks they may be quoted from, the one preferred first.
    pub pcr_banks: Vec<PcrHash>,
    /// What is wanted of the log of what a device has booted.
    pub event_log: EventLogPolicy,
    /// What is wanted of the list of files that it has measured since (IMA).
    pub ima_log: EventLogPolicy,
    /// Whether what it has booted must meet a policy.
    pub boot_policy: BootPolicy,
    /// What becomes of chips with known faults.
    pub weak_firmware: WeakFirmware,
    /// The faults that are known: the shipped list, and the file's.
    pub known_weaknesses: WeaknessList,
    /// Whether the agent's key must have been made in the TPM.
    pub require_resident_key: bool,
}

/// Whose TPMs may attest; manufacturers as PEM files, at least one.
pub type Admission = AdmissionPolicy<Vec<PathBuf>>;

impl Tpm2Config {
    pub(super) fn load(&self, now_unix: i64) -> Result<Attestor, ManufacturerFileError> {
        let admission = match &self.admission {
            Admission::Enrolled => AdmissionPolicy::Enrolled,
            Admission::Approval => AdmissionPolicy::Approval,
            Admission::Manufacturer(paths) => AdmissionPolicy::Manufacturer(manufacturer_roots(paths, now_unix)?),
        };
        Ok(Attestor::Tpm2(Box::new(Tpm2Policy {
            admission,
            pcrs: self.pcrs,
            pcr_banks: self.pcr_banks.clone(),
            event_log: self.event_log,
            ima_log: self.ima_log,
            boot_policy: self.boot_policy,
            weak_firmware: self.weak_firmware,
            known_weaknesses: self.known_weaknesses.clone(),
            require_resident_key: self.require_resident_key,
        })))
    }
}

fn manufacturer_roots(paths: &[PathBuf], now_unix: i64) -> Result<ManufacturerRoots, ManufacturerFileError> {
    let mut all = ManufacturerRoots::default();
    for path in paths {
        let roots = read_manufacturer_roots(path)?;
        told_of_ended(path, &roots.ended(now_unix)).inspect(|told| warn!("{told}"));
        all = all.and(roots);
    }
    Ok(all)
}

/// What `NodeAttestor "tpm2"` is told.
pub(super) fn read(data: &Section<'_>) -> Option<Tpm2Config> {
    let pcrs = data.parsed_list("pcrs", str::parse::<u8>).unwrap_or_else(|| DEFAULT_PCRS.to_vec());
    let pcrs = PcrSelection::from_indices(pcrs).map_err(|error| data.mistake("pcrs", error.to_string())).ok();
    let pcr_banks = data.parsed_list("pcr_banks", str::parse::<PcrHash>).unwrap_or_else(|| vec![PcrHash::default()]);
    if pcr_banks.is_empty() {
        data.mistake("pcr_banks", "name at least one bank, such as \"sha256\"");
    }
    if pcr_banks.contains(&PcrHash::Sha1) {
        data.warn(
            "pcr_banks",
            "sha1 is broken for collisions: whoever writes a device's firmware can make two that measure alike",
        );
    }
    let event_log = data.parsed("event_log", str::parse::<EventLogPolicy>).unwrap_or_default();
    if event_log == EventLogPolicy::Required && pcrs.is_some_and(PcrSelection::is_empty) {
        data.mistake(
            "event_log",
            "required, but no PCR is quoted that a log could be compared with: name some in pcrs",
        );
    }
    let ima_log = data.parsed("ima_log", str::parse::<EventLogPolicy>).unwrap_or(EventLogPolicy::Ignored);
    let boot_policy = data.parsed("boot_policy", str::parse::<BootPolicy>).unwrap_or_default();
    let asks_nothing = pcrs.is_some_and(PcrSelection::is_empty) && ima_log == EventLogPolicy::Ignored;
    if boot_policy == BootPolicy::Enforce && asks_nothing {
        data.mistake("boot_policy", "enforce, but no PCR is quoted that a policy could ask for: name some in pcrs");
    }
    let weak_firmware = data.parsed("weak_firmware", str::parse::<WeakFirmware>).unwrap_or_default();
    let own = data.parsed_list("weak_firmware_also", str::parse::<Weakness>).unwrap_or_default();
    let known_weaknesses = WeaknessList::with(own);
    let require_resident_key = data.boolean("require_resident_key").unwrap_or(true);
    let admission = read_admission(data);
    data.finish();
    Some(Tpm2Config {
        admission: admission?,
        pcrs: pcrs?,
        pcr_banks,
        event_log,
        ima_log,
        boot_policy,
        weak_firmware,
        known_weaknesses,
        require_resident_key,
    })
}

fn read_admission(data: &Section<'_>) -> Option<Admission> {
    let mut ca_paths: Vec<PathBuf> = data.path("manufacturer_ca_path").into_iter().collect();
    ca_paths.extend(data.strings("manufacturer_ca_paths").unwrap_or_default().into_iter().map(PathBuf::from));
    let known = |text: &str| match text {
        "enrolled" | "manufacturer" | "approval" => Ok(text.to_owned()),
        _ => Err("use enrolled (devices in the registry), manufacturer (their EK certificate) or approval (by hand)"),
    };
    let mode = data.parsed("admission", known);
    if mode.is_none() && data.string("admission").is_some() {
        return None;
    }
    match mode.as_deref() {
        Some("manufacturer") if ca_paths.is_empty() => {
            data.mistake(
                "manufacturer_ca_path",
                "missing: admission \"manufacturer\" needs the PEM file of the TPM makers' CAs",
            );
            None
        }
        Some("manufacturer") => {
            let key = if data.has("manufacturer_ca_path") { "manufacturer_ca_path" } else { "manufacturer_ca_paths" };
            for path in &ca_paths {
                data.look(key, || {
                    let roots = read_manufacturer_roots(path).map_err(|error| describe(&error))?;
                    told_of_ended(path, &roots.ended(wall_unix())).inspect(|told| data.warn(key, told.as_str()));
                    Ok(())
                });
            }
            Some(Admission::Manufacturer(ca_paths))
        }
        mode => {
            if !ca_paths.is_empty() {
                data.warn("admission", "the manufacturers' CAs are only used with admission = \"manufacturer\"");
            }
            Some(if mode == Some("approval") { Admission::Approval } else { Admission::Enrolled })
        }
    }
}
