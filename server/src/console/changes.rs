//! What can be changed: a device is approved, or banned, by its name.

use ironroot_api::pb::device::DeviceRecord;

use super::asked::{Server, Unanswered};
use super::door::{Refused, Writer};
use super::fleet::{NAME_DIGITS, name};

/// What becomes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It may attest.
    Approve,
    /// It may not, and the agents that attested with it are shut out.
    Ban,
}

/// A device whose name was typed by whoever changes it.
#[derive(Debug)]
pub struct Confirmed {
    ek_sha256: String,
}

impl Confirmed {
    /// `typed` must be the device's name as its page shows it, or at least as many digits of its hash.
    pub fn new(device: &DeviceRecord, typed: &str) -> Result<Self, Refused> {
        let typed = typed.trim();
        let is_hash = typed.len() >= NAME_DIGITS && device.ek_sha256.starts_with(&typed.to_ascii_lowercase());
        match typed == name(&device.serial, &device.ek_sha256) || is_hash {
            true => Ok(Self { ek_sha256: device.ek_sha256.clone() }),
            false => Err(Refused::Unconfirmed),
        }
    }
}

impl Change {
    /// What it is called in addresses.
    pub fn word(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Ban => "ban",
        }
    }

    /// Has the server do it.
    pub async fn make(self, server: &Server, _by: Writer, device: Confirmed) -> Result<DeviceRecord, Unanswered> {
        match self {
            Self::Approve => server.approve(&device.ek_sha256).await,
            Self::Ban => server.ban(&device.ek_sha256).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_changed_only_if_its_own_name_was_typed() {
        let hash = "5f1c2aff".repeat(8);
        let device =
            |serial: &str| DeviceRecord { ek_sha256: hash.clone(), serial: serial.into(), ..Default::default() };
        for (serial, typed, confirmed) in [
            ("SN-1", "SN-1", true),
            ("SN-1", " SN-1 ", true),
            ("SN-1", "5F1C2AFF5F1C", true),
            ("SN-1", "5f1c2aff5f1", false),
            ("SN-1", "sn-1", false),
            ("SN-1", "SN-2", false),
            ("SN-1", "", false),
            ("", "", false),
            ("", "5f1c2aff5f1c", true),
        ] {
            let outcome = Confirmed::new(&device(serial), typed);
            assert_eq!(outcome.err(), (!confirmed).then_some(Refused::Unconfirmed), "{serial} {typed}");
        }
    }
}
