//! A log that leads to the quoted registers.

use super::replay::Registers;
use super::{Event, EventLog, EventLogError, SecureBoot, SecureBootError, boot_services, told};
use crate::node::tpm2::PcrHash;

/// Registers that firmware alone extends: what the log says of them must be the whole truth. The others go on being extended
/// while the system runs (by IMA, by systemd), and a log that ends before says nothing of them.
const OF_FIRMWARE: std::ops::RangeInclusive<u8> = 0..=7;

/// A log whose replay gives what the chip quoted. Made by [`EventLog::verify`] alone.
///
/// ```compile_fail
/// # fn forge(log: ironroot_attest::event_log::EventLog) -> ironroot_attest::event_log::VerifiedLog {
/// ironroot_attest::event_log::VerifiedLog { log, bank: Default::default(), proven: !0 }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct VerifiedLog {
    log: EventLog,
    bank: PcrHash,
    /// Bit n: PCR n was quoted, and the log leads to its value.
    proven: u32,
}

impl EventLog {
    /// Compares the log with the registers that a chip quoted from `bank`: index and value.
    ///
    /// A log that leads to another value of PCRs 0 to 7 is refused. Of the others it proves those that it leads to.
    pub fn verify(self, bank: PcrHash, quoted: &[(u8, Vec<u8>)]) -> Result<VerifiedLog, EventLogError> {
        let registers = Registers::of(&self, bank)?;
        let mut proven = 0;
        for (pcr, value) in quoted {
            let is_reached = registers.value(*pcr) == value
                || *pcr == boot_services::PCR && boot_services::are_all_that_is_missing(&registers, bank, value);
            if is_reached {
                proven |= 1 << pcr;
            } else if OF_FIRMWARE.contains(pcr) {
                return Err(EventLogError::Differs { pcr: *pcr });
            }
        }
        Ok(VerifiedLog { log: self, bank, proven })
    }
}

impl VerifiedLog {
    /// Whether the log is proven for that register.
    pub fn proves(&self, pcr: u8) -> bool {
        pcr < 32 && self.proven >> pcr & 1 == 1
    }

    /// Whether Secure Boot was on and with which keys, by the events of PCR 7.
    pub fn secure_boot(&self) -> Result<SecureBoot, SecureBootError> {
        if !self.proves(7) {
            return Err(SecureBootError::NotQuoted);
        }
        SecureBoot::read(self.of(7), self.bank)
    }

    /// The kernel's command line, as the log tells it: for people, not for decisions (see `told`).
    pub fn command_line(&self) -> Option<String> {
        [8, 12].into_iter().filter(|pcr| self.proves(*pcr)).find_map(|pcr| told::command_line(self.of(pcr), self.bank))
    }

    /// The measured events of one register, in order.
    fn of(&self, pcr: u8) -> impl Iterator<Item = &Event> + Clone {
        self.log.events.iter().filter(move |event| event.is_measured() && event.pcr == u32::from(pcr))
    }
}
