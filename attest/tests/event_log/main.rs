//! Boot logs: those of real boots lead to the registers of the same boot, and what lies does not get past.

mod hostile;
mod real;
mod secure_boot;

use ironroot_attest::event_log::{EventLog, EventLogError, VerifiedLog};
use ironroot_attest::node::tpm2::PcrHash;
use ironroot_software_tpm::BootLog;

/// The registers of these indices, as a quote has them.
fn quoted(log: &BootLog, indices: &[u8]) -> Vec<(u8, Vec<u8>)> {
    indices.iter().map(|index| (*index, log.pcrs()[usize::from(*index)].to_vec())).collect()
}

fn verify(log: &BootLog, indices: &[u8]) -> Result<VerifiedLog, EventLogError> {
    EventLog::parse(log.bytes())?.verify(PcrHash::Sha256, &quoted(log, indices))
}
