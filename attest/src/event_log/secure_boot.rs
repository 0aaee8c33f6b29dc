//! Secure Boot by the events of PCR 7 (PC Client Platform Firmware Profile §3.3.4.8).
//!
//! Strict, because types are not measured: every event must be one that firmware measures into PCR 7, with data that has the
//! digest, in the order that firmware has. What comes before the separator is firmware's alone: the system that it starts
//! can append events, and no more than that.

use thiserror::Error;

use super::Event;
use super::efi_variable::{EfiVariable, GLOBAL, IMAGE_SECURITY};
use super::kind;
use crate::node::tpm2::PcrHash;

/// The separator of a boot without error.
const SEPARATOR: [u8; 4] = [0; 4];
/// EFI_ACTION: a debugger could have changed anything.
const DEBUG_MODE: &[u8] = b"UEFI Debug Mode";
/// EFI_ACTION: devices could have changed memory.
const DMA_UNPROTECTED: &[u8] = b"DMA Protection Disabled";

/// What never vouches for a program.
const SETTINGS: [&str; 4] = ["SecureBoot", "PK", "KEK", "dbx"];

/// Why the events of PCR 7 do not tell whether Secure Boot was on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum SecureBootError {
    /// The server did not ask for it, or the device sent no log that leads to it.
    #[error("PCR 7 is not proven by a log")]
    NotQuoted,
    /// Firmware measures nothing of that type into PCR 7.
    #[error("event {event} in PCR 7 has type {kind:#x}, which does not belong there")]
    EventType { event: usize, kind: u32 },
    /// Its data is not what was measured.
    #[error("event {event} in PCR 7 has data of another digest")]
    Digest { event: usize },
    /// Its data is no variable, no separator, no known action.
    #[error("event {event} in PCR 7 is malformed")]
    Malformed { event: usize },
    /// A name that Secure Boot uses, of another vendor.
    #[error("event {event} in PCR 7 is a variable {name:?} of a foreign vendor")]
    Vendor { event: usize, name: String },
    /// Which of the two counts nobody can say.
    #[error("PCR 7 has the variable {0:?} twice")]
    VariableTwice(String),
    /// Firmware measures its settings before it starts anything.
    #[error("event {event} in PCR 7 is a setting behind the separator")]
    SettingBehindSeparator { event: usize },
    /// None, or several.
    #[error("PCR 7 has {0} separators where one is due")]
    Separators(usize),
    /// There is no Secure Boot variable: this firmware has none, or its log leaves it out.
    #[error("PCR 7 does not say whether Secure Boot is on")]
    NoVariable,
    /// Its value is neither on nor off.
    #[error("the variable SecureBoot is neither 0 nor 1")]
    Value,
    /// On, but without what it needs.
    #[error("Secure Boot is said to be on, but PCR 7 has no {0}")]
    Without(&'static str),
    /// Secure Boot says nothing of a machine that is being debugged.
    #[error("the firmware is in debug mode")]
    DebugMode,
}

/// A variable of Secure Boot whose measured state is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecureBootVariable {
    /// The platform key: whose machine it is.
    Pk,
    /// Who may change db and dbx.
    Kek,
    /// Whose programs are started.
    Db,
    /// Which are not started all the same.
    Dbx,
}

impl SecureBootVariable {
    /// All, in the order that firmware measures them.
    pub const ALL: [Self; 4] = [Self::Pk, Self::Kek, Self::Db, Self::Dbx];

    /// Its name in UEFI.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pk => "PK",
            Self::Kek => "KEK",
            Self::Db => "db",
            Self::Dbx => "dbx",
        }
    }

    fn vendor(self) -> &'static [u8; 16] {
        match self {
            Self::Pk | Self::Kek => &GLOBAL,
            Self::Db | Self::Dbx => &IMAGE_SECURITY,
        }
    }
}

/// What firmware measured of Secure Boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecureBoot {
    /// Whether firmware started only what its keys vouch for.
    pub enabled: bool,
    /// Digest of each variable as it was measured (UEFI_VARIABLE_DATA), in the quoted bank.
    pub variables: Vec<(SecureBootVariable, Vec<u8>)>,
    /// Whether firmware said that devices could write into memory. Silence proves nothing: older firmware does not say.
    pub dma_unprotected: bool,
}

