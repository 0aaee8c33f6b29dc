//! Extending the registers again.

use std::collections::BTreeMap;

use super::bounds::PCRS;
use super::event::Event;
use super::kind;
use super::{EventLog, EventLogError};
use crate::node::tpm2::{PcrHash, PcrSelection};

/// What tells the locality that the TPM was started from (§10.4.5.3): it is the last byte of PCR 0 before anything is extended.
const STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";
/// Localities that TPM2_Startup and the hardware's own measurement come from.
const STARTUP_LOCALITIES: [u8; 3] = [0, 3, 4];

/// The registers that a log leads to.
pub(super) struct Registers {
    bank: PcrHash,
    values: Vec<Vec<u8>>,
}

impl EventLog {
    /// What the registers `pcrs` of `bank` are once a machine has booted as the log says. Nothing proves that one has.
    pub fn registers(&self, bank: PcrHash, pcrs: PcrSelection) -> Result<BTreeMap<u8, Vec<u8>>, EventLogError> {
        let registers = Registers::of(self, bank)?;
        Ok(pcrs.indices().map(|pcr| (pcr, registers.value(pcr).to_vec())).collect())
    }
}

impl Registers {
    /// Those of a log, in that bank.
    pub fn of(log: &EventLog, bank: PcrHash) -> Result<Self, EventLogError> {
        if !log.header.has(bank) {
            return Err(EventLogError::OtherBank { bank });
        }
        let mut registers = Self { bank, values: vec![vec![0; bank.bytes()]; PCRS as usize] };
        let (mut is_told, mut is_begun) = (false, false);
        for event in &log.events {
            if let Some(locality) = startup_locality(event) {
                if is_told || is_begun || !STARTUP_LOCALITIES.contains(&locality) {
                    return Err(EventLogError::StartupLocality { event: event.place });
                }
                is_told = true;
                registers.start_at(locality);
            }
            if event.is_measured() {
                is_begun |= event.pcr == 0;
                let missing = EventLogError::NoDigest { event: event.place, bank };
                registers.extend(event.pcr as usize, event.digest(bank).ok_or(missing)?);
            }
        }
        Ok(registers)
    }

    /// TPM2_PCR_Extend.
    pub fn extend(&mut self, pcr: usize, digest: &[u8]) {
        let extended = self.bank.digest(&[&self.values[pcr], digest]);
        self.values[pcr] = extended.as_ref().to_vec();
    }

    /// Its value now.
    pub fn value(&self, pcr: u8) -> &[u8] {
        &self.values[usize::from(pcr)]
    }

    fn start_at(&mut self, locality: u8) {
        self.values[0].iter_mut().last().into_iter().for_each(|last| *last = locality);
    }
}

fn startup_locality(event: &Event) -> Option<u8> {
    let data = event.data.strip_prefix(STARTUP_LOCALITY)?;
    (event.kind == kind::NO_ACTION && event.pcr == 0).then(|| data.first().copied().unwrap_or(u8::MAX))
}