impl SecureBoot {
    /// `events`: those measured into PCR 7, in order, of a log that leads to its value.
    pub(super) fn read<'a>(
        events: impl Iterator<Item = &'a Event> + Clone,
        bank: PcrHash,
    ) -> Result<Self, SecureBootError> {
        let separators = events.clone().filter(|event| event.kind == kind::SEPARATOR).count();
        //= TPM-32 TCG PC Client Platform Firmware Profile: "log without separator, or with a variable twice: refused"
        if separators != 1 {
            return Err(SecureBootError::Separators(separators));
        }
        let mut reading = Reading::default();
        for event in events {
            //= TPM-30 TCG PC Client Platform Firmware Profile: "event types are not measured and count for nothing"
            if !event.has_its_digest(bank) && !is_authority_by_shim(event, bank) {
                return Err(SecureBootError::Digest { event: event.place });
            }
            reading.take(event, bank)?;
        }
        reading.finish()
    }

    /// Digest of that variable, if it was measured.
    pub fn variable(&self, variable: SecureBootVariable) -> Option<&[u8]> {
        self.variables.iter().find(|(known, _)| *known == variable).map(|(_, digest)| &digest[..])
    }
}

/// Versions of shim measure an authority without the last byte of what they log. Source: go-attestation.
fn is_authority_by_shim(event: &Event, bank: PcrHash) -> bool {
    let measured = event.data.split_last().map(|(_, measured)| bank.digest(&[measured]));
    event.kind == kind::EFI_VARIABLE_AUTHORITY
        && measured.is_some_and(|digest| event.digest(bank) == Some(digest.as_ref()))
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    enabled: Option<bool>,
    names: Vec<String>,
    variables: Vec<(SecureBootVariable, Vec<u8>)>,
    is_separated: bool,
    has_authority: bool,
    dma_unprotected: bool,
}

impl Reading {
    fn take(&mut self, event: &Event, bank: PcrHash) -> Result<(), SecureBootError> {
        let malformed = SecureBootError::Malformed { event: event.place };
        match event.kind {
            kind::SEPARATOR if event.data == SEPARATOR => self.is_separated = true,
            kind::SEPARATOR => return Err(malformed),
            kind::EFI_VARIABLE_AUTHORITY => {
                let authority = EfiVariable::parse(&event.data).ok_or(malformed.clone())?;
                // A setting that is called an authority would be passed over.
                if SETTINGS.contains(&authority.name.as_str()) {
                    return Err(malformed);
                }
                self.has_authority = true;
            }
            kind::EFI_ACTION | kind::EFI_VARIABLE_DRIVER_CONFIG if self.is_separated => {
                return Err(SecureBootError::SettingBehindSeparator { event: event.place });
            }
            kind::EFI_ACTION if event.data.starts_with(DEBUG_MODE) => return Err(SecureBootError::DebugMode),
            kind::EFI_ACTION if event.data.starts_with(DMA_UNPROTECTED) => self.dma_unprotected = true,
            kind::EFI_ACTION => return Err(malformed),
            kind::EFI_VARIABLE_DRIVER_CONFIG => self.take_variable(event, bank)?,
            kind => return Err(SecureBootError::EventType { event: event.place, kind }),
        }
        Ok(())
    }

    fn take_variable(&mut self, event: &Event, bank: PcrHash) -> Result<(), SecureBootError> {
        let variable = EfiVariable::parse(&event.data).ok_or(SecureBootError::Malformed { event: event.place })?;
        if self.names.contains(&variable.name) {
            return Err(SecureBootError::VariableTwice(variable.name));
        }
        let known = SecureBootVariable::ALL.into_iter().find(|known| known.name() == variable.name);
        let vendor = match known {
            Some(known) => known.vendor(),
            None if variable.name == "SecureBoot" => &GLOBAL,
            // Such as AuditMode, dbt, OsRecoveryOrder: measured, and nothing that is asked for here.
            None => {
                self.names.push(variable.name);
                return Ok(());
            }
        };
        if variable.vendor != vendor {
            return Err(SecureBootError::Vendor { event: event.place, name: variable.name });
        }
        match known {
            Some(known) => self.variables.push((known, event.digest(bank).unwrap_or_default().to_vec())),
            None => {
                self.enabled = match variable.content {
                    [0] => Some(false),
                    [1] => Some(true),
                    _ => return Err(SecureBootError::Value),
                };
            }
        }
        self.names.push(variable.name);
        Ok(())
    }

    fn finish(self) -> Result<SecureBoot, SecureBootError> {
        let enabled = self.enabled.ok_or(SecureBootError::NoVariable)?;
        let has = |wanted| self.variables.iter().any(|(variable, _)| *variable == wanted);
        if enabled {
            use SecureBootVariable::{Db, Kek, Pk};
            if let Some(missing) = [Pk, Kek, Db].into_iter().find(|variable| !has(*variable)) {
                return Err(SecureBootError::Without(missing.name()));
            }
            if !self.has_authority {
                return Err(SecureBootError::Without("authority that vouched for what was started"));
            }
        }
        Ok(SecureBoot { enabled, variables: self.variables, dma_unprotected: self.dma_unprotected })
    }
}
